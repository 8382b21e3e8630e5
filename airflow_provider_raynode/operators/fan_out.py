"""Fan-out: validates, checks the cluster, stages function and inputs, submits the job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import BindingError, ConfigError
from airflow_provider_raynode.links.ray_job import RayJobLink
from airflow_provider_raynode.operators._place import placed, warnings_placed
from airflow_provider_raynode.operators._resolve import (
    as_returns,
    check_arguments,
    check_attach_timeout,
    check_callable,
    check_early,
    check_limits,
    check_metric,
    check_named_arguments,
    check_secrets,
    is_static,
    load_config,
    work_of,
)
from airflow_provider_raynode.returns import Return

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.config.ray_config import WorkKind
    from airflow_provider_raynode.hooks.ray import RayHook
    from airflow_provider_raynode.operators._attempt import OnChange
    from airflow_provider_raynode.spec import JobRef, NodeSpec

DEFAULT_CONN_ID = "ray_default"
DEFAULT_ATTACH_TIMEOUT_S = 300.0
# Key in Airflow's task state store: the attempt of this task, written down before it is submitted.
STATE_KEY = "raynode_job"
# Airflow kills a task 5 s after its SIGTERM.
_STOP_ON_KILL_S = 4.0


class RayFanOutOperator(BaseOperator):
    """Prepare a node: check config, function and cluster, stage the inputs, and submit the job where a cluster runs it.

    What is wrong is refused here, before anything is submitted: a bad config or function fails the task without a
    retry, since the same input cannot get better. With the embedded Ray nothing starts yet: the execution task starts
    the driver as its own child.

    :param python_callable: the plain Python function that a trial, each worker of a training, or a task runs, or its
        import path `pkg.mod:fn` on the cluster. Hyperparameters and op_kwargs are bound to its arguments by name.
    :param ray_config: path of the YAML file, relative to the DAG file or absolute, a dict, or a RayConfig. (templated)
    :param op_kwargs: further arguments of the function; a CatalogRef anywhere in them is loaded before the call,
        a large or non-JSON value is staged in the catalog. (templated)
    :param returns: the function's outputs: `pickled("model")`, `json("report")`, `metric("accuracy")`, or a name.
    :param ray_conn_id: the Airflow connection of type `ray`. Without such a connection, and without an address in the
        config, the job runs on an embedded Ray on the Airflow worker.
    :param secrets: what the function may read on the workers, by name: `conn:my_db`, `var:api_key`, or with
        ` as ENV_NAME` as an environment variable as well. Only the names are kept, the values travel encrypted.
    :param parameters_file: YAML file of further arguments by name, found as `ray_config` is; op_kwargs and
        hyperparameters win, and what the function has no argument for is in `context().parameters`. (templated)
    :param startup_timeout_s: longest time in seconds until the first trial, worker or call runs; None for no limit.
    :param run_timeout_s: longest time in seconds for the whole job; None for no limit.
    :param attach_timeout_s: a job on a cluster that no execution task has attached to after so many seconds stops
        itself, since its DAG run may have been stopped in between; the task then goes on with its work.
    :param on_change: what to do when the node is run again after a failure and its function, inputs or config have
        changed, or its state is damaged: `refuse`, or `restart` to start anew.
    :param ray_node_id: the node's id in the catalog and in the submission id; default: this task's id.
    :return: a JobRef as JSON, for the execution task.
    """

    template_fields: Sequence[str] = ("ray_config", "op_kwargs", "parameters_file")
    template_fields_renderers = {"op_kwargs": "py"}  # noqa: RUF012  Airflow's own type of the attribute
    operator_extra_links = (RayJobLink(),)
    ui_color = "#d9ecff"
    # Where the job runs, over the config and the connection; the runner of Argo's tasks sets `rayjob`.
    address: str | None = None

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any] | str,
        ray_config: str | Path | Mapping[str, Any] | RayConfig,
        op_kwargs: Mapping[str, Any] | None = None,
        returns: Iterable[Return | str] = (),
        ray_conn_id: str = DEFAULT_CONN_ID,
        secrets: Sequence[str] = (),
        parameters_file: str | Path | None = None,
        startup_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        attach_timeout_s: float | None = DEFAULT_ATTACH_TIMEOUT_S,
        on_change: OnChange = "refuse",
        ray_node_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        parsed = self.get_dag()
        kind, name = ("task", self.task_id) if ray_node_id is None else ("node", ray_node_id)
        with placed(kind, name, parsed.dag_id if parsed is not None else None):
            check_callable(python_callable)
            check_secrets(secrets)
            check_limits(
                startup_timeout_s=startup_timeout_s, run_timeout_s=run_timeout_s, attach_timeout_s=attach_timeout_s
            )
            if on_change not in ("refuse", "restart"):
                raise ConfigError(f"on_change: {on_change!r} is not allowed: refuse or restart")
            if op_kwargs is not None and not isinstance(op_kwargs, Mapping):
                raise ConfigError(f"op_kwargs: expected a dict of arguments by name, got {op_kwargs!r:.80}")
            if names := [name for name in op_kwargs or () if not isinstance(name, str)]:
                raise ConfigError(f"op_kwargs: {names[0]!r:.80} is no name of an argument")
            if isinstance(ray_config, RayConfig):
                ray_config = ray_config.model_dump(mode="json", exclude_unset=True)
            elif isinstance(ray_config, Path):
                ray_config = str(ray_config)
            self.python_callable = python_callable
            self.ray_config = ray_config
            self.op_kwargs = dict(op_kwargs or {})
            self.returns = as_returns(returns)
            self.ray_conn_id = ray_conn_id
            self.secrets = tuple(secrets)
            self.parameters_file = str(parameters_file) if isinstance(parameters_file, Path) else parameters_file
            self.startup_timeout_s = startup_timeout_s
            self.run_timeout_s = run_timeout_s
            self.attach_timeout_s = attach_timeout_s
            self.on_change: OnChange = on_change
            self.ray_node_id = ray_node_id
            self.hyperparameters: tuple[str, ...] | None = None
            """Names in a trial's config, where the config is known when the DAG file is parsed."""
            self.known_work: WorkKind | None = work_of(ray_config)
            """What the node runs, where that is known when the DAG file is parsed."""
            self.known_address: str | None = None
            """Where the config says that the node runs, where that is known when the DAG file is parsed."""
            self._submitting: tuple[JobRef, NodeSpec] | None = None
            if parsed is not None and is_static(ray_config):
                with warnings_placed(kind, name, parsed.dag_id):
                    config = check_early(
                        python_callable, ray_config, self.op_kwargs, parsed, self.parameters_file, self.returns
                    )
                if config.ray_tune is not None and not config.ray_tune.is_replay:
                    self.hyperparameters = tuple(config.search_space)
                self.known_work = config.work
                self.known_address = config.cluster_address
                check_attach_timeout(attach_timeout_s, self.known_address, DEFAULT_ATTACH_TIMEOUT_S)

    def execute(self, context: Context) -> dict[str, Any]:
        """Stage and submit; see the class."""
        from airflow_provider_raynode.operators._in_process import signals_end_run

        try:
            with signals_end_run(self.on_kill):
                return self._execute(context).model_dump(mode="json")
        except (ConfigError, BindingError) as error:
            raise AirflowFailException(str(error)) from error

    def on_kill(self) -> None:
        """Stop the job that is being submitted: nobody would wait for it."""
        if self._submitting is None:
            return
        from airflow_provider_raynode.operators._attempt import launcher_for_spec

        job, spec = self._submitting
        with launcher_for_spec(job, spec) as launcher:
            launcher.stop(job, timeout_s=_STOP_ON_KILL_S)

    def _execute(self, context: Context) -> JobRef:
        # Imported here and not at the top: a DAG file is parsed all the time, and fans out now and then.
        from airflow_provider_raynode.operators._attempt import open_attempt, spec_of_attempt
        from airflow_provider_raynode.operators._record import record_earlier
        from airflow_provider_raynode.operators._resolve import load_parameters
        from airflow_provider_raynode.operators._staging import Staging
        from airflow_provider_raynode.spec import Limits

        config = load_config(self.ray_config, context["dag"])
        for text in config.warnings:
            self.log.warning("%s", text)
        check_metric(config, self.returns)
        parameters = load_parameters(self.parameters_file, context["dag"])
        check_named_arguments(config, {**parameters, **self.op_kwargs})
        if callable(self.python_callable):
            check_arguments(self.python_callable, config, self.op_kwargs, parameters)
        staging = Staging(
            self,
            context,
            config,
            ray_conn_id=self.ray_conn_id,
            node_id=self.ray_node_id,
            parameters=parameters,
            source=self.ray_config if isinstance(self.ray_config, str) else "ray_config",
            address=self.address,
        )
        check_attach_timeout(self.attach_timeout_s, staging.address, DEFAULT_ATTACH_TIMEOUT_S)
        staged = staging.function(
            self.python_callable,
            self.op_kwargs,
            returns=self.returns,
            secrets=self.secrets,
            limits=Limits(
                startup_timeout_s=self.startup_timeout_s,
                run_timeout_s=self.run_timeout_s,
                attach_timeout_s=None if staging.address in ("local", "rayjob") else self.attach_timeout_s,
            ),
            on_change=self.on_change,
        )
        node, hook = staged.node, staged.hook
        store: Any = context.get("task_state_store")
        written = store.get(STATE_KEY) if store is not None else None
        own = int(written["attempt"]) if isinstance(written, dict) and written.get("open") else None
        job = open_attempt(staged.spec, node, hook, own=own, on_change=self.on_change)
        record_earlier(job, node, hook)
        self.log.info("Submission id %s, spec %s", job.submission_id, job.spec_uri)
        state = {"submission_id": job.submission_id, "attempt": job.attempt}
        if store is not None:
            # Written down before it is submitted: whoever comes after a crash in between finds the same job.
            store.set(STATE_KEY, {**state, "open": True})
        if job.launcher == "jobs_api":
            self._submit(job, spec_of_attempt(node, job.attempt), node, hook)
        if store is not None:
            store.set(STATE_KEY, {**state, "open": False})
        return job

    def _submit(self, job: JobRef, spec: NodeSpec, node: Catalog, hook: RayHook) -> None:
        from airflow_provider_raynode.operators._attempt import launcher_for_spec
        from airflow_provider_raynode.operators._delivery import deliver_secrets
        from airflow_provider_raynode.operators._in_process import remember

        self._submitting = (job, spec)
        try:
            with launcher_for_spec(job, spec, lambda: deliver_secrets(spec, node)) as launcher:
                started = launcher.ensure(job)
            # With what is resolved by now: between two tasks of `dag.test()` nobody can read a connection.
            remember(job.submission_id, partial(hook.stop_job, job.submission_id, _STOP_ON_KILL_S))
        finally:
            self._submitting = None
        self.log.info("%s at %s", "Job submitted" if started else "Attached to the job that runs", job.address)
