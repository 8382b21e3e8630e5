"""A node that is one task: it stages its work, runs it and collects what came of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_raynode.exceptions import BindingError, ConfigError
from airflow_provider_raynode.operators._resolve import check_on_kill, config_path, dag_folders
from airflow_provider_raynode.operators.execution import STATE_KEY, RayExecutionOperator

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from airflow_provider_raynode.catalog import CatalogRef
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.operators._job_run import JobRun
    from airflow_provider_raynode.operators._staging import Staged
    from airflow_provider_raynode.spec import NodeResult


class RayOneTaskOperator(RayExecutionOperator):
    """Stage, run and collect in one task: the same life of a job as a node's, without tasks before and after it.

    Each try stages anew, so that it has the arguments of now; a job that runs with the same work is attached to, and a
    success that a killed try had not returned is returned.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(job=None, **kwargs)

    @abstractmethod
    def _stage(self, context: Context) -> Staged:
        """Stage the work.

        :raises ConfigError: it can never run as it is.
        :raises BindingError: the arguments do not fit the function.
        """

    def _open(self, context: Context) -> JobRun:
        """Stage, and return the run of the attempt that this task runs; what is wrong fails without a retry."""
        from airflow_provider_raynode.operators._attempt import open_own_attempt
        from airflow_provider_raynode.operators._record import record_earlier

        try:
            staged = self._stage(context)
            job = open_own_attempt(staged.spec, staged.node, staged.hook)
            check_on_kill(self.kill_policy, job.launcher)
        except (ConfigError, BindingError) as error:
            raise AirflowFailException(str(error)) from error
        record_earlier(job, staged.node, staged.hook)
        run = self._job_run(job.model_dump(mode="json"))
        chosen = run.choose_attempt(retry=True)
        self.log.info("Submission id %s, spec %s", chosen.submission_id, chosen.spec_uri)
        # The link of the finished task is made of it.
        self.job = chosen.model_dump(mode="json")
        return run

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on when the triggerer has seen the job's end.

        :raises NodeFailedError: the job failed.
        """
        self.job = event["job"]
        return super().execute_complete(context, event)

    def _newest(self, context: Context) -> JobRun:
        """Return the run of the job that this task wrote down, or else of the newest attempt there is."""
        store = context.get("task_state_store")
        written = store.get(STATE_KEY) if store is not None else None
        if isinstance(written, dict) and "job" in written:
            self.job = written["job"]
        if self.job is None:
            from airflow_provider_raynode.operators._attempt import job_of, last_attempt, spec_of_attempt

            staged = self._stage(context)
            newest = spec_of_attempt(staged.node, last_attempt(staged.node))
            self.job = job_of(newest, staged.hook).model_dump(mode="json")
        return self._job_run(self.job)

    def _record(self, run: JobRun, result: NodeResult | None) -> CatalogRef:
        """Write the run record of an attempt that has succeeded, and return its reference."""
        from airflow_provider_raynode.operators._attempt import read_spec
        from airflow_provider_raynode.record import record_of, write_record

        catalog = run.node
        spec = read_spec(run.job, catalog)
        return write_record(record_of(run.job, spec, result, catalog, outcome="succeeded"), catalog)


def config_with(given: Any, dag: DAG | None, **sections: Mapping[str, Any]) -> RayConfig:
    """Return a config with the values that a task's arguments say; None is not said.

    :param given: path of a YAML file, a dict, a RayConfig, or None.
    :param sections: values by key, by section.
    :raises ConfigError: the config is wrong, or says a value as well.
    """
    from airflow_provider_raynode.config import RayConfig

    source: Any = config_path(given, dag) if isinstance(given, str) else {} if given is None else given
    folders = dag_folders(dag)
    config = RayConfig.load(source, source="ray_config", folders=folders)
    whole = config.model_dump(mode="json", exclude_unset=True)
    said = False
    for section, values in sections.items():
        beside = {name: value for name, value in values.items() if value is not None}
        own = whole.get(section) or {}
        for name in beside:
            if own.get(name) is not None:
                raise ConfigError(f"{name}: is said by ray_config ({section}.{name}) as well: remove one of them")
        if beside:
            whole[section] = {**own, **beside}
            said = True
    return RayConfig.load(whole, source="ray_config", folders=folders) if said else config
