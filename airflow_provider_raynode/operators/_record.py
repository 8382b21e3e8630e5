"""The run record of an attempt that ended without a result to collect, or with one that nobody collected."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.launchers import JobState, JobStatus
from airflow_provider_raynode.operators._attempt import is_stopping, job_of, read_spec, result_of, spec_of_attempt
from airflow_provider_raynode.record import Outcome, record_of, write_record

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.hooks.ray import RayHook
    from airflow_provider_raynode.spec import JobRef

log = logging.getLogger(__name__)

# How the message of a job begins that its cluster has forgotten.
LOST = "lost"


def record_end(job: JobRef, status: JobStatus, node: Catalog) -> None:
    """Write `run.json` of an attempt that failed, was stopped or is lost.

    :raises RayNodeError: it cannot be written, or the attempt's spec cannot be read.
    """
    spec = read_spec(job, node)
    result = result_of(spec, node)
    if result is not None and (result.spec_sha256 != job.spec_sha256 or not status.own_result):
        result = None  # left by another spec of the same attempt, or by an earlier job
    outcome: Outcome = "failed"
    if status.state is JobState.STOPPED or (result and result.failure and result.failure.type == "Stopped"):
        outcome = "stopped"
    elif status.message.startswith(LOST):
        outcome = "lost"
    write_record(record_of(job, spec, result, node, outcome=outcome, message=status.message), node)


def is_recorded(job: JobRef, node: Catalog) -> bool:
    """Whether an attempt has its record."""
    return node.exists(f"{job.attempt_prefix}/run.json")


def record_earlier(job: JobRef, node: Catalog, hook: RayHook) -> None:
    """Write the records of the attempts before `job`'s that have none: whoever should have written them was killed."""
    for number in range(1, job.attempt):
        try:
            spec = spec_of_attempt(node, number)
            earlier = job_of(spec, hook)
            if is_recorded(earlier, node):
                continue
            result = result_of(spec, node)
            if result is not None and (result.state, result.spec_sha256) == ("SUCCEEDED", earlier.spec_sha256):
                write_record(record_of(earlier, spec, result, node, outcome="succeeded"), node)
                continue
            state = JobState.STOPPED if is_stopping(spec, node) else JobState.FAILED
            record_end(earlier, JobStatus(state, "it ended while no task watched it"), node)
        except RayNodeError as error:
            log.warning("The run record of attempt %d cannot be written: %s", number, error)
