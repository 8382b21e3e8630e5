"""A job that Kubernetes runs as a RayJob: started elsewhere, mostly over before its execution task begins."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.hooks.catalog import catalog_for
from airflow_provider_raynode.kubernetes_api import KubernetesApi, KubernetesApiError
from airflow_provider_raynode.launchers._base import JobState, JobStatus, Launcher, LogChunk
from airflow_provider_raynode.ray_jobs import RayJob, RayJobs
from airflow_provider_raynode.spec import JobRef, NodeResult, ray_job_name, unseal


class RayJobLauncher(Launcher):
    """Reads what a RayJob left in the catalog, and what Kubernetes says of one that left nothing.

    The workflow that made the RayJob starts it and tries it again. Where Argo has lost sight of it (a pod that was
    evicted, with no tries left) and it still runs, it is waited for here.
    """

    def __init__(self) -> None:
        self._jobs: RayJobs | None = None

    def ensure(self, job: JobRef) -> bool:
        """Attach: the RayJob has been made by now."""
        return False

    def status(self, job: JobRef) -> JobStatus:
        """Return how the driver ended: by its sealed result, and else in KubeRay's words."""
        result = self._result(job)
        if result is not None and result.state == "SUCCEEDED":
            return JobStatus(JobState.SUCCEEDED)
        name = ray_job_name(job.submission_id)
        try:
            found = self._ray_jobs().find(name)
        except KubernetesApiError as error:
            message = f"The RayJob {name} cannot be looked at: {error}"
            if result is not None:
                message += "\nWhere it was tried more than once, this failure may be an earlier try's"
            return JobStatus(JobState.FAILED, message, own_result=result is not None)
        if found is None:
            message = f"The RayJob {name} is gone: it was deleted"
            return JobStatus(JobState.FAILED, message, own_result=result is not None)
        if not found.finished:
            return JobStatus(JobState.RUNNING if found.job == "RUNNING" else JobState.PENDING, str(found))
        if found.succeeded and result is None:
            # Its result is missing, then: whoever proves it says so.
            return JobStatus(JobState.SUCCEEDED, str(found))
        own = result is not None and _is_of(result, found)
        state = JobState.STOPPED if found.job == "STOPPED" else JobState.FAILED
        return JobStatus(state, self._account(found, with_causes=not own), own_result=own)

    def read_log(self, job: JobRef, offset: int, *, final: bool = False) -> LogChunk:
        """Return nothing: the log is that of the RayJob's pods."""
        return LogChunk("", offset)

    def stop(self, job: JobRef, *, timeout_s: float = 10.0) -> JobStatus:
        """Delete the RayJob if it still runs: its driver gets SIGTERM, and its cluster goes."""
        try:
            found = self._ray_jobs().find(ray_job_name(job.submission_id))
            if found is not None and (not found.finished or found.left_behind):
                gone = self._ray_jobs().end(found, timeout_s=timeout_s)
                return JobStatus(JobState.STOPPED, f"The RayJob {found.name} {'was' if gone else 'is being'} deleted.")
        except KubernetesApiError as error:
            return JobStatus(JobState.FAILED, f"the RayJob cannot be ended: {error}")
        return self.status(job)

    def _ray_jobs(self) -> RayJobs:
        if self._jobs is None:
            self._jobs = RayJobs(KubernetesApi.of_pod())
        return self._jobs

    def _result(self, job: JobRef) -> NodeResult | None:
        """Return the sealed result of this submission and spec, None where there is none."""
        uri = f"{job.attempt_prefix}/result.json"
        try:
            result = unseal(catalog_for(job.catalog_uri).at(job.node_prefix).read_bytes(uri), source=uri)
        except (CatalogError, SpecError):
            return None
        own = (result.submission_id, result.spec_sha256) == (job.submission_id, job.spec_sha256)
        return result if own else None

    def _account(self, found: RayJob, *, with_causes: bool) -> str:
        lines = [str(found)]
        if with_causes:
            lines += self._ray_jobs().causes(found)
            lines.append(f"More is in its pods, until KubeRay removes them: kubectl describe rayjob {found.name}")
        return "\n".join(lines)


def _is_of(result: NodeResult, found: RayJob) -> bool:
    """Whether a failed result is that of a RayJob, and not of an earlier try of the same submission."""
    if result.cluster and found.cluster:
        return result.cluster == found.cluster
    try:
        created = datetime.fromisoformat(found.created)
    except ValueError:
        return True
    return result.ended >= created
