"""SIGTERM in a pod: the task cleans up, and the process ends within Kubernetes' grace."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_raynode.argo.outcome import EXIT_TERMINATED

log = logging.getLogger(__name__)

# Kubernetes kills 30 s after SIGTERM: what is still running then leaves no record.
_HARD_END_S = 20.0


class TerminatedError(Exception):
    """SIGTERM came while the task waited: for a trigger's event, or for its next poke."""


class Termination:
    """Remembers that the pod was asked to end, and ends a process that does not listen.

    The SDK's own handler calls `on_kill` and lets the task go on; a pod must end. A second SIGTERM ends at once.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Note SIGTERM while the context lasts; afterwards the handler is what it was before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self.note())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def install(self, clean_up: Callable[[], None], end: Callable[[], BaseException]) -> None:
        """Handle SIGTERM from now on, within `handled`: `clean_up`, then `end` is raised in the main thread."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._stop(clean_up, end))

    def only_note(self) -> None:
        """Let what runs in the main thread come to its end: the task has ended already."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self.note())

    def note(self) -> None:
        """Remember it, and see to it that the process ends."""
        if self.asked:
            os._exit(EXIT_TERMINATED)
        self.asked = True
        log.warning("SIGTERM: the task is stopped")
        timer = threading.Timer(_HARD_END_S, os._exit, args=(EXIT_TERMINATED,))
        timer.daemon = True
        timer.start()

    def _stop(self, clean_up: Callable[[], None], end: Callable[[], BaseException]) -> None:
        self.note()
        try:
            clean_up()
        except Exception:
            log.exception("on_kill failed")
        raise end()


class TerminationListener:
    """Airflow's listener that takes SIGTERM over when a task begins to execute: the SDK sets its handler before."""

    def __init__(self, termination: Termination) -> None:
        self._termination = termination

    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Install the handler over the SDK's."""
        self._termination.install(lambda: task_instance.task.on_kill(), lambda: SystemExit(EXIT_TERMINATED))


def listener(termination: Termination) -> Any:
    """Return the listener, marked as Airflow's plugin manager wants it."""
    from airflow.listeners import hookimpl

    TerminationListener.on_task_instance_running = hookimpl(  # type: ignore[method-assign]
        TerminationListener.on_task_instance_running
    )
    return TerminationListener(termination)
