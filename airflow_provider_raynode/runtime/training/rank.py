"""One rank of a training, in its worker's process: what it has reported, what it does now, whether it is to stop."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ray.train.v2._internal.execution import collective_impl
from ray.train.v2._internal.execution import context as train_context

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.failures import describe
from airflow_provider_raynode.runtime.training.failure import RankError
from airflow_provider_raynode.runtime.training.session import STEP_KEY
from airflow_provider_raynode.runtime.training.stacks import answer_signals
from airflow_provider_raynode.runtime.training.stop import Ending, Stop
from airflow_provider_raynode.spec import NodeFailure

_OWN = Path(__file__).parent.parent.parent
_RAYS = f"{os.sep}ray{os.sep}"
# Where a rank is while it waits for the others: Ray's file and function, and what the author called.
_WAITS = {
    ("context.py", "_sync_checkpoint_dir_name_across_ranks"): "report",
    ("collective_impl.py", "barrier"): "barrier",
    ("collective_impl.py", "broadcast_from_rank_zero"): "broadcast_from_rank_zero",
}


class Stopped(SystemExit):
    """Ends the author's function at a report: the training stops here, on every rank."""


@dataclass(frozen=True)
class Word:
    """What a rank says of itself.

    :param reports: calls of `report`, the one that it is in included, and those before the training was resumed.
    :param meetings: how many times it has met the other ranks or waits to, in a report or a barrier.
    :param waits_in: what it waits in for the other ranks; "" where it does not.
    """

    rank: int
    reports: int
    meetings: int
    waits_in: str = ""
    ended: bool = False
    failure: NodeFailure | None = None


class Rank:
    """The rank that this process runs: counts the reports, whoever makes them, and ends the function where it stops.

    :param context: Ray's own context of the worker; every report goes through it.
    """

    def __init__(self, context: Any, stop: Stop | None) -> None:
        self._context = context
        self._stop = stop
        self._pid = os.getpid()
        self._report = context.report
        self._begin = time.monotonic()
        self.number = int(context.get_world_rank())
        self.reports = 0
        self.ending: Ending | None = None
        self.failure: NodeFailure | None = None
        context.report = self.report

    def report(self, metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Make a report, as Ray does; raise `Stopped` after it where the training ends here."""
        if os.getpid() != self._pid:
            raise RayNodeError(
                "report() was called in a process that the function forked: only the worker's own process reports"
            )
        if self.ending is not None:  # a function that catches its end comes back here
            raise Stopped(self.ending.reason)
        self.reports += 1
        ending = self._agreed(metrics)
        self._report(metrics, *args, **kwargs)
        if ending is not None:
            self.ending = ending
            raise Stopped(ending.reason)

    def _agreed(self, metrics: Mapping[str, Any]) -> Ending | None:
        """Return what rank 0 says: whether the training ends with this report."""
        if self._stop is None:
            return None
        ending = None
        if self.number == 0:
            number = metrics.get(STEP_KEY, self.reports)
            ending = self._stop.reached(metrics, number, time.monotonic() - self._begin)
        told = collective_impl.broadcast_from_rank_zero(tuple(ending) if ending else None, caller_method_name="report")
        return Ending(*told) if told else None

    def end_fork(self, status: int) -> None:
        """End a process that the function forked where it comes out of the function, as it would end in a script."""
        if os.getpid() != self._pid:
            os._exit(status)

    def told(self, failure: NodeFailure) -> None:
        """Keep why the function fails, before the others' errors that come of it."""
        self.failure = failure

    def word(self) -> Word:
        """Return what it does now."""
        thread = self._context.execution_context.training_thread_runner._thread
        return Word(
            rank=self.number,
            reports=self.reports,
            meetings=int(self._context.collective_seq),
            waits_in=_waits_in(),
            ended=thread is not None and not thread.is_alive(),
            failure=self.failure,
        )

    def stack(self) -> str:
        """Return where its function is at this moment."""
        thread = self._context.execution_context.training_thread_runner._thread
        frame = sys._current_frames().get(thread.ident) if thread is not None and thread.ident else None
        return "" if frame is None else _shown(frame)


_current: Rank | None = None


def attach(stop: Stop | None) -> Rank:
    """Make this process's worker a rank; Ray has just told it which one."""
    global _current
    answer_signals()
    _current = Rank(train_context.get_train_context(), stop)
    return _current


def current() -> Rank:
    """Return the rank that this process runs.

    :raises RayNodeError: it runs none.
    """
    if _current is None:
        raise RayNodeError("this process runs no rank of a training")
    return _current


def word_of_rank() -> Word:
    """Return what this process's rank does now; called on the worker, beside the function's thread."""
    return current().word()


def stack_of_rank() -> str:
    """Return where this process's function is."""
    return current().stack()


@contextmanager
def taking_part(after: int = 0) -> Iterator[Rank]:
    """Run the author's function in it: its end where the training stops is no error, an error is told with its rank.

    :param after: the number of the report that the training goes on from.
    """
    rank = current()
    rank.reports = after
    try:
        yield rank
        rank.end_fork(0)
    except BaseException as error:
        rank.end_fork(1)
        if rank.ending is not None:  # what the function makes of its end is of no more use
            return
        failure = rank.failure or describe(error, rank=rank.number)
        rank.failure = failure
        raise RankError(failure.to_bytes().decode(), time.time()) from None


def _waits_in() -> str:
    """Return what any of the process's threads waits in for the other ranks."""
    threads = {each.ident for each in threading.enumerate()}
    for ident, innermost in sys._current_frames().items():
        if ident not in threads:
            continue
        waits, frame = "", innermost
        while frame is not None:
            code = frame.f_code
            if _RAYS in code.co_filename:
                waits = waits or _WAITS.get((Path(code.co_filename).name, code.co_name), "")
            elif waits and code is Rank.report.__code__:
                return "report"
            frame = frame.f_back  # type: ignore[assignment]
        if waits:
            return waits
    return ""


def _shown(frame: FrameType) -> str:
    """Return a stack without the frames of Ray's and ours that lead to the author's function."""
    frames = traceback.extract_stack(frame)
    begin = 0
    for index, each in enumerate(frames):
        if Path(each.filename).is_relative_to(_OWN) or each.filename == threading.__file__ or _RAYS in each.filename:
            begin = index + 1
        else:
            break
    return "".join(traceback.format_list(frames[begin:] or frames)).rstrip()
