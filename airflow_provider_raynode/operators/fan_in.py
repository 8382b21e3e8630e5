"""Fan-in: verifies the result manifest, writes the run record, pushes references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_raynode.catalog import CatalogRef
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.operators._progress import clock, short
from airflow_provider_raynode.operators.execution import as_job
from airflow_provider_raynode.spec import JobRef, NodeResult, unseal

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.catalog import Catalog


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
        :raises CatalogError: an output that the result names is not there.
        """
        from airflow_provider_raynode.hooks.catalog import catalog_for

        job = as_job(self.job)
        catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        result = self._proven_result(job, catalog)
        best = result.best
        if best is None:
            raise SpecError(f"{job.attempt_prefix}/result.json: SUCCEEDED without a best trial")
        for warning in result.warnings:
            self.log.warning("%s", warning)
        record = self._write_record(job, result, catalog)
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

    def _proven_result(self, job: JobRef, catalog: Catalog) -> NodeResult:
        uri = f"{job.attempt_prefix}/result.json"
        try:
            data = catalog.read_bytes(uri)
        except CatalogError as error:
            raise SpecError(f"the job {job.submission_id} left no result: {error}") from error
        result = unseal(data, source=uri)
        if (result.submission_id, result.spec_sha256) != (job.submission_id, job.spec_sha256):
            raise SpecError(
                f"{uri} is the result of job {result.submission_id} (spec {result.spec_sha256[:12]}…), expected "
                f"{job.submission_id} (spec {job.spec_sha256[:12]}…): clear the node's fan-out to run it anew"
            )
        if result.state != "SUCCEEDED":
            reason = f"{result.failure.type}: {result.failure.message}" if result.failure else "no reason given"
            raise SpecError(f"{uri} says {result.state}: {reason}")
        for name, reference in result.outputs.items():
            if not catalog.exists(CatalogRef.from_xcom(reference)["uri"]):
                raise CatalogError(f"output {name!r} of {job.submission_id} is gone: {reference['uri']} does not exist")
        return result

    def _write_record(self, job: JobRef, result: NodeResult, catalog: Catalog) -> CatalogRef:
        record = {
            "schema_version": 1,
            "submission_id": job.submission_id,
            "attempt": job.attempt,
            "launcher": job.launcher,
            "address": job.address,
            "spec": {"uri": job.spec_uri, "sha256": job.spec_sha256},
            **json.loads(result.model_dump_json(exclude={"schema_version", "submission_id", "attempt", "spec_sha256"})),
        }
        return catalog.child(f"attempt_{job.attempt}").put(record, "run", kind="json")
