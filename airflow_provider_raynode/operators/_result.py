"""The proof of a node's result."""

from __future__ import annotations

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.operators._attempt import read_spec
from airflow_provider_raynode.spec import JobRef, NodeResult, unseal


def proven_result(job: JobRef, catalog: Catalog) -> NodeResult:
    """Return the result of a job that succeeded.

    :raises SpecError: `result.json` is missing, truncated, altered, of another job, says that the job failed, or lacks
        what shows that the work is whole.
    :raises CatalogError: an output or a table that it names is not there.
    """
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
    if problem := _not_whole(read_spec(job, catalog).config.work, result):
        raise SpecError(f"{uri} says SUCCEEDED, {problem}")
    named = {f"output {name!r}": reference for name, reference in result.outputs.items()}
    if result.trials is not None:
        named["the trials table"] = result.trials
    if result.front is not None:
        named["the front"] = result.front
    if result.steps is not None:
        named["the table of the steps"] = result.steps
    for name, reference in named.items():
        if not catalog.exists(CatalogRef.from_xcom(reference)["uri"]):
            raise CatalogError(f"{name} of {job.submission_id} is gone: {reference['uri']} does not exist")
    return result


def _not_whole(work: WorkKind, result: NodeResult) -> str | None:
    """Return what the result lacks of the proof that its work has ended as it should, None where it has it."""
    if work == "search":
        return "without a best trial" if result.best is None else None
    if work == "training":
        end = result.training
        if end is None:
            return "without how its training ended"
        return None if end.whole else f"and its training was cut off ({end.ending}: {end.reason or 'no reason given'})"
    if work == "map":
        items = result.items
        if items is None:
            return "without its items"
        if not items.whole:
            return (
                f"and its map is not whole: {items.succeeded} of {items.items} items done, {items.failed} failed "
                f"({items.ending})"
            )
        return "without the output 'results'" if "results" not in result.outputs else None
    return None
