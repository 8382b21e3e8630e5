"""One job from start to end, as the execution task sees it: attach or start, follow log and progress, stop, explain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_raynode.exceptions import CatalogError, ClusterError, NodeFailedError, RayNodeError, SpecError
from airflow_provider_raynode.hooks.catalog import catalog_for
from airflow_provider_raynode.hooks.ray import RayHook, UnknownJobError
from airflow_provider_raynode.launchers import JobState, JobStatus, Launcher
from airflow_provider_raynode.operators import _progress
from airflow_provider_raynode.operators._attempt import (
    is_stopping,
    is_taken,
    job_of,
    last_attempt,
    launcher_for_spec,
    mark,
    next_attempt,
    read_spec,
    result_of,
    spec_of_attempt,
)
from airflow_provider_raynode.operators._delivery import delete_secrets, deliver_secrets
from airflow_provider_raynode.operators._record import LOST, is_recorded, record_earlier, record_end
from airflow_provider_raynode.operators._result import proven_result
from airflow_provider_raynode.operators._secrets import mask_secrets, parse_secrets
from airflow_provider_raynode.operators._task_log import read_offset
from airflow_provider_raynode.spec import (
    ATTACHED_FILE,
    NOT_ATTACHED,
    STOP_FILE,
    TAKEN_FILE,
    JobRef,
    Limits,
    NodeProgress,
    NodeResult,
)

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.config.ray_config import WorkKind

# Poll soon after the start, so that a short job ends without a wait, then settle at the configured interval.
_FIRST_POLL_S = 0.1
# A child process and a local file cost nothing to look at.
_LOCAL_POLL_S = 0.5
# Longest wait in seconds for a job that is stopped; Ray kills it 8 s after it was asked to stop.
_STOP_S = 12.0


class JobRun:
    """Runs the job that fan-out staged, or on a retry the node's next attempt.

    :param job: what fan-out passed on.
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param grace_s: how long in seconds the cluster may be silent.
    :param log: the task's logger.
    """

    def __init__(self, job: JobRef, *, poll_interval_s: float, grace_s: float, log: Any) -> None:
        self.job = job
        self.log = log
        self._poll_interval_s = min(poll_interval_s, _LOCAL_POLL_S) if job.launcher == "local" else poll_interval_s
        self._grace_s = grace_s
        self._catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        self._spec = read_spec(job, self._catalog)
        if self._spec.secrets:
            # What the function prints of them is masked on the workers; this process masks them as well.
            mask_secrets(parse_secrets(self._spec.secrets))
        self._launcher: Launcher | None = None
        self._begin = time.monotonic()

    @property
    def work(self) -> WorkKind:
        """The kind of the node's work."""
        return self._spec.config.work

    @property
    def noun(self) -> str:
        """The word for the work in messages."""
        return self.work

    @property
    def node(self) -> Catalog:
        """The catalog at the node's folder."""
        return self._catalog

    @property
    def limits(self) -> Limits:
        """The time limits of the node."""
        return self._spec.limits

    def hook(self) -> RayHook:
        """Return a hook for the job's cluster, which reads the connection when it is first used."""
        return _hook(self.job)

    def choose_attempt(self, *, retry: bool) -> JobRef:
        """Choose the attempt to run, and return its job.

        At the first try the one that fan-out opened. Later the node's newest: what runs or has succeeded is attached
        to; what failed, was stopped or is lost is followed by an attempt that goes on with its work; what was
        returned before (the task had succeeded, and was cleared) by one that starts anew.
        """
        if self.job.launcher == "rayjob":
            # Whoever starts the RayJob tries it again, under the same attempt.
            return self.job
        number = last_attempt(self._catalog)
        if number == 0 or (not retry and number == self.job.attempt and not self._came_late()):
            return self.job
        hook = _hook(self.job)
        self._spec = spec_of_attempt(self._catalog, number)
        self.job = job_of(self._spec, hook)
        if is_taken(self._spec, self._catalog):
            self.log.info("The result of attempt %d was returned before: attempt %d starts anew", number, number + 1)
            self.job, self._spec = next_attempt(self._spec, self._catalog, hook, resume=False)
        elif (reason := self._over(hook)) is not None:
            self.log.info("Attempt %d %s; this is attempt %d", number, reason, number + 1)
            if not is_recorded(self.job, self._catalog):
                # Whoever should have recorded it was killed.
                state = JobState.STOPPED if is_stopping(self._spec, self._catalog) else JobState.FAILED
                self.record(JobStatus(state, reason.removeprefix("is ")))
            self.job, self._spec = next_attempt(self._spec, self._catalog, hook, resume=True)
        record_earlier(self.job, self._catalog, hook)
        return self.job

    def _came_late(self) -> bool:
        """Whether the job has stopped itself because this task, its watcher, had not come in time."""
        result = result_of(self._spec, self._catalog)
        return result is not None and result.failure is not None and result.failure.type == NOT_ATTACHED

    def _over(self, hook: RayHook) -> str | None:
        """Return how the chosen attempt has ended without a result, None where there is something to wait for."""
        result = result_of(self._spec, self._catalog)
        if result is not None:
            return None if result.state == "SUCCEEDED" else "has failed"
        if self.job.launcher == "local":
            # Its driver was the child of a task that is gone. One that never began is simply started.
            begun = self._catalog.exists(f"{self.job.attempt_prefix}/progress.json")
            return "was cut off" if begun else None
        with launcher_for_spec(self.job, self._spec, grace_s=self._grace_s) as launcher:
            status = launcher.status(self.job)
        if status.message.startswith(LOST):
            begun = self._catalog.exists(f"{self.job.attempt_prefix}/progress.json")
            return f"is {LOST}, the cluster has forgotten it" if begun else None
        if not status.state.ended and is_stopping(self._spec, self._catalog):
            hook.stop_job(self.job.submission_id)
            return "was stopped"
        return f"is {status.state} without a result" if self._over_in(status) else None

    def _over_in(self, status: JobStatus) -> bool:
        """Whether an attempt without a result is over in a state."""
        return status.state.ended

    def start(self) -> JobStatus:
        """Start the job or attach to it, without waiting, and return its state."""
        job = self.job
        with self._open_launcher() as launcher:
            started = launcher.ensure(job)
            self.log.info("%s job %s (%s)", "Started" if started else "Attached to", job.submission_id, job.address)
            self._mark_attached()
            return launcher.status(job)

    def run(self, offset: int = 0) -> JobStatus:
        """Start the job or attach to it, and wait for its end.

        :param offset: bytes of its log that were shown before.
        """
        job = self.job
        with self._open_launcher() as launcher:
            self._launcher = launcher
            try:
                started = launcher.ensure(job)
                self.log.info("%s job %s (%s)", "Started" if started else "Attached to", job.submission_id, job.address)
                self._mark_attached()
                return self._follow(launcher, max(offset, read_offset(job, self._catalog)))
            except BaseException as error:
                # A driver that is this task's child never outlives it; a cluster's job does, so that the next try can
                # attach to it, unless the task's own time is over.
                if job.launcher == "local" or isinstance(error, AirflowTaskTimeout):
                    status = self.stop(_STOP_S)
                    if status is not None and not is_recorded(job, self._catalog):
                        self.record(status)
                raise
            finally:
                self._launcher = None

    def show_log(self, offset: int) -> None:
        """Show what has come of the job's log after `offset`; for a job that has ended."""
        with launcher_for_spec(self.job, self._spec) as launcher:
            try:
                chunk = launcher.read_log(self.job, offset, final=True)
            except ClusterError as error:
                self.log.warning("The end of the job's log cannot be read: %s", error)
                return
        for line in _lines(chunk.text):
            self.log.info("%s", line)

    def conclude(self, status: JobStatus) -> NodeResult | None:
        """Return the proven result of an ended job; None where its state is all that there is to prove.

        :raises NodeFailedError: the job failed; the message is the job's own, with the traceback of what failed.
        :raises SpecError: it says that it succeeded, and its result is missing, truncated or altered.
        :raises CatalogError: something that the result names is gone.
        """
        delete_secrets(self._spec, self._catalog)
        if status.state is not JobState.SUCCEEDED:
            self.record(status)
            raise self._failure(status)
        try:
            result = self._proven()
        except RayNodeError as error:
            self.record(JobStatus(JobState.FAILED, str(error)))
            raise
        mark(self.job, self._catalog, TAKEN_FILE)
        return result

    def _proven(self) -> NodeResult | None:
        return proven_result(self.job, self._catalog)

    def record(self, status: JobStatus) -> None:
        """Write the run record of an attempt that did not succeed; that it cannot be written is only told."""
        try:
            record_end(self.job, status, self._catalog)
        except RayNodeError as error:
            self.log.warning("The run record cannot be written: %s", error)

    def stop(self, timeout_s: float) -> JobStatus | None:
        """Stop the job, in a signal handler while `run` goes on as well, and return its state."""
        self.log.info("Stopping %s", self.job.submission_id)
        with suppress(RayNodeError):
            # First the mark: who comes next must not attach to what is ending.
            mark(self.job, self._catalog, STOP_FILE)
        if self._launcher is not None:
            status = self._launcher.stop(self.job, timeout_s=timeout_s)
        elif self.job.launcher == "local":
            return None
        else:
            with launcher_for_spec(self.job, self._spec) as launcher:
                status = launcher.stop(self.job, timeout_s=timeout_s)
        self.log.info("%s is %s", self.job.submission_id, status.state)
        return status

    def _open_launcher(self) -> Launcher:
        """Return the launcher of the chosen attempt, with the key of fresh secrets for a job that it has to start."""
        return launcher_for_spec(
            self.job, self._spec, lambda: deliver_secrets(self._spec, self._catalog), grace_s=self._grace_s
        )

    def _mark_attached(self) -> None:
        if self.job.launcher == "jobs_api":
            mark(self.job, self._catalog, ATTACHED_FILE)

    def _follow(self, launcher: Launcher, offset: int) -> JobStatus:
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
                    for line in _progress.lines(progress):
                        self.log.info("%s", line)
            if status.state.ended:
                return status
            self._check_startup(status)
            time.sleep(interval)
            interval = min(interval * 1.3, self._poll_interval_s)

    def _progress(self) -> NodeProgress | None:
        try:
            return NodeProgress.from_bytes(self._catalog.read_bytes(f"{self.job.attempt_prefix}/progress.json"))
        except (CatalogError, SpecError):
            # Not written yet; a look at the progress is never worth the task.
            return None

    def _failure(self, status: JobStatus) -> NodeFailedError:
        """Return the error of an ended job: its own words where it left some, else what killed it."""
        result = result_of(self._spec, self._catalog) if status.own_result else None
        on_ray_job = self.job.launcher == "rayjob"
        lines = [f"The {self.noun} {self.job.submission_id} ended as {status.state}."]
        if result is not None and result.failure is not None:
            failure = result.failure
            lines.append(f"{failure.type}: {failure.message}")
            if failure.trial_id:
                lines.append(f"First failing trial: {failure.trial_id}")
            if failure.rank is not None:
                lines.append(f"First failing worker: rank {failure.rank}")
            if failure.item is not None:
                lines.append(f"First failing item: {failure.item}")
            if failure.traceback:
                lines.append(failure.traceback.rstrip())
            if on_ray_job and status.message:
                lines.append(status.message)
        elif on_ray_job:
            lines.append("It left no result.")
            lines.append(status.message)
        else:
            lines.append("It left no result: its driver was ended from outside, not by an error of the function.")
            if status.message:
                lines.append(f"Ray says: {status.message}")
        if (saved := self._saved()) is not None:
            lines.append(saved)
        lines.append(f"Files of this attempt, with its log: {self.job.attempt_prefix}")
        return NodeFailedError("\n".join(lines))

    def _saved(self) -> str | None:
        """Return what a retry would go on from."""
        progress = self._progress()
        if self.work != "search":
            return None if progress is None else self._saved_work(progress)
        finished = 0 if progress is None else progress.terminated + progress.early_stopped
        if progress is None or not finished:
            return None
        total = "" if progress.total is None else f" of {progress.total}"
        return f"A retry goes on from {finished}{total} finished trials."

    def _saved_work(self, progress: NodeProgress) -> str | None:
        if self.work == "map" and progress.terminated:
            total = "" if progress.total is None else f" of {progress.total}"
            return f"A retry goes on from {progress.terminated}{total} finished items."
        training = progress.training
        if training is not None and training.step and self._catalog.exists(self._spec.state_uri):
            steps = training.step
            return (
                f"It had reported {steps} step{'' if steps == 1 else 's'}: a retry goes on from the last whole "
                "checkpoint, where one was reported."
            )
        return None

    def _check_startup(self, status: JobStatus) -> None:
        """Stop a job that stays PENDING for too long; one whose driver runs watches its own start."""
        limit = self._spec.limits.startup_timeout_s
        if status.state is not JobState.PENDING or limit is None or time.monotonic() - self._begin <= limit:
            return
        self.stop(_STOP_S)
        message = startup_message(self.job, limit, status.message)
        self.record(JobStatus(JobState.FAILED, message))
        raise NodeFailedError(message)


def lost(job: JobRef) -> JobStatus:
    """Return the status of a job that its cluster does not know any more."""
    return JobStatus(JobState.FAILED, f"{LOST}: {UnknownJobError(job.submission_id, job.address)}")


def startup_message(job: JobRef, limit_s: float, ray_says: str) -> str:
    """Return the message for a job that never came out of PENDING."""
    return (
        f"The job {job.submission_id} was still PENDING after startup_timeout_s ({limit_s:g} s) and was stopped. "
        f"Ray says: {ray_says or 'nothing'}. Its runtime environment may take long to install, or the head node has no "
        "room for another driver: see the job in Ray's dashboard"
    )


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
