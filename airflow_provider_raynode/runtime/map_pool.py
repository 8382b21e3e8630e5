"""The workers of a map, and the loop that gives them batches until every item has a result."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray

from airflow_provider_raynode.config.ray_map import RayMap
from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.exceptions import CatalogError, NodeFailedError, RayNodeError, SpecError
from airflow_provider_raynode.runtime.failures import told_by_ray
from airflow_provider_raynode.runtime.map_items import Items
from airflow_provider_raynode.runtime.map_parts import NOTHING, Part, errors_of, write_part
from airflow_provider_raynode.runtime.map_plan import LIMIT_S, Batch, Plan, missing_ranges
from airflow_provider_raynode.runtime.map_state import MapState
from airflow_provider_raynode.runtime.map_worker import TOLD, Done, MapSetup, MapWorker, lost_uri, timeout_failure
from airflow_provider_raynode.runtime.progress import eta
from airflow_provider_raynode.runtime.reserved import actor_options, places
from airflow_provider_raynode.runtime.worker_log import WorkerLog
from airflow_provider_raynode.spec import MapEnd, MapEnding, NodeFailure

log = logging.getLogger("airflow_provider_raynode.driver")

# Between two looks at what the cluster has, at workers that hang, and at all.
_GROWTH_S, _LOOK_S = 5.0, 1.0
# Workers that may wait for resources beside those that run, on a cluster that grows.
_WAITING = 4
# How long the other workers are given for the items in hand once one has failed.
_GRACE_S = 5.0
# How much longer than it may a batch takes before its worker is taken for one that cannot even end itself.
_SLACK_S = 20.0
# Workers that may die one after the other before one has run anything.
_BAD_STARTS = 5
# Failed items that have a line of their own in the log.
_TOLD = TOLD - 1
_LONGEST = 300
# How Ray tells that a worker has ended.
_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
)


class _Worker:
    """One actor: starting, idle, or with a batch."""

    def __init__(self, actor: Any, number: int) -> None:
        self.actor = actor
        self.number = number
        self.is_ready = False
        self.batch: Batch | None = None
        self.call = ""
        self.since = time.monotonic()


class MapRun:
    """One attempt's run of a map.

    :param done: the parts of the results that earlier attempts have left.
    :param state: where further ones go.
    :param workers: the log of the workers' lines.
    :param fixed: whether the cluster cannot grow (the embedded Ray).
    """

    def __init__(
        self,
        section: RayMap,
        setup: MapSetup,
        resources: Resources,
        items: Items,
        done: list[Part],
        state: MapState,
        workers: WorkerLog,
        *,
        fixed: bool = False,
    ) -> None:
        self._section = section
        self._setup = setup
        self._resources = resources
        self._items = items
        self._state = state
        self._log = workers
        self._fixed = fixed
        self._attempt = setup.catalog()
        self.parts = list(done)
        self.begun = threading.Event()
        self._restored = sum(part.stop - part.first for part in done)
        self._ended = self._restored
        self._failed = sum(part.failed for part in done)
        self._running = 0
        self._started = time.monotonic()
        self._plan = Plan(missing_ranges([part.range for part in done], items.total), max_retries=section.max_retries)
        self._pool: list[_Worker] = []
        self._pending: dict[Any, _Worker] = {}
        self._calls = itertools.count(1)
        self._numbers = itertools.count(1)
        self._bad_starts = 0
        self._places, self._looked = 0, -math.inf
        self._inputs: Any = None
        self._told = 0

    # -- what others ask -----------------------------------------------------------------------------------------------

    def end(self, ending: MapEnding, reason: str) -> MapEnd:
        """Return the account of the map at this moment."""
        return MapEnd(
            items=self._items.total,
            succeeded=self._ended - self._failed,
            failed=self._failed,
            restored=self._restored,
            ending=ending,
            reason=reason,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, as fields of NodeProgress."""
        ended, total = self._ended, self._items.total
        return {
            "work": "map",
            "phase": "running",
            "total": total,
            "running": self._running,
            "pending": max(total - ended - self._running, 0),
            "terminated": ended - self._failed,
            "errored": self._failed,
            "eta_s": eta(time.monotonic() - self._started, ended - self._restored, total - self._restored),
        }

    def first_failure(self, index: int) -> str:
        """Return the error of a failed item, in one line."""
        for part in self.parts:
            if part.first <= index < part.stop:
                for entry in errors_of(self._state.parts, part):
                    if entry["index"] == index:
                        return f"item {index}: {entry['type']}: {entry['message']}"
        return f"item {index}"

    # -- the loop ------------------------------------------------------------------------------------------------------

    def work(self, inputs: Mapping[str, Any]) -> NodeFailure | None:
        """Run every item that has no result; return why the map ended before that.

        :param inputs: the arguments that are the same for all; they go into Ray's object store once.
        """
        if not self._plan.left:
            self.begun.set()
            return None
        self._inputs = ray.put(dict(inputs))
        try:
            return self._loop()
        finally:
            for worker in list(self._pool):
                self._remove(worker)

    def _loop(self) -> NodeFailure | None:
        while self._plan.left or self._batches():
            self._grow()
            for worker in self._pool:
                if worker.is_ready and worker.batch is None and not self._give(worker):
                    break
            failure = self._take()
            if failure is not None:
                self._let_others_end()
                return failure
        return None

    def _batches(self) -> list[_Worker]:
        return [worker for worker in self._pool if worker.batch is not None]

    def _grow(self) -> None:
        """Start workers, as many as there is room and work for."""
        now = time.monotonic()
        if now - self._looked > _GROWTH_S:
            self._looked, self._places = now, places(self._resources)
        ready = sum(worker.is_ready for worker in self._pool)
        most = self._section.max_concurrent
        # What is asked for by number may make a cluster grow; else what it has is used.
        room = max(self._places, 1)
        wanted = room if most is None else min(most, room if self._fixed else max(room, ready + _WAITING))
        wanted = min(wanted, self._plan.left + len(self._batches()))
        while len(self._pool) < wanted:
            self._start()

    def _start(self) -> None:
        actor_class: Any = ray.remote(MapWorker)
        actor = actor_class.options(**actor_options(self._resources)).remote(self._setup, self._inputs)
        worker = _Worker(actor, next(self._numbers))
        self._pool.append(worker)
        self._pending[actor.ready.remote()] = worker

    def _give(self, worker: _Worker) -> bool:
        """Give a worker its next batch; return whether there was one."""
        batch = self._plan.next(max(len(self._pool), 1))
        if batch is None:
            return False
        if batch.chunk is None:
            chunk, stop, size = self._items.chunk(batch.first, batch.stop)
            if stop < batch.stop:
                batch = self._plan.cut(batch, stop)
            batch = Batch(batch.first, batch.stop, chunk=(ray.put(chunk), size / len(batch)))
        worker.batch, worker.since = batch, time.monotonic()
        worker.call = f"{self._setup.driver}-{next(self._calls)}"
        self._running += len(batch)
        reference = worker.actor.run.remote(batch.chunk[0], batch.first, batch.stop, worker.call)
        self._pending[reference] = worker
        return True

    def _take(self) -> NodeFailure | None:
        """Wait for the next answers, and take them; return the failure that ends the map."""
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=_LOOK_S) if self._pending else ([], [])
        if ready:
            # Those that came together.
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        failure: NodeFailure | None = None
        for reference in ready:
            worker = self._pending.pop(reference)
            try:
                answer = ray.get(reference)
            except _DEATHS as error:
                failure = self._died(worker, f"{type(error).__name__}: {error}") or failure
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, RayNodeError) else error) from None
            else:
                failure = self._answered(worker, answer) or failure
        return self._end_hanging() or failure

    def _answered(self, worker: _Worker, answer: Any) -> NodeFailure | None:
        if worker.batch is None:
            worker.is_ready = True
            if isinstance(answer, NodeFailure):
                return answer
            self.begun.set()
            return None
        self._bad_starts = 0
        batch, done = worker.batch, answer
        assert isinstance(done, Done)
        self._release(worker)
        self._keep(done.parts)
        self._tell(done.failures)
        ran = done.stop - batch.first
        self._plan.done(ran, done.seconds, int(max(done.size, batch.chunk[1] * ran)))
        if done.failure is not None:
            self._failed += 1
            self._ended += 1
            self._tell([done.failure])
            return _failed_item(done.failure)
        self._plan.give_back(batch, done.stop)
        return None

    def _release(self, worker: _Worker) -> Batch:
        assert worker.batch is not None
        batch, worker.batch = worker.batch, None
        self._running -= len(batch)
        return batch

    def _keep(self, parts: tuple[Part, ...] | list[Part]) -> None:
        for part in parts:
            self.parts.append(part)
            self._ended += part.stop - part.first
            self._failed += part.failed

    # -- workers that end ----------------------------------------------------------------------------------------------

    def _died(self, worker: _Worker, said: str, failure: NodeFailure | None = None) -> NodeFailure | None:
        """Take the end of a worker; return the failure that ends the map.

        :param said: what Ray says.
        :param failure: why it was ended, where this driver did so.
        """
        self._remove(worker)
        if worker.batch is None:
            self._bad_starts += 1
            if self._bad_starts < _BAD_STARTS:
                return None
            told = told_by_ray(said, None, None, what="a worker")
            raise NodeFailedError(
                f"{_BAD_STARTS} workers ended one after the other before they ran an item: {told.message}"
            )
        batch = self._release(worker)
        word = failure or self._word_of(worker)
        # It may have written results while it ran.
        kept = self._state.found(batch.first, batch.stop)
        self._keep(kept)
        blamed = word.item if word is not None else None
        for first, stop in missing_ranges([part.range for part in kept], batch.stop):
            rest = Batch(max(first, batch.first), stop, batch.tries, batch.chunk)
            if not len(rest):
                continue
            if blamed is not None and rest.first <= blamed < rest.stop:
                assert word is not None
                self._plan.give_back(Batch(rest.first, blamed, chunk=batch.chunk), rest.first)
                self._plan.give_back(rest, blamed + 1)
                ended = self._fail(word)
            elif self._plan.lost(rest):
                ended = self._fail(self._death(rest.first, said))
            else:
                ended = None
            if ended is not None:
                return ended
        return None

    def _word_of(self, worker: _Worker) -> NodeFailure | None:
        """Return what a worker has left of why it ended."""
        uri = lost_uri(self._attempt, worker.call)
        try:
            return NodeFailure.from_bytes(self._attempt.read_bytes(uri)) if self._attempt.exists(uri) else None
        except (CatalogError, SpecError):
            return None

    def _death(self, index: int, said: str) -> NodeFailure:
        told = told_by_ray(said, None, None, what="its worker")
        times = self._section.max_retries
        tried = f" It was tried {times + 1} times." if times else ""
        return told.model_copy(update={"message": f"{told.message}.{tried}", "item": index})

    def _fail(self, failure: NodeFailure) -> NodeFailure | None:
        """Take an item that ended its worker; return the failure that ends the map."""
        self._tell([failure])
        if self._section.on_error == "fail":
            self._failed += 1
            self._ended += 1
            return _failed_item(failure)
        assert failure.item is not None
        self._keep([write_part(self._state.parts, failure.item, [NOTHING], [failure])])
        return None

    def _remove(self, worker: _Worker) -> None:
        if worker in self._pool:
            self._pool.remove(worker)
        for reference in [each for each, whose in self._pending.items() if whose is worker]:
            del self._pending[reference]
        with suppress(Exception):
            ray.kill(worker.actor, no_restart=True)

    def _end_hanging(self) -> NodeFailure | None:
        """End workers whose item takes so long, and holds Python's lock, that their own watch cannot."""
        limit = self._section.item_timeout_s
        if limit is None:
            return None
        now = time.monotonic()
        for worker in self._batches():
            batch = worker.batch
            assert batch is not None
            if now - worker.since > LIMIT_S + limit + _SLACK_S:
                alone = timeout_failure(limit, batch.first) if len(batch) == 1 else None
                ended = self._died(worker, "ActorDied: it hung", alone)
                if ended is not None:
                    return ended
        return None

    def _let_others_end(self) -> None:
        """Take what the other workers have in hand, for a moment: results that are there are not lost."""
        end = time.monotonic() + _GRACE_S
        while (busy := [each for each, worker in self._pending.items() if worker.batch]) and time.monotonic() < end:
            ready, _ = ray.wait(busy, num_returns=1, timeout=max(end - time.monotonic(), 0))
            for reference in ready:
                worker = self._pending.pop(reference)
                with suppress(Exception):
                    done = ray.get(reference)
                    self._release(worker)
                    self._keep(done.parts)

    # -- the log -------------------------------------------------------------------------------------------------------

    def _tell(self, failures: tuple[NodeFailure, ...] | list[NodeFailure]) -> None:
        """Tell of failed items, each after its own last lines; of many only the first."""
        for failure in failures:
            self._told += 1
            if self._told > _TOLD + 1:
                return
            if self._told == _TOLD + 1:
                log.info("raynode: more than %d items failed: the output 'errors' has all of them", _TOLD)
                return
            text = " ".join(f"{failure.type}: {failure.message}".split())
            short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
            self._log.after(f"item {failure.item}", f"[item {failure.item}] failed: {short}")


def _failed_item(failure: NodeFailure) -> NodeFailure:
    """Return the failure of a map that an item ends."""
    message = failure.message if failure.message.startswith("item ") else f"item {failure.item}: {failure.message}"
    remedy = "a retry runs it again, and what is missing; ray_map.on_error: keep goes on without it"
    return failure.model_copy(update={"message": f"{message} ({remedy})"})
