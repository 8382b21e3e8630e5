"""The run record of an attempt that ended without a result to collect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_raynode.launchers import JobState, JobStatus
from airflow_provider_raynode.operators._attempt import read_spec, result_of
from airflow_provider_raynode.record import Outcome, record_of, write_record

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.spec import JobRef

# How the message of a job begins that its cluster has forgotten.
LOST = "lost"


def record_end(job: JobRef, status: JobStatus, node: Catalog) -> None:
    """Write `run.json` of an attempt that failed, was stopped or is lost.

    :raises RayNodeError: it cannot be written, or the attempt's spec cannot be read.
    """
    spec = read_spec(job, node)
    result = result_of(spec, node)
    outcome: Outcome = "failed"
    if status.state is JobState.STOPPED or (result and result.failure and result.failure.type == "Stopped"):
        outcome = "stopped"
    elif status.message.startswith(LOST):
        outcome = "lost"
    write_record(record_of(job, spec, result, node, outcome=outcome, message=status.message), node)


def is_recorded(job: JobRef, node: Catalog) -> bool:
    """Whether an attempt has its record."""
    return node.exists(f"{job.attempt_prefix}/run.json")
