"""One job from start to end, as the execution task sees it: attach or start, follow log and progress, stop, explain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_raynode.exceptions import CatalogError, NodeFailedError, SpecError
from airflow_provider_raynode.hooks.catalog import catalog_for
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.launchers import JobState, JobStatus, Launcher
from airflow_provider_raynode.operators import _progress
from airflow_provider_raynode.operators._attempt import (
    as_attempt,
    job_of,
    last_attempt,
    launcher_for_spec,
    read_spec,
    write_attempt,
)
from airflow_provider_raynode.spec import JobRef, NodeProgress, NodeResult, unseal

# Poll soon after the start, so that a short job ends without a wait, then settle at the configured interval.
_FIRST_POLL_S = 0.1
# A child process and a local file cost nothing to look at.
_LOCAL_POLL_S = 0.5


class JobRun:
    """Runs the job that fan-out staged, or on a retry the node's next attempt.

    :param job: what fan-out passed on.
    :param work: the word for the work in messages.
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param log: the task's logger.
    """

    def __init__(self, job: JobRef, *, work: str, poll_interval_s: float, log: Any) -> None:
        self.job = job
        self.log = log
        self._work = work
        self._poll_interval_s = min(poll_interval_s, _LOCAL_POLL_S) if job.launcher == "local" else poll_interval_s
        self._catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        self._spec = read_spec(job, self._catalog)
        self._launcher: Launcher | None = None

    def choose_attempt(self, *, retry: bool) -> JobRef:
        """Choose the attempt to run: the newest, or on a retry a further one when that has ended; return its job."""
        number = last_attempt(self._catalog)
        if not retry or number == 0:
            return self.job
        hook = _hook(self.job)
        self._spec = as_attempt(self._spec, number)
        self.job = job_of(self._spec, hook)
        ended = self._result() is not None
        if not ended and self.job.launcher == "jobs_api":
            known = hook.get_job(self.job.submission_id)
            ended = known is not None and known.state.ended
        if ended:
            self.log.info("Attempt %d has ended; this is attempt %d", number, number + 1)
            self.job = write_attempt(self._spec, number + 1, self._catalog, hook)
            self._spec = as_attempt(self._spec, number + 1)
        return self.job

    def run(self) -> None:
        """Start the job or attach to it, and wait for its success.

        :raises NodeFailedError: the job failed; the message is the job's own, with the failing trial's traceback.
        """
        job = self.job
        with launcher_for_spec(job, self._spec) as launcher:
            self._launcher = launcher
            try:
                started = launcher.ensure(job)
                self.log.info("%s job %s (%s)", "Started" if started else "Attached to", job.submission_id, job.address)
                status = self._follow(launcher)
            except BaseException as error:
                # A driver that is this task's child never outlives it; a cluster's job does, so that the next try can
                # attach to it, unless the task's own time is over.
                if job.launcher == "local" or isinstance(error, AirflowTaskTimeout):
                    launcher.stop(job)
                raise
            finally:
                self._launcher = None
        if status.state is not JobState.SUCCEEDED:
            raise self._failure(status)

    def stop(self, timeout_s: float) -> None:
        """Stop the job that `run` waits for; called from a signal handler while `run` goes on."""
        if self._launcher is not None:
            self.log.info("Stopping %s", self.job.submission_id)
            status = self._launcher.stop(self.job, timeout_s=timeout_s)
            self.log.info("%s is %s", self.job.submission_id, status.state)

    def _follow(self, launcher: Launcher) -> JobStatus:
        offset = 0
        pace = _progress.Pace()
        interval = _FIRST_POLL_S
        seen: NodeProgress | None = None
        while True:
            status = launcher.status(self.job)
            chunk = launcher.read_log(self.job, offset, final=status.state.ended)
            offset = chunk.offset
            for line in _lines(chunk.text):
                self.log.info("%s", line)
            progress = self._progress()
            if progress is not None and progress != seen:
                seen = progress
                _progress.notify(self.job, progress)
                if pace.due(progress):
                    for line in _progress.table(progress):
                        self.log.info("%s", line)
            if status.state.ended:
                return status
            time.sleep(interval)
            interval = min(interval * 1.3, self._poll_interval_s)

    def _progress(self) -> NodeProgress | None:
        try:
            return NodeProgress.from_bytes(self._catalog.read_bytes(f"{self.job.attempt_prefix}/progress.json"))
        except (CatalogError, SpecError):
            # Not written yet; a look at the progress is never worth the task.
            return None

    def _result(self) -> NodeResult | None:
        uri = f"{self.job.attempt_prefix}/result.json"
        try:
            return unseal(self._catalog.read_bytes(uri), source=uri)
        except (CatalogError, SpecError):
            return None

    def _failure(self, status: JobStatus) -> NodeFailedError:
        result = self._result()
        lines = [f"The {self._work} {self.job.submission_id} ended as {status.state}."]
        if result is not None and result.failure is not None:
            failure = result.failure
            lines.append(f"{failure.type}: {failure.message}")
            if failure.trial_id:
                lines.append(f"First failing trial: {failure.trial_id}")
            if failure.traceback:
                lines.append(failure.traceback.rstrip())
        elif status.message:
            lines.append(f"Ray says: {status.message}")
        lines.append(f"Files of this attempt: {self.job.attempt_prefix}")
        return NodeFailedError("\n".join(lines))


def _lines(text: str) -> list[str]:
    """Return the lines of a chunk; only a newline ends one, so that what a progress bar or a page break does stays."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _hook(job: JobRef) -> RayHook:
    return RayHook(**({"ray_conn_id": job.ray_conn_id} if job.ray_conn_id else {}), address=job.address)


def as_job(value: Mapping[str, Any]) -> JobRef:
    """Return the JobRef that an earlier task of the node pushed.

    :raises SpecError: it is something else.
    """
    try:
        return JobRef.model_validate(value)
    except ValueError as error:
        raise SpecError(f"job: expected what RayFanOutOperator returns, got {value!r:.200}") from error
