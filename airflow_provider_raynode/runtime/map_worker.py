"""A worker of a map: an actor that calls the function with the items of a batch, one after the other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow_provider_raynode.catalog import Catalog, set_active
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.runtime.call import CallSetup, secrets_of
from airflow_provider_raynode.runtime.failures import describe, exits_told
from airflow_provider_raynode.runtime.map_items import Chunk, loaded
from airflow_provider_raynode.runtime.map_parts import NOTHING, Part, Piece, piece_of, write_part
from airflow_provider_raynode.runtime.map_plan import LARGEST, LIMIT_S
from airflow_provider_raynode.runtime.session import Session, set_current
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.spec import NodeFailure

# Taken before a call may replace it: see `exits_told`.
_exit = os._exit
# Results that a worker has had for so many seconds are written, while the next item still runs.
_FLUSH_S = 5.0
_WATCH_S = 0.25
# Failures that are told to the driver beside the parts, for its log.
TOLD = 21


@dataclass(frozen=True, kw_only=True)
class MapSetup(CallSetup):
    """What all workers of a map share.

    :param over: the argument that gets the item.
    :param parts_prefix: URI of the folder of the results.
    :param keep: whether the map goes on after an item that failed.
    """

    over: str
    parts_prefix: str
    keep: bool
    item_timeout_s: float | None = None


@dataclass(frozen=True)
class Done:
    """What came of a batch: it has run up to before `stop`, where with `failure` the map ends."""

    stop: int
    parts: tuple[Part, ...]
    seconds: float
    size: int
    failures: tuple[NodeFailure, ...] = ()
    failure: NodeFailure | None = None


@dataclass(kw_only=True)
class ItemSession(Session):
    """One call of the function with one item."""

    index: int

    def report(self, values: Mapping[str, Any], checkpoint: Any = None) -> None:
        """Refuse: an item has one result."""
        raise RayNodeError(
            "report() has no meaning in ray_map, where each item has one result: return the values, or run the "
            "function without ray_map"
        )

    def checkpoint(self) -> Any:
        """Return nothing: an item is run as a whole."""
        return None

    def finish(self, returned: Any) -> Piece:
        """Take the result."""
        return piece_of(returned)


class _Batch:
    """A batch while it runs: what the watching thread may write in the place of the main one."""

    def __init__(self, parts: Catalog, first: int) -> None:
        self._parts = parts
        self.lock = threading.RLock()
        self.index = first
        self.begun = time.monotonic()
        self.written: list[Part] = []
        self.failures: list[NodeFailure] = []
        self.size = 0
        self._first = first
        self._pieces: list[Piece] = []
        self._failed: list[NodeFailure] = []
        self._oldest = self.begun

    def take(self, piece: Piece, failure: NodeFailure | None = None) -> None:
        """Take the result of the item, and begin the next one."""
        with self.lock:
            now = time.monotonic()
            if not self._pieces:
                self._oldest = now
            self._pieces.append(piece)
            self.size += len(piece.data)
            if failure is not None:
                self._failed.append(failure)
            self.index += 1
            self.begun = now

    def flush(self, older_s: float = 0.0) -> None:
        """Write the results that are there, where the first of them is so old."""
        with self.lock:
            if not self._pieces or time.monotonic() - self._oldest < older_s:
                return
            self.written.append(write_part(self._parts, self._first, self._pieces, self._failed))
            self.failures += self._failed
            self._first += len(self._pieces)
            self._pieces, self._failed = [], []


class MapWorker:
    """Runs in a process of its own, on some machine of the cluster, from the map's beginning to its end.

    :param inputs: the arguments that are the same for all items, references loaded.
    """

    def __init__(self, setup: MapSetup, inputs: Mapping[str, Any]) -> None:
        self._setup = setup
        self._inputs = dict(inputs)
        self._catalog = setup.catalog()
        self._parts = self._catalog.at(setup.parts_prefix)
        self._secrets = secrets_of(setup, self._catalog)
        self._function: Callable[..., Any] | None = None

    def ready(self) -> NodeFailure | None:
        """Load the function; return why that does not work."""
        with tagged("map"):
            try:
                self._function = self._setup.function.load()
                if self._secrets is not None:
                    self._secrets.export()
            except BaseException as error:
                return describe(error, None, self._mask)
        return None

    def run(self, chunk: Chunk, first: int, stop: int, call: str) -> Done:
        """Call the function with the items from `first` to before `stop`; give back what there is no time for.

        :param chunk: holds the items.
        :param call: where word of the end of this process is left, should the function end it.
        """
        begin = time.monotonic()
        batch = _Batch(self._parts, first)
        watched = threading.Event()
        watch = threading.Thread(target=self._watch, args=(batch, watched, call), name="raynode-items", daemon=True)
        watch.start()
        masked = self._secrets.masked_output() if self._secrets is not None else nullcontext()

        def leave(failure: NodeFailure) -> None:
            self._leave(batch, call, failure.model_copy(update={"item": batch.index}))

        failure: NodeFailure | None = None
        try:
            with masked, exits_told(leave, None):
                for index in range(first, stop):
                    failure = self._one(chunk, index, batch)
                    if failure is not None and not self._setup.keep:
                        break
                    if batch.size > LARGEST or time.monotonic() - begin > LIMIT_S:
                        break
        finally:
            watched.set()
            set_current(None)
            set_active(None)
        with batch.lock:
            batch.flush()
            return Done(
                stop=batch.index,
                parts=tuple(batch.written),
                seconds=time.monotonic() - begin,
                size=batch.size,
                failures=tuple(batch.failures[:TOLD]),
                failure=None if self._setup.keep else failure,
            )

    def _one(self, chunk: Chunk, index: int, batch: _Batch) -> NodeFailure | None:
        """Run one item; return why it failed."""
        setup = self._setup
        own = self._catalog.child(f"items/{index}")
        session = ItemSession(run=setup.run, attempt=setup.attempt, catalog=own, secrets=self._secrets, index=index)
        set_current(session)
        set_active(own)
        assert self._function is not None
        with tagged(f"item {index}"):
            try:
                item = loaded(chunk.item(index), self._catalog)
                piece = session.finish(self._function(**{**self._inputs, setup.over: item}))
            except BaseException as error:
                failure = describe(error, None, self._mask, item=index)
                if setup.keep:
                    batch.take(NOTHING, failure)
                return failure
        batch.take(piece)
        return None

    def _mask(self, text: str) -> str:
        return text if self._secrets is None else self._secrets.mask(text)

    # -- beside the function -------------------------------------------------------------------------------------------

    def _watch(self, batch: _Batch, ended: threading.Event, call: str) -> None:
        """Write results that wait for a long item, and end this process where an item takes longer than it may."""
        limit = self._setup.item_timeout_s
        while not ended.wait(_WATCH_S if limit is None else min(_WATCH_S, limit / 4)):
            with batch.lock:
                if ended.is_set():
                    return
                with suppress(CatalogError):
                    batch.flush(_FLUSH_S)
                if limit is not None and time.monotonic() - batch.begun > limit:
                    self._end(batch, call, timeout_failure(limit, batch.index))

    def _end(self, batch: _Batch, call: str, failure: NodeFailure) -> NoReturn:
        self._leave(batch, call, failure)
        _exit(1)

    def _leave(self, batch: _Batch, call: str, failure: NodeFailure) -> None:
        """Leave word of why this process ends, and what it has done."""
        with batch.lock, suppress(CatalogError):
            batch.flush()
            self._catalog.write_bytes(lost_uri(self._catalog, call), failure.to_bytes())


def timeout_failure(limit: float, index: int) -> NodeFailure:
    """Return the failure of an item that took longer than it may."""
    return NodeFailure(
        type="ItemTimeout",
        message=f"item {index} ran longer than ray_map.item_timeout_s ({limit:g} s): its worker was ended",
        item=index,
    )


def lost_uri(attempt: Catalog, call: str) -> str:
    """Return where a worker leaves word of the end of its process, below the attempt's folder."""
    return f"{attempt.prefix_uri}/items/lost-{call}.json"
