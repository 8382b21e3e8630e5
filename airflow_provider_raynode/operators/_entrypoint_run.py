"""The run of a job that is somebody else's command: it leaves no result, its state on the cluster is the proof."""

from __future__ import annotations

from airflow_provider_raynode.exceptions import NodeFailedError
from airflow_provider_raynode.launchers import JobState, JobStatus
from airflow_provider_raynode.operators._attempt import is_stopping
from airflow_provider_raynode.operators._job_run import JobRun
from airflow_provider_raynode.operators._record import LOST
from airflow_provider_raynode.spec import NodeResult
from airflow_provider_raynode.texts import cut

# Of Ray's message, which has the end of the job's log.
_LAST_LINES = 30
_LONGEST = 8_000


class EntrypointRun(JobRun):
    """Runs the command that a task staged.

    :ivar message: the job's own, once it has ended.
    """

    message: str = ""

    @property
    def _is_bare(self) -> bool:
        """Whether Ray starts the command, without our driver."""
        command = self._spec.entrypoint
        return command is not None and not command.by_driver and self.job.launcher == "jobs_api"

    @property
    def noun(self) -> str:
        """The word for the work in messages."""
        return "job"

    def conclude(self, status: JobStatus) -> NodeResult | None:
        """Return the result of an ended job, None where its state is the proof; `message` is what Ray says of it."""
        self.message = status.message
        return super().conclude(status)

    def _over_in(self, status: JobStatus) -> bool:
        if self._is_bare and status.state is JobState.SUCCEEDED:
            return False
        return super()._over_in(status)

    def _proven(self) -> NodeResult | None:
        return None if self._is_bare else super()._proven()

    def _failure(self, status: JobStatus) -> NodeFailedError:
        if not self._is_bare:
            return super()._failure(status)
        lines = [f"The job {self.job.submission_id} at {self.job.address} ended as {status.state}."]
        if status.message.startswith(LOST):
            lines = [f"The job is {status.message}. A retry submits it anew."]
        elif status.state is JobState.STOPPED and not is_stopping(self._spec, self._catalog):
            lines.append("It was stopped on the cluster, and not by Airflow. A retry submits it anew.")
        if status.message and not status.message.startswith(LOST):
            lines.append(f"Ray says: {_end_of(status.message)}")
        return NodeFailedError("\n".join(lines))


def _end_of(message: str) -> str:
    """Return Ray's message with no more than the last lines of the log that follows its first line."""
    first, *rest = message.rstrip().split("\n")
    if len(rest) > _LAST_LINES:
        rest = [f"[{len(rest) - _LAST_LINES} lines before are in the task's log]", *rest[-_LAST_LINES:]]
    return cut("\n".join([first, *rest]), _LONGEST)
