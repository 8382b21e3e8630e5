"""RayJobTrigger: waits for a Ray job in Airflow's triggerer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_raynode.exceptions import ClusterError, ConfigError, ConnectionReadError, RayNodeError
from airflow_provider_raynode.hooks._http import ClusterRefusedError
from airflow_provider_raynode.launchers._base import JobState, JobStatus
from airflow_provider_raynode.spec import STOP_FILE, JobRef, NodeProgress

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.triggers._cluster_watch import ClusterWatch
    from airflow_provider_raynode.triggers._log_follower import LogFollower

_MAX_DELAY_S = 15.0
# Airflow gives `on_kill` 30 s, and the job has to be gone within 15.
_STOP_S = 12.0
_PROGRESS_EVERY_S = 3.0
# How long, in seconds, Airflow may fail to tell a connection that was never read.
_UNREAD_S = 15.0

OnKill = Literal["stop", "detach"]


class RayJobTrigger(BaseTrigger):
    """Wait until a Ray job has ended; its log and its progress go to the task's log meanwhile.

    The cluster may be silent for `grace_s` seconds (a restart, a network fault) before the wait is given up, and as
    long refuse a token that it took before, which may be renewed. A connection that is wrong or missing, and a token
    that the cluster has never taken, end the wait at once. It ends with one event:
    `{"job": JobRef, "state": ..., "message": ..., "offset": bytes of the log that were shown}`, where state is that
    of the job, `UNKNOWN` for a job that the cluster has forgotten, `UNREACHABLE` for a cluster that stayed silent or
    lets nobody in, or `STARTUP_TIMEOUT` for a job that stayed PENDING.

    When the task is cleared or marked, the job is stopped, unless `on_kill` is `detach`; a restart or hand-over of the
    triggerer touches nothing.

    :param job: the JobRef, as JSON.
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param grace_s: how long in seconds the cluster may be silent.
    :param startup_timeout_s: how long in seconds the job may stay PENDING; None for no limit.
    :param on_kill: `stop` or `detach`.
    :param offset: bytes of the job's log that the task has shown already.
    """

    def __init__(
        self,
        job: dict[str, Any],
        poll_interval_s: float = 2.0,
        grace_s: float = 300.0,
        startup_timeout_s: float | None = None,
        on_kill: OnKill = "stop",
        offset: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job = job
        self.poll_interval_s = poll_interval_s
        self.grace_s = grace_s
        self.startup_timeout_s = startup_timeout_s
        self.kill_policy = on_kill
        self.offset = offset
        self._ref = JobRef.model_validate(job)
        self._shown: NodeProgress | None = None
        self._saved = offset

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: no secrets, they are stored."""
        arguments = {
            "job": self.job,
            "poll_interval_s": self.poll_interval_s,
            "grace_s": self.grace_s,
            "startup_timeout_s": self.startup_timeout_s,
            "on_kill": self.kill_policy,
            "offset": self.offset,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; see the class."""
        from airflow_provider_raynode.operators._in_process import forget, runs_in_process, signals_end_wait

        if not runs_in_process():
            yield TriggerEvent(await self._event())
            return
        forget(self._ref.submission_id)
        async with signals_end_wait(self.on_kill):
            event = await self._event()
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Stop the job, and confirm that it has stopped: a user cleared or marked the task."""
        from airflow_provider_raynode.triggers._client import AsyncRayClient

        if self.kill_policy == "detach":
            self.log.info("The job %s is left running (on_kill='detach')", self._ref.submission_id)
            return
        # First the mark: a task that is cleared starts again at once, and must not attach to what is ending.
        with contextlib.suppress(RayNodeError):
            await asyncio.to_thread(self._write, STOP_FILE, b"{}")
        async with AsyncRayClient(self._ref.ray_conn_id, self._ref.address) as client:
            status = await client.stop_job(self._ref.submission_id, _STOP_S)
        self.log.info("The job %s is %s", self._ref.submission_id, status.state if status else "unknown to the cluster")
        if status is not None:
            with contextlib.suppress(RayNodeError):
                await asyncio.to_thread(self._record, status)

    async def _event(self) -> dict[str, Any]:
        from airflow_provider_raynode.triggers._cluster_watch import ClusterWatch
        from airflow_provider_raynode.triggers._log_follower import LogFollower

        offset = self.offset
        with contextlib.suppress(RayNodeError):
            offset = await asyncio.to_thread(self._saved_offset)
        watch = ClusterWatch.join(self._ref.ray_conn_id, self._ref.address)
        follower = LogFollower(watch.client, self._ref.submission_id, offset, self._line)
        beside = asyncio.create_task(self._beside(follower))
        try:
            state, message = await self._wait(watch, follower)
        finally:
            beside.cancel()
            await follower.stop()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await beside
            with contextlib.suppress(RayNodeError):
                await asyncio.shield(asyncio.to_thread(self._save_offset, follower.offset))
            await watch.leave()
        return {"job": self.job, "state": state, "message": message, "offset": follower.offset}

    async def _wait(self, watch: ClusterWatch, follower: LogFollower) -> tuple[str, str]:
        begin = time.monotonic()
        silent_since: float | None = None
        delay = self.poll_interval_s
        taken = False
        while True:
            try:
                status = await watch.look(self._ref.submission_id, delay)
            except Exception as error:
                now = time.monotonic()
                patience = self._patience(error, taken)
                if silent_since is None:
                    silent_since = now
                    if patience > 0:
                        self.log.warning("%s; trying again for %g s", error, patience)
                if now - silent_since >= patience:
                    return "UNREACHABLE", f"{error} (tried for {patience:g} s)" if patience > 0 else str(error)
                delay = min(delay * 1.5, _MAX_DELAY_S)
                continue
            taken = True
            if silent_since is not None:
                self.log.info("%s answers again", self._ref.address)
                silent_since, delay = None, self.poll_interval_s
            if status is None:
                return "UNKNOWN", ""
            if status.state.ended:
                return status.state, status.message
            if status.state is JobState.RUNNING:
                follower.start()
            elif self.startup_timeout_s is not None and time.monotonic() - begin > self.startup_timeout_s:
                return "STARTUP_TIMEOUT", await self._stop_pending(watch, status)

    def _patience(self, error: Exception, taken: bool) -> float:
        """Return for how many seconds an error is worth further tries.

        :param taken: whether the cluster has let this wait in before.
        """
        if isinstance(error, ConfigError):
            return 0.0
        if isinstance(error, ClusterRefusedError) and error.status in (401, 403) and not taken:
            return 0.0
        return min(self.grace_s, _UNREAD_S) if isinstance(error, ConnectionReadError) else self.grace_s

    async def _stop_pending(self, watch: ClusterWatch, status: JobStatus) -> str:
        with contextlib.suppress(ClusterError):
            await watch.client.stop_job(self._ref.submission_id, _STOP_S)
        return status.message

    async def _beside(self, follower: LogFollower) -> None:
        """Show the progress, and keep how far the log was shown, for a triggerer that takes over."""
        from airflow_provider_raynode.operators._progress import Pace, lines, notify

        pace = Pace()
        while True:
            await asyncio.sleep(min(_PROGRESS_EVERY_S, self.poll_interval_s))
            try:
                progress = await asyncio.to_thread(self._look, follower.offset)
            except RayNodeError:
                continue
            if progress is None or progress == self._shown:
                continue
            self._shown = progress
            notify(self._ref, progress)
            if pace.due(progress):
                for line in lines(progress):
                    self._line(line)

    def _line(self, line: str) -> None:
        self.log.info("%s", line)

    # What follows touches the catalog, and runs in a thread.

    def _look(self, offset: int) -> NodeProgress | None:
        if offset != self._saved:
            self._save_offset(offset)
        uri = f"{self._ref.attempt_prefix}/progress.json"
        catalog = self._catalog()
        return NodeProgress.from_bytes(catalog.read_bytes(uri)) if catalog.exists(uri) else None

    def _saved_offset(self) -> int:
        from airflow_provider_raynode.operators._task_log import read_offset

        self._saved = max(self.offset, read_offset(self._ref, self._catalog()))
        return self._saved

    def _save_offset(self, offset: int) -> None:
        from airflow_provider_raynode.operators._task_log import write_offset

        if offset != self._saved:
            write_offset(self._ref, self._catalog(), offset)
            self._saved = offset

    def _write(self, name: str, data: bytes) -> None:
        self._catalog().write_bytes(f"{self._ref.attempt_prefix}/{name}", data)

    def _record(self, status: JobStatus) -> None:
        from airflow_provider_raynode.operators._record import record_end

        record_end(self._ref, status, self._catalog())

    def _catalog(self) -> Catalog:
        from airflow_provider_raynode.hooks.catalog import catalog_for

        return catalog_for(self._ref.catalog_uri).at(self._ref.node_prefix)
