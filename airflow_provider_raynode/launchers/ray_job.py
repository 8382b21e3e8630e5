"""A job that Kubernetes runs as a RayJob: started elsewhere, over before its execution task begins."""

from __future__ import annotations

from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.hooks.catalog import catalog_for
from airflow_provider_raynode.launchers._base import JobState, JobStatus, Launcher, LogChunk
from airflow_provider_raynode.spec import JobRef, unseal


class RayJobLauncher(Launcher):
    """Reads what a RayJob left in the catalog; the workflow that made the RayJob starts, tries again and stops it."""

    def ensure(self, job: JobRef) -> bool:
        """Attach: the RayJob has ended by now."""
        return False

    def status(self, job: JobRef) -> JobStatus:
        """Return how the driver ended, by its sealed result."""
        uri = f"{job.attempt_prefix}/result.json"
        try:
            result = unseal(catalog_for(job.catalog_uri).at(job.node_prefix).read_bytes(uri), source=uri)
        except (CatalogError, SpecError) as error:
            return JobStatus(JobState.FAILED, f"the RayJob left no result: see its pods' logs in Kubernetes ({error})")
        return JobStatus(JobState(result.state), "" if result.failure is None else result.failure.message)

    def read_log(self, job: JobRef, offset: int, *, final: bool = False) -> LogChunk:
        """Return nothing: the log is that of the RayJob's pods."""
        return LogChunk("", offset)

    def stop(self, job: JobRef, *, timeout_s: float = 10.0) -> JobStatus:
        """Return the last state: there is nothing left to stop."""
        return self.status(job)
