"""Which items of a map run next, and how many in one go. Pure: no airflow, no ray.

An item may take a microsecond or an hour. What a worker gets in one go is a batch of about a second, by what the items
before have taken; a batch that takes longer is given back by its worker, between two items. A batch whose worker died
is split until the item that is to blame has run alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Seconds that a batch is to take, and after which a worker gives the rest of its batch back.
TARGET_S = 1.0
LIMIT_S = 2.0
# Bytes of items, or of results, in one batch.
LARGEST = 32 << 20
# The first batches are small, since nothing is known of the items, and grow by this factor.
_FIRST, _GROWTH = 1, 8
# A batch whose worker died is split in so many.
_PIECES = 8
# The weight of the newest batch in what an item is expected to take.
_NEWEST = 0.5

Range = tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Items from `first` to before `stop`, for one worker in one go.

    `tries`: how often it was run before, where it is one item that was alone when its worker died. `chunk`: where its
    items are, known to who runs it.
    """

    first: int
    stop: int
    tries: int = 0
    chunk: Any = field(default=None, compare=False)

    def __len__(self) -> int:
        return self.stop - self.first


class Plan:
    """The order of the items that have no result yet.

    :param missing: ranges of their indexes, in order.
    :param max_retries: how often an item is run again whose worker died while it ran alone.
    """

    def __init__(self, missing: Iterable[Range], *, max_retries: int = 0) -> None:
        self._fresh = deque(each for each in missing if each[0] < each[1])
        self._again: deque[Batch] = deque()
        self._max_retries = max_retries
        self._seconds: float | None = None
        self._bytes: float | None = None
        self._largest = 0

    @property
    def left(self) -> int:
        """How many items are in no batch that runs."""
        return sum(stop - first for first, stop in self._fresh) + sum(map(len, self._again))

    def next(self, workers: int) -> Batch | None:
        """Return the next batch, None where every item runs or has run.

        :param workers: how many there are: towards the end each gets its share.
        """
        if self._again:
            return self._again.popleft()
        if not self._fresh:
            return None
        first, stop = self._fresh[0]
        size = min(self._size(workers), stop - first)
        self._fresh[0] = (first + size, stop)
        if first + size == stop:
            self._fresh.popleft()
        self._largest = max(self._largest, size)
        return Batch(first, first + size)

    def _size(self, workers: int) -> int:
        if self._seconds is None:
            return _FIRST
        size = min(TARGET_S / max(self._seconds, 1e-9), self._largest * _GROWTH)
        if self._bytes:
            size = min(size, LARGEST / self._bytes)
        fresh = sum(stop - first for first, stop in self._fresh)
        return max(1, min(int(size), math.ceil(fresh / (2 * max(workers, 1)))))

    def done(self, items: int, seconds: float, size: int) -> None:
        """Take what a batch has taken.

        :param items: how many of its items have run.
        :param size: bytes of the batch, of its items or their results.
        """
        if items:
            self._seconds = _smoothed(self._seconds, seconds / items)
            self._bytes = _smoothed(self._bytes, size / items)

    def give_back(self, batch: Batch, first: int) -> None:
        """Take back the items of a batch from `first` on: its worker had no time for them."""
        if first < batch.stop:
            self._again.append(Batch(first, batch.stop, chunk=batch.chunk))

    def cut(self, batch: Batch, stop: int) -> Batch:
        """Return a batch without its items from `stop` on, which come next: there was no room for them."""
        self._fresh.appendleft((stop, batch.stop))
        return Batch(batch.first, stop)

    def lost(self, batch: Batch) -> bool:
        """Take a batch whose worker died; return whether its one item is to blame, and is not run again."""
        if len(batch) > 1:
            step = math.ceil(len(batch) / _PIECES)
            for first in range(batch.first, batch.stop, step):
                self._again.append(Batch(first, min(first + step, batch.stop), chunk=batch.chunk))
            return False
        if batch.tries >= self._max_retries:
            return True
        self._again.append(Batch(batch.first, batch.stop, batch.tries + 1, batch.chunk))
        return False


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else (1 - _NEWEST) * before + _NEWEST * now


def missing_ranges(done: Sequence[Range], total: int) -> list[Range]:
    """Return the ranges up to `total` that none of `done` covers; these are in order and do not overlap."""
    found, begin = [], 0
    for first, stop in done:
        if begin < first:
            found.append((begin, first))
        begin = stop
    if begin < total:
        found.append((begin, total))
    return found


def without_overlaps(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in order, of those that overlap the one that begins first, and then the longest.

    A driver that was killed and the one after it may both have had an item run.
    """
    found: list[Range] = []
    for first, stop in sorted(set(ranges), key=lambda each: (each[0], -each[1])):
        if first < stop and (not found or found[-1][1] <= first):
            found.append((first, stop))
    return found
