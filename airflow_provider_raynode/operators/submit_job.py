"""An arbitrary command as a Ray job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._one_task import RayOneTaskOperator, config_with
from airflow_provider_raynode.operators._place import placed
from airflow_provider_raynode.operators._resolve import (
    check_limits,
    check_on_kill,
    check_secrets,
    is_static,
)
from airflow_provider_raynode.operators._secrets import asks_for_secrets
from airflow_provider_raynode.operators.fan_out import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from airflow_provider_raynode.operators._entrypoint_run import EntrypointRun
    from airflow_provider_raynode.operators._job_run import JobRun
    from airflow_provider_raynode.operators._staging import Staged
    from airflow_provider_raynode.spec import Entrypoint, NodeResult

# What this package shows with every job of its own.
_OWN_METADATA = ("dag_id", "run_id", "node_id", "map_index", "attempt", "airflow_provider_raynode")
_NUMBERS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")
# Sections of a config that say what a function does.
_OF_A_FUNCTION = ("ray_tune", "ray_train", "ray_map", "default_resources")
_ATTACH_TIMEOUT_S = 300.0


class RaySubmitJobOperator(RayOneTaskOperator):
    """Run a shell command as a Ray job: submit it once, wait, show its log, stop it when the task is stopped.

    The submission id follows from DAG, run, task, map index and attempt: a task whose worker is killed at any moment
    attaches to its job when it is tried again, and one whose job failed, was stopped or is lost submits the next. A job
    that fails, or that somebody stops on the cluster, fails the task with Ray's own message and the end of its log.

    Without a cluster (no such connection, or the address `local`) the command runs on an embedded Ray on the Airflow
    worker: `ray.init()` in it connects there. There is no dashboard and no Jobs API.

    Example::

        RaySubmitJobOperator(
            task_id="score",
            entrypoint="python score.py --date {{ ds }}",
            runtime_env={"working_dir": "jobs"},
            entrypoint_num_cpus=1,
            secrets=["conn:warehouse as WAREHOUSE_URI"],
        )

    :param entrypoint: the command, for a shell on the cluster. (templated)
    :param ray_conn_id: the Airflow connection of type `ray`. (templated)
    :param ray_config: path of a YAML file, a dict or a RayConfig, of which `ray_cluster` and `catalog` count.
        (templated)
    :param address: the cluster's address, over that of the connection.
    :param runtime_env: Ray's runtime environment; paths of this machine are uploaded, relative ones are sought beside
        the DAG file. No secrets: Ray shows it. (templated)
    :param entrypoint_num_cpus: CPUs that the command itself reserves; without any reservation Ray starts it on the head
        node. (templated)
    :param entrypoint_num_gpus: GPUs, fractions below 1 allowed. (templated)
    :param entrypoint_memory: memory in bytes. (templated)
    :param entrypoint_resources: custom resources by name. (templated)
    :param entrypoint_label_selector: labels of the machine, as Ray's `label_selector`. (templated)
    :param metadata: texts by name that Ray shows with the job. No secrets. (templated)
    :param secrets: connections and variables as environment variables of the command: `conn:my_db as DB_URI`,
        `var:api_key as API_KEY`. They travel encrypted, and our driver starts the command: the cluster must reach the
        catalog.
    :param startup_timeout_s: longest time in seconds until the command runs; None for no limit but Ray's own.
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param deferrable: wait in the triggerer; default: true, see `default_deferrable`.
    :param grace_s: how long in seconds the cluster may be silent.
    :param on_kill: `stop` or `detach`.
    :return: `{submission_id, status, message, attempt, address, run_record}`.
    """

    template_fields: Sequence[str] = (
        "entrypoint",
        "ray_conn_id",
        "ray_config",
        "runtime_env",
        *_NUMBERS,
        "entrypoint_resources",
        "entrypoint_label_selector",
        "metadata",
    )
    template_fields_renderers = {"entrypoint": "bash", "runtime_env": "json", "metadata": "json"}  # noqa: RUF012
    ui_color = "#e0e7ff"

    def __init__(
        self,
        *,
        entrypoint: str,
        ray_conn_id: str = DEFAULT_CONN_ID,
        ray_config: str | Path | Mapping[str, Any] | RayConfig | None = None,
        address: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        entrypoint_label_selector: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        startup_timeout_s: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(ray_config, RayConfig):
            ray_config = ray_config.model_dump(mode="json", exclude_unset=True)
        elif isinstance(ray_config, Path):
            ray_config = str(ray_config)
        self.entrypoint = entrypoint
        self.ray_conn_id = ray_conn_id
        self.ray_config = ray_config
        self.address = address
        self.runtime_env = runtime_env
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.entrypoint_label_selector = entrypoint_label_selector
        self.metadata = metadata
        self.secrets = secrets if isinstance(secrets, str) else tuple(secrets)
        self.startup_timeout_s = startup_timeout_s
        given = (entrypoint, ray_config, runtime_env, metadata)
        self._asks_for_secrets = any(asks_for_secrets(each) for each in given)
        parsed = self.get_dag()
        with placed("task", self.task_id, parsed.dag_id if parsed is not None else None):
            check_secrets(self.secrets)
            _check_variables(self.secrets)
            check_limits(startup_timeout_s=startup_timeout_s)
            static = [is_static(getattr(self, name)) for name in self.template_fields]
            if all(static):
                self._command(embedded=address == "local")
            if parsed is not None and all(is_static(each) for each in (ray_config, runtime_env)):
                check_on_kill(self.kill_policy, self._config(parsed).cluster_address)

    def _stage(self, context: Context) -> Staged:
        from airflow_provider_raynode.operators._staging import Staging
        from airflow_provider_raynode.spec import Limits

        config = self._config(context["dag"])
        staging = Staging(
            self,
            context,
            config,
            ray_conn_id=self.ray_conn_id,
            source=self.ray_config if isinstance(self.ray_config, str) else "ray_config",
        )
        command = self._command(embedded=staging.address == "local")
        if self._asks_for_secrets:
            self._check_clear(command, config)
        watched = command.by_driver and staging.address != "local"
        limits = Limits(
            startup_timeout_s=self.startup_timeout_s, attach_timeout_s=_ATTACH_TIMEOUT_S if watched else None
        )
        return staging.entrypoint(command, secrets=tuple(self.secrets), limits=limits)

    def _job_run(self, job: Any) -> JobRun:
        from airflow_provider_raynode.operators._entrypoint_run import EntrypointRun
        from airflow_provider_raynode.operators._job_run import as_job

        return EntrypointRun(as_job(job), poll_interval_s=self.poll_interval_s, grace_s=self.grace_s, log=self.log)

    def _output(self, run: JobRun, result: NodeResult | None) -> dict[str, Any]:
        ended: EntrypointRun = run  # type: ignore[assignment]  # made by `_job_run`
        return {
            "submission_id": run.job.submission_id,
            "status": "SUCCEEDED",
            "message": ended.message[:500],
            "attempt": run.job.attempt,
            "address": run.job.address,
            "run_record": dict(self._record(run, result)),
        }

    def _config(self, dag: DAG | None) -> RayConfig:
        """Return the config with the arguments that are said beside it.

        :raises ConfigError: it is wrong, says what has no effect here, or says again what an argument says.
        """
        config = config_with(
            self.ray_config, dag, ray_cluster={"address": self.address, "runtime_env": self.runtime_env}
        )
        unused = [name for name in _OF_A_FUNCTION if name in config.model_fields_set]
        if unused:
            raise ConfigError(
                f"ray_config: {', '.join(unused)} has no effect on an entrypoint: only ray_cluster and catalog count. "
                "What the command itself reserves is said in entrypoint_num_cpus, entrypoint_num_gpus, …"
            )
        return config

    def _command(self, *, embedded: bool) -> Entrypoint:
        """Return the command with what it reserves.

        :raises ConfigError: an argument is not what it has to be, or has no effect on the embedded Ray.
        """
        from airflow_provider_raynode.spec import Entrypoint

        if not isinstance(self.entrypoint, str) or not self.entrypoint.strip():
            raise ConfigError(f"entrypoint: expected a command, such as 'python job.py', got {self.entrypoint!r:.80}")
        if "\0" in self.entrypoint:
            raise ConfigError("entrypoint: holds a zero byte, which no command line can")
        numbers = {name: _number(name, getattr(self, name)) for name in _NUMBERS}
        gpus, memory = numbers["entrypoint_num_gpus"], numbers["entrypoint_memory"]
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ConfigError(
                f"entrypoint_num_gpus: {gpus:g} is neither below 1 nor whole: Ray shares one GPU or gives whole ones"
            )
        if memory is not None and memory != int(memory):
            raise ConfigError(f"entrypoint_memory: {memory!r} is not a whole number of bytes")
        resources = _mapping("entrypoint_resources", self.entrypoint_resources)
        for name in set(resources) & {"CPU", "GPU", "memory"}:
            argument = {"CPU": "entrypoint_num_cpus", "GPU": "entrypoint_num_gpus"}.get(name, "entrypoint_memory")
            raise ConfigError(f"entrypoint_resources.{name}: is Ray's own resource: say it in {argument}")
        labels = _mapping("entrypoint_label_selector", self.entrypoint_label_selector)
        if embedded and labels:
            raise ConfigError(
                "entrypoint_label_selector: has no effect here: the embedded Ray is this machine. Leave it out, or "
                "give the connection the address of a cluster"
            )
        metadata = _mapping("metadata", self.metadata)
        if own := [name for name in metadata if name in _OWN_METADATA]:
            raise ConfigError(f"metadata.{own[0]}: is said of every job by this package: give it another name")
        return Entrypoint(
            command=self.entrypoint,
            num_cpus=numbers["entrypoint_num_cpus"],
            num_gpus=gpus,
            memory=None if memory is None else int(memory),
            resources={
                name: _number(f"entrypoint_resources.{name}", value) or 0.0 for name, value in resources.items()
            },
            label_selector=_texts("entrypoint_label_selector", labels),
            metadata=_texts("metadata", metadata),
            by_driver=embedded or bool(self.secrets),
        )

    def _check_clear(self, command: Entrypoint, config: RayConfig) -> None:
        """Refuse a secret of Airflow's in what Ray shows to all who see its dashboard.

        :raises ConfigError: see above; the message names the place and not the secret.
        """
        from airflow_provider_raynode.operators._secrets import check_clear

        environment = config.ray_cluster.runtime_env
        variables = (environment.env_vars if environment is not None else None) or {}
        check_clear(
            {
                "entrypoint": command.command,
                **{f"metadata.{name}": value for name, value in command.metadata.items()},
                **{f"runtime_env.env_vars.{name}": value for name, value in variables.items()},
            }
        )


def _check_variables(secrets: Sequence[str]) -> None:
    """Refuse a secret that is no environment variable: a command has nothing else to read it from."""
    from airflow_provider_raynode.operators._secrets import parse_secrets

    for name in parse_secrets(secrets):
        if name.env is None:
            raise ConfigError(
                f"secrets: {name.id!r} has no effect on an entrypoint, which reads environment variables: write "
                f"'{name.id} as {name.key.upper().replace('-', '_')}'"
            )


def _number(name: str, value: Any) -> float | None:
    """Return a number, also one that a template has made a text of."""
    if value is None or value == "":
        return None
    try:
        found = float(value) if isinstance(value, str) else value
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
            raise ValueError
    except ValueError:
        raise ConfigError(f"{name}: {value!r:.80} is not allowed: a number, not negative") from None
    return found


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}: expected a dict by name, got {value!r:.80}")
    return dict(value)


def _texts(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    for key, value in values.items():
        if not isinstance(value, str):
            raise ConfigError(f"{name}.{key}: expected text, got {value!r:.80}: quote numbers and booleans")
    return dict(values)
