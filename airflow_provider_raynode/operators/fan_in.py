"""Fan-in: verifies the result manifest, writes the run record, pushes references."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class RayFanInOperator(BaseOperator):
    """Collect a node: prove its result, write its run record, and push the best trial with references to its outputs.

    :param job: the JobRef that the execution task returned. (templated)
    :return: `{best_trial, best_config, best_metrics, outputs, trials, run_record}`: the best trial's id, its
        hyperparameters and metrics as JSON; a CatalogRef for each output by name; CatalogRefs of the trials table
        (parquet) and of the run record (JSON).
    """

    template_fields: Sequence[str] = ("job",)
    ui_color = "#d8f5d0"

    def __init__(self, *, job: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify and collect; see the class.

        :raises SpecError: `result.json` is missing, truncated, altered, or of another job.
        :raises CatalogError: an output or the trials table that the result names is not there.
        """
        # Imported here and not at the top: a DAG file is parsed all the time.
        from airflow_provider_raynode.exceptions import RayNodeError, SpecError
        from airflow_provider_raynode.hooks.catalog import catalog_for
        from airflow_provider_raynode.launchers import JobState, JobStatus
        from airflow_provider_raynode.operators._attempt import read_spec
        from airflow_provider_raynode.operators._job_run import as_job
        from airflow_provider_raynode.operators._progress import clock, short
        from airflow_provider_raynode.operators._record import record_end
        from airflow_provider_raynode.operators._result import proven_result
        from airflow_provider_raynode.record import record_of, write_record

        job = as_job(self.job)
        catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        try:
            result = proven_result(job, catalog)
            if (best := result.best) is None:
                raise SpecError(f"{job.attempt_prefix}/result.json: SUCCEEDED without a best trial")
        except RayNodeError as error:
            with suppress(RayNodeError):
                record_end(job, JobStatus(JobState.FAILED, str(error)), catalog)
            raise
        for warning in result.warnings:
            self.log.warning("%s", warning)
        spec = read_spec(job, catalog)
        record = write_record(record_of(job, spec, result, catalog, outcome="succeeded"), catalog)
        self.log.info(
            "Best trial %s: %s %s", best.trial_id, result.metric, short(best.metrics.get(result.metric or ""))
        )
        for name, value in best.config.items():
            self.log.info("    %s = %s", name, short(value))
        for name, reference in result.outputs.items():
            self.log.info("Output %s (%s, %d bytes): %s", name, reference["kind"], reference["size"], reference["uri"])
        states = ", ".join(f"{count} {state.lower()}" for state, count in result.trial_states.items())
        self.log.info("Trials: %s in %s", states, clock((result.ended - result.started).total_seconds()))
        return {
            "best_trial": best.trial_id,
            "best_config": best.config,
            "best_metrics": best.metrics,
            "outputs": result.outputs,
            "trials": result.trials,
            "run_record": dict(record),
        }
