"""A run in one process (`dag.test()`, `airflow dags test`, `raynode run`): a signal stops its jobs and ends the run.

Airflow's own handler of SIGTERM calls `on_kill` and lets the run go on, with the task's next try or with other tasks;
its task runner takes a KeyboardInterrupt for the failure of one task. So while a task of a node works, both signals are
handled here: its job is stopped, with those that other nodes of the run have submitted, and when Airflow's task runner
has let go of the task, the run is ended as Python ends a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The task runner and what stands for its supervisor; and the HTTP client of the latter, whose other side is a thread
# that an exception would leave waiting.
_TASK_SDK = "airflow.sdk.execution_time"
_UNBROKEN = ("httpx", "a2wsgi")
_AGAIN_S = 0.1
# A task that has not let go by then ends with its process.
_PATIENCE_S = 20.0
# What stops a job that was submitted in this process and that no task waits for, by submission id.
_submitted: dict[str, Callable[[], Any]] = {}
_at_end: Callable[[int], None] | None = None
_noted: Callable[[int], None] | None = None


def runs_in_process() -> bool:
    """Return whether the task runs in the process of `dag.test()`, and not in one that a supervisor watches."""
    supervisor = sys.modules.get("airflow.sdk.execution_time.supervisor")
    if supervisor is None or threading.current_thread() is not threading.main_thread():
        return False
    from airflow.sdk.execution_time import task_runner

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), supervisor.InProcessSupervisorComms)


@contextlib.contextmanager
def ends_with(handle: Callable[[int], None], note: Callable[[int], None]) -> Iterator[None]:
    """End a run by calling `handle` with the signal's number, in the place of KeyboardInterrupt and SystemExit.

    :param note: called when the signal comes, since the run may end by itself once its job is stopped.
    """
    global _at_end, _noted
    before, (_at_end, _noted) = (_at_end, _noted), (handle, note)
    try:
        yield
    finally:
        _at_end, _noted = before


def remember(submission_id: str, stop: Callable[[], Any]) -> None:
    """Remember a job of this run, and what stops it, while no task waits for it."""
    if runs_in_process():
        _submitted[submission_id] = stop


def forget(submission_id: str) -> None:
    """Forget a job: a task waits for it now, and stops it."""
    _submitted.pop(submission_id, None)


@contextlib.contextmanager
def signals_end_run(stop: Callable[[], Any]) -> Iterator[None]:
    """While a task of this process works: stop its job at a signal, and end the run. In other processes nothing."""
    if not runs_in_process():
        yield
        return

    before = signal.getsignal(signal.SIGINT)
    if isinstance(before, _Ending) and before.begun:
        raise KeyboardInterrupt
    ending = _Ending(stop)
    _set(ending)
    try:
        yield
    finally:
        if not ending.begun:
            # Airflow's handler of SIGTERM has replaced what was there, and would call a task that has ended.
            between = _Ending(lambda: None)
            signal.signal(signal.SIGTERM, between)
            signal.signal(signal.SIGINT, between if _submitted and before is signal.default_int_handler else before)


@contextlib.asynccontextmanager
async def signals_end_wait(stop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do the same for a trigger that waits in this process."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def note(number: int) -> None:
        received.append(number)
        task.cancel()

    before = {each: signal.getsignal(each) for each in _SIGNALS}
    for each in _SIGNALS:
        loop.add_signal_handler(each, note, each)
    try:
        yield
    except asyncio.CancelledError:
        if not received:
            raise
        try:
            await stop()
        except Exception:
            log.exception("The job was not stopped")
        await asyncio.to_thread(_stop_submitted)
        _end(received[0])
    finally:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)


class _Ending:
    """Handles the signals of a run: the first one stops its jobs, and then each task and the run itself are ended.

    :param stop: stops the job of the task that works.
    """

    def __init__(self, stop: Callable[[], Any]) -> None:
        self._stop = stop
        self._number: int | None = None
        self._ended_task: FrameType | None = None
        self._over = threading.Event()
        self._insistence = threading.Thread(target=self._insist, daemon=True)

    @property
    def begun(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Do what is next at the place that the signal has met."""
        if self._number is None:
            self._number = number
            if _noted is not None:
                _noted(number)
            try:
                _quietly(self._stop)
                _stop_submitted()
            finally:
                # A second signal does not wait for the jobs.
                self._insistence.start()
        frames = [each for each, _ in traceback.walk_stack(frame)]
        modules = [str(each.f_globals.get("__name__")) for each in frames]
        if any(name.startswith(_UNBROKEN) for name in modules):
            return
        if not any(name.startswith(_TASK_SDK) for name in modules):
            self._finish()
            _end(self._number)
        task = next((each for each in frames if each.f_code is _task_code()), None)
        if task is not None and task is not self._ended_task:
            self._ended_task = task
            raise KeyboardInterrupt

    def _insist(self) -> None:
        """Signal again until the run has ended; by SIGINT, since each task sets Airflow's own handler of SIGTERM."""
        end = time.monotonic() + _PATIENCE_S
        while not self._over.wait(_AGAIN_S):
            os.kill(os.getpid(), signal.SIGINT if time.monotonic() < end else signal.SIGKILL)

    def _finish(self) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)
        self._over.set()
        if self._insistence.is_alive():
            self._insistence.join()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int) -> NoReturn:
    if _at_end is not None:
        _at_end(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _task_code() -> Any:
    from airflow.sdk.execution_time import task_runner

    return inspect.unwrap(task_runner._run_task_and_map_outcome).__code__


def _set(handler: _Ending) -> None:
    for each in _SIGNALS:
        signal.signal(each, handler)


def _stop_submitted() -> None:
    """Stop all that was submitted and that no task waits for, at once."""
    stops = [_submitted.pop(each) for each in list(_submitted)]
    threads = [threading.Thread(target=_quietly, args=(stop,), daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _quietly(stop: Callable[[], Any]) -> None:
    try:
        stop()
    except Exception:
        log.exception("A job was not stopped")
