"""The execution task that every kind of work shares: a shell over `JobRun`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferralTimeout

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.links.ray_job import RayJobLink
from airflow_provider_raynode.operators._kinds import GOES_ON, OPERATORS, SECTIONS
from airflow_provider_raynode.operators._place import placed
from airflow_provider_raynode.operators._resolve import check_on_kill

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.config.ray_config import WorkKind
    from airflow_provider_raynode.launchers import JobStatus
    from airflow_provider_raynode.operators._job_run import JobRun
    from airflow_provider_raynode.spec import JobRef, NodeResult

# Airflow kills a task 5 s after its SIGTERM.
_STOP_ON_KILL_S = 4.0
_STOP_S = 12.0
# What the operator does with the job when its task is stopped.
OnKill = Literal["stop", "detach"]
# Key in Airflow's task state store: the job of this task, written down before the job is submitted.
STATE_KEY = "raynode_job"


class RayExecutionOperator(BaseOperator):
    """Run a staged job to its end: attach or start, stream its log and progress, stop it when the task is stopped.

    A job on a cluster is waited for in the triggerer (deferrable), one on the embedded Ray in the task itself. A task
    that is killed and tried again attaches to its job, and a job that failed is followed by one that goes on with its
    work. This class runs every kind of work, its subclasses one kind each.

    :param job: the JobRef that fan-out returned. (templated)
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param deferrable: wait in the triggerer; default: true, see `default_deferrable`.
    :param grace_s: how long in seconds the cluster may be silent before the wait is given up.
    :param on_kill: `stop` ends the job when the task is stopped, cleared or marked; `detach` leaves it running, for a
        later try to attach to.
    :return: the JobRef of the attempt that succeeded, for fan-in.
    """

    template_fields: Sequence[str] = ("job",)
    operator_extra_links = (RayJobLink(),)
    ui_color = "#ffe3b3"
    # The kinds of work that it runs.
    kinds: ClassVar[tuple[WorkKind, ...]] = ("search", "training", "function", "map")

    def __init__(
        self,
        *,
        job: Any,
        poll_interval_s: float = 2.0,
        deferrable: bool | None = None,
        grace_s: float = 300.0,
        on_kill: OnKill = "stop",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        parsed = self.get_dag()
        with placed("task", self.task_id, parsed.dag_id if parsed is not None else None):
            if not _is_number(poll_interval_s) or poll_interval_s <= 0:
                raise ConfigError(f"poll_interval_s: {poll_interval_s!r} is not allowed: a positive number of seconds")
            if not _is_number(grace_s) or grace_s < 0:
                raise ConfigError(f"grace_s: {grace_s!r} is not allowed: a number of seconds, not negative")
            if on_kill not in ("stop", "detach"):
                raise ConfigError(f"on_kill: {on_kill!r} is not allowed: stop or detach")
            # Where fan-out stands in the same DAG and its config is known.
            self._check_kind(getattr(getattr(job, "operator", None), "known_work", None), "the job that it is given")
        self.job = job
        self.poll_interval_s = poll_interval_s
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.grace_s = grace_s
        self.kill_policy = on_kill
        self._run: JobRun | None = None

    def execute(self, context: Context) -> Any:
        """Wait for the job's success; see the class.

        :raises NodeFailedError: the job failed; the message is the job's own, with the failing trial's traceback.
        """
        from airflow_provider_raynode.operators._in_process import signals_end_run

        with signals_end_run(self.on_kill):
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        begin = time.monotonic()
        run = self._open(context)
        job = run.job
        RayJobLink().push(context, job)
        self._write_down(context, job)
        self._run = run
        if not self.deferrable or job.launcher != "jobs_api":
            return self._wait_here(run)
        status = run.start()
        self._run = None
        # Looked at once before: a job that has ended needs no triggerer.
        if status.state.ended:
            return self._conclude(run, status, offset=0)
        self._defer(run, begin)
        raise AssertionError("defer raises")

    def _open(self, context: Context) -> JobRun:
        """Return the run of the attempt that this task runs."""
        from airflow_provider_raynode.operators._in_process import forget

        run = self._job_run(self.job)
        try:
            self._check_kind(run.work, f"the job {run.job.submission_id}")
            check_on_kill(self.kill_policy, run.job.launcher)
        except ConfigError as error:
            raise AirflowFailException(str(error)) from error
        forget(run.job.submission_id)
        run.choose_attempt(retry=context["ti"].try_number > 1)
        return run

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on when the triggerer has seen the job's end; the event carries everything.

        :raises NodeFailedError: see `execute`.
        """
        from airflow_provider_raynode.exceptions import NodeFailedError
        from airflow_provider_raynode.launchers import JobState, JobStatus
        from airflow_provider_raynode.operators._job_run import lost, startup_message

        run = self._job_run(event["job"])
        state, message, offset = event["state"], event["message"], int(event["offset"])
        if state == "STARTUP_TIMEOUT":
            message = startup_message(run.job, run.limits.startup_timeout_s or 0, message)
            run.record(JobStatus(JobState.FAILED, message))
            raise NodeFailedError(message)
        if state == "UNREACHABLE":
            raise NodeFailedError(
                f"{message}. The job {run.job.submission_id} may still run: a retry attaches to it, or "
                f"{GOES_ON[run.work]} where it has ended"
            )
        status = lost(run.job) if state == "UNKNOWN" else JobStatus(JobState(state), message)
        return self._conclude(run, status, offset=offset)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral; when its time was over, stop the job, which Airflow itself would leave running.

        A trigger that failed, by an error in a triggerer, costs nothing: the task waits for its job by itself.
        """
        from airflow_provider_raynode.operators._in_process import signals_end_run

        with signals_end_run(self.on_kill):
            return self._resume(next_method, next_kwargs, context)

    def _resume(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self.log.error("The task's time is over (execution_timeout)")
            run = self._newest(context)
            if (status := run.stop(_STOP_S)) is not None:
                run.record(status)
            raise
        except TaskDeferralError as error:
            self.log.warning("The triggerer has failed (%s): waiting for the job here", error)
            run = self._run = self._newest(context)
            return self._wait_here(run)

    def on_kill(self) -> None:
        """Stop the job: the task was stopped, so its work is, unless `on_kill` is `detach`."""
        run = self._run
        if run is None:
            return
        if self.kill_policy == "detach" and run.job.launcher != "local":
            self.log.info("The job %s is left running (on_kill='detach')", run.job.submission_id)
            return
        if (status := run.stop(_STOP_ON_KILL_S)) is not None:
            run.record(status)

    def _job_run(self, job: Any) -> JobRun:
        # Imported here and not at the top: a DAG file is parsed all the time.
        from airflow_provider_raynode.operators._job_run import JobRun, as_job

        return JobRun(as_job(job), poll_interval_s=self.poll_interval_s, grace_s=self.grace_s, log=self.log)

    def _check_kind(self, work: WorkKind | None, whose: str) -> None:
        """Refuse a job of another kind than this operator's.

        :param work: its kind; None where that is not known yet.
        :raises ConfigError: see above; the message names the operator that runs it.
        """
        if work is not None and work not in self.kinds:
            raise ConfigError(
                f"{type(self).__name__} runs a {' or a '.join(self.kinds)}, and {whose} is a {work} "
                f"({SECTIONS[work]}): use {OPERATORS[work]}"
            )

    def _newest(self, context: Context) -> JobRun:
        """Return the run of the job that this task wrote down."""
        store = context.get("task_state_store")
        written = store.get(STATE_KEY) if store is not None else None
        return self._job_run(written["job"] if isinstance(written, dict) and "job" in written else self.job)

    def _write_down(self, context: Context, job: JobRef) -> None:
        """Keep the job in Airflow's own state, before it is submitted."""
        store = context.get("task_state_store")
        if store is not None:
            store.set(
                STATE_KEY,
                {"submission_id": job.submission_id, "attempt": job.attempt, "job": job.model_dump(mode="json")},
            )

    def _wait_here(self, run: JobRun) -> Any:
        try:
            status = run.run()
        finally:
            self._run = None
        return self._output(run, run.conclude(status))

    def _conclude(self, run: JobRun, status: JobStatus, *, offset: int) -> Any:
        run.show_log(offset)
        return self._output(run, run.conclude(status))

    def _output(self, run: JobRun, result: NodeResult | None) -> Any:
        """Return what the task pushes for an attempt that has succeeded."""
        return run.job.model_dump(mode="json")

    def _defer(self, run: JobRun, begin: float) -> None:
        from airflow_provider_raynode.operators._in_process import remember
        from airflow_provider_raynode.triggers import RayJobTrigger

        if self.kill_policy == "stop":
            hook = run.hook()
            hook.resolve()
            remember(run.job.submission_id, partial(hook.stop_job, run.job.submission_id, _STOP_ON_KILL_S))
        timeout = self.execution_timeout
        if timeout is not None:
            # Airflow's own execution_timeout ends with the deferral: what is left of it goes along.
            timeout = max(timeout - timedelta(seconds=time.monotonic() - begin), timedelta(seconds=1))
        self.defer(
            trigger=RayJobTrigger(
                job=run.job.model_dump(mode="json"),
                poll_interval_s=self.poll_interval_s,
                grace_s=self.grace_s,
                startup_timeout_s=run.limits.startup_timeout_s,
                on_kill=self.kill_policy,
            ),
            method_name="execute_complete",
            timeout=timeout,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_deferrable() -> bool:
    """Return whether to wait in the triggerer: as `AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE` says where that is set.

    Else `[raynode] deferrable`, and else true. The option in airflow.cfg does not count when it is false: Airflow
    writes that into every new file, so it is nobody's choice, and a job of hours that holds a worker is not what an
    author means.
    """
    if "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ:
        return bool(conf.getboolean("operators", "default_deferrable"))
    return bool(conf.getboolean("raynode", "deferrable", fallback=True))
