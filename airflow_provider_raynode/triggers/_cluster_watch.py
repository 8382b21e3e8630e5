"""One look at a cluster for all the triggers that wait for its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref

from airflow_provider_raynode.launchers._base import JobStatus
from airflow_provider_raynode.triggers._client import AsyncRayClient

# With more waiting jobs than this, one list of all jobs is cheaper than a request for each.
_SINGLY = 3


_Watches = dict[tuple[str | None, str], "ClusterWatch"]
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watches] = weakref.WeakKeyDictionary()


class ClusterWatch:
    """Polls the jobs of one cluster, and gives each waiting trigger its own job's status.

    Triggers of one event loop and one cluster share a watch, so that a thousand waiting nodes are one request per
    round.
    """

    def __init__(self, client: AsyncRayClient) -> None:
        self.client = client
        self._users = 0
        self._waiting: dict[str, list[asyncio.Future[JobStatus | None]]] = {}
        self._interval_s = float("inf")
        self._looked_at = float("-inf")
        self._round: asyncio.Task[None] | None = None

    @classmethod
    def join(cls, ray_conn_id: str | None, address: str) -> ClusterWatch:
        """Return the watch of a cluster for the running event loop; each `join` is ended by a `leave`."""
        watches = _shared.setdefault(asyncio.get_running_loop(), {})
        watch = watches.get((ray_conn_id, address))
        if watch is None:
            watch = watches[ray_conn_id, address] = cls(AsyncRayClient(ray_conn_id, address))
        watch._users += 1
        return watch

    async def leave(self) -> None:
        """Let go of the watch; the last one closes its connections."""
        self._users -= 1
        if self._users > 0:
            return
        watches = _shared.get(asyncio.get_running_loop(), {})
        watches.pop((self.client.ray_conn_id, self.client.address), None)
        if self._round is not None:
            self._round.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._round
        await self.client.close()

    async def look(self, submission_id: str, interval_s: float) -> JobStatus | None:
        """Return the status of a job at the next look, None where the cluster does not know it.

        :param interval_s: longest time between two looks that this waiter accepts.
        :raises ClusterError: the look failed; every waiter gets the error.
        """
        future: asyncio.Future[JobStatus | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(submission_id, []).append(future)
        self._interval_s = min(self._interval_s, interval_s)
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._looks())
        return await future

    async def _looks(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(0.0, self._looked_at + self._interval_s - time.monotonic()))
            waiting, self._waiting = self._waiting, {}
            self._interval_s = float("inf")
            self._looked_at = time.monotonic()
            await self._one_look(waiting)
            # The waiters come back for the next look before the loop decides whether there is one.
            await asyncio.sleep(0)

    async def _one_look(self, waiting: dict[str, list[asyncio.Future[JobStatus | None]]]) -> None:
        answers: dict[str, JobStatus] = {}
        try:
            if len(waiting) > _SINGLY:
                answers = await self.client.list_jobs()
        except Exception as error:
            _fail(waiting, error)
            return
        for number, (submission_id, futures) in enumerate(waiting.items()):
            if submission_id in answers:
                _give(futures, answers[submission_id])
            else:
                # Not in the list: it is gone, or the list has a limit.
                await self._single(submission_id, futures)
            if number % 100 == 99:
                await asyncio.sleep(0)

    async def _single(self, submission_id: str, futures: list[asyncio.Future[JobStatus | None]]) -> None:
        try:
            _give(futures, await self.client.get_job(submission_id))
        except Exception as error:
            _fail({submission_id: futures}, error)


def _give(futures: list[asyncio.Future[JobStatus | None]], status: JobStatus | None) -> None:
    for future in futures:
        if not future.done():
            future.set_result(status)


def _fail(waiting: dict[str, list[asyncio.Future[JobStatus | None]]], error: Exception) -> None:
    for futures in waiting.values():
        for future in futures:
            if not future.done():
                future.set_exception(error)
