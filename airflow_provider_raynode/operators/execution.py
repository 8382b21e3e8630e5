"""The execution task that search and training share: attach, wait, stream, cancel, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_raynode.exceptions import CatalogError, NodeFailedError, RayNodeError, SpecError
from airflow_provider_raynode.launchers import JobState, JobStatus
from airflow_provider_raynode.links.ray_job import RayJobLink
from airflow_provider_raynode.operators import _progress
from airflow_provider_raynode.operators._attempt import (
    as_attempt,
    job_of,
    last_attempt,
    launcher_for_spec,
    read_spec,
    write_attempt,
)
from airflow_provider_raynode.spec import JobRef, NodeProgress, NodeResult, NodeSpec, unseal

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.launchers import Launcher

# Poll soon after the start, so that a short job ends without a wait, then settle at the configured interval.
_FIRST_POLL_S = 0.1
# A child process and a local file cost nothing to look at.
_LOCAL_POLL_S = 0.5
# Airflow kills a task 5 s after its SIGTERM.
_STOP_ON_KILL_S = 4.0


class RayExecutionOperator(BaseOperator):
    """Run a staged job to its end: attach or start, stream its log and progress, stop it when the task is stopped.

    :param job: the JobRef that fan-out returned. (templated)
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :return: the JobRef of the attempt that succeeded, for fan-in.
    """

    template_fields: Sequence[str] = ("job",)
    operator_extra_links = (RayJobLink(),)
    ui_color = "#ffe3b3"
    # The word for the work in messages.
    work: ClassVar[str] = "job"

    def __init__(self, *, job: Any, poll_interval_s: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if poll_interval_s <= 0:
            raise ValueError(f"poll_interval_s must be positive, got {poll_interval_s}")
        self.job = job
        self.poll_interval_s = poll_interval_s
        self._running: tuple[Launcher, JobRef] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the job's success; see the class.

        :raises NodeFailedError: the job failed; the message is the job's own, with the failing trial's traceback.
        """
        from airflow_provider_raynode.hooks.catalog import catalog_for

        job = as_job(self.job)
        catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        spec = read_spec(job, catalog)
        job, spec = self._attempt_to_run(job, spec, catalog, retry=context["ti"].try_number > 1)
        RayJobLink().push(context, job)
        with launcher_for_spec(job, spec) as launcher:
            self._running = (launcher, job)
            try:
                started = launcher.ensure(job)
                self.log.info("%s job %s (%s)", "Started" if started else "Attached to", job.submission_id, job.address)
                status = self._wait(launcher, job, catalog)
            except BaseException as error:
                # A driver that is this task's child never outlives it; a cluster's job does, so that the next try can
                # attach to it, unless the task's own time is over.
                if job.launcher == "local" or isinstance(error, AirflowTaskTimeout):
                    launcher.stop(job)
                raise
            finally:
                self._running = None
        if status.state is not JobState.SUCCEEDED:
            raise self._failure(job, status, catalog)
        return job.model_dump(mode="json")

    def on_kill(self) -> None:
        """Stop the job: the task was stopped, so its work is."""
        if self._running is not None:
            launcher, job = self._running
            self.log.info("Stopping %s", job.submission_id)
            status = launcher.stop(job, timeout_s=_STOP_ON_KILL_S)
            self.log.info("%s is %s", job.submission_id, status.state)

    def _attempt_to_run(self, job: JobRef, spec: NodeSpec, catalog: Catalog, *, retry: bool) -> tuple[JobRef, NodeSpec]:
        """Return the newest attempt, or on a retry a further one when that has ended without success."""
        from airflow_provider_raynode.hooks.ray import RayHook

        number = last_attempt(catalog)
        if not retry or number == 0:
            return job, spec
        hook = RayHook(**({"ray_conn_id": job.ray_conn_id} if job.ray_conn_id else {}), address=job.address)
        newest = as_attempt(spec, number)
        newest_job = job_of(newest, hook)
        ended = self._result(newest_job, catalog) is not None
        if not ended and newest_job.launcher == "jobs_api":
            known = hook.get_job(newest.submission_id)
            ended = known is not None and known.state.ended
        if not ended:
            return newest_job, newest
        self.log.info("Attempt %d has ended; this is attempt %d", number, number + 1)
        return write_attempt(spec, number + 1, catalog, hook), as_attempt(spec, number + 1)

    def _wait(self, launcher: Launcher, job: JobRef, catalog: Catalog) -> JobStatus:
        offset = 0
        pace = _progress.Pace()
        interval = _FIRST_POLL_S
        seen: NodeProgress | None = None
        longest = min(self.poll_interval_s, _LOCAL_POLL_S) if job.launcher == "local" else self.poll_interval_s
        while True:
            status = launcher.status(job)
            chunk = launcher.read_log(job, offset, final=status.state.ended)
            offset = chunk.offset
            for line in chunk.text.splitlines():
                self.log.info("%s", line)
            progress = self._progress(job, catalog)
            if progress is not None and progress != seen:
                seen = progress
                _progress.notify(job, progress)
            if progress is not None and pace.due(progress):
                for line in _progress.table(progress):
                    self.log.info("%s", line)
            if status.state.ended:
                return status
            time.sleep(interval)
            interval = min(interval * 1.3, longest)

    def _progress(self, job: JobRef, catalog: Catalog) -> NodeProgress | None:
        try:
            return NodeProgress.from_bytes(catalog.read_bytes(f"{job.attempt_prefix}/progress.json"))
        except (CatalogError, SpecError):
            # Not written yet; a look at the progress is never worth the task.
            return None

    def _result(self, job: JobRef, catalog: Catalog) -> NodeResult | None:
        uri = f"{job.attempt_prefix}/result.json"
        try:
            return unseal(catalog.read_bytes(uri), source=uri)
        except (CatalogError, SpecError):
            return None

    def _failure(self, job: JobRef, status: JobStatus, catalog: Catalog) -> RayNodeError:
        result = self._result(job, catalog)
        lines = [f"The {self.work} {job.submission_id} ended as {status.state}."]
        if result is not None and result.failure is not None:
            failure = result.failure
            lines.append(f"{failure.type}: {failure.message}")
            if failure.trial_id:
                lines.append(f"First failing trial: {failure.trial_id}")
            if failure.traceback:
                lines.append(failure.traceback.rstrip())
        elif status.message:
            lines.append(f"Ray says: {status.message}")
        lines.append(f"Files of this attempt: {job.attempt_prefix}")
        return NodeFailedError("\n".join(lines))


def as_job(value: Mapping[str, Any]) -> JobRef:
    """Return the JobRef that an earlier task of the node pushed.

    :raises SpecError: it is something else.
    """
    try:
        return JobRef.model_validate(value)
    except ValueError as error:
        raise SpecError(f"job: expected what RayFanOutOperator returns, got {value!r:.200}") from error
