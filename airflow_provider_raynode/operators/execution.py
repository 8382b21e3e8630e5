"""The execution task that search and training share: a shell over `JobRun`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_raynode.links.ray_job import RayJobLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.operators._job_run import JobRun

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
        self._run: JobRun | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the job's success; see the class.

        :raises NodeFailedError: the job failed; the message is the job's own, with the failing trial's traceback.
        """
        # Imported here and not at the top: a DAG file is parsed all the time.
        from airflow_provider_raynode.operators._job_run import JobRun, as_job

        run = JobRun(as_job(self.job), work=self.work, poll_interval_s=self.poll_interval_s, log=self.log)
        job = run.choose_attempt(retry=context["ti"].try_number > 1)
        RayJobLink().push(context, job)
        self._run = run
        try:
            run.run()
        finally:
            self._run = None
        return job.model_dump(mode="json")

    def on_kill(self) -> None:
        """Stop the job: the task was stopped, so its work is."""
        if self._run is not None:
            self._run.stop(_STOP_ON_KILL_S)
