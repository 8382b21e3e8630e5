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


class Termination:
    """Remembers that the pod was asked to end, and ends a process that does not listen.

    The SDK's own handler calls `on_kill` and lets the task go on; a pod must end.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def handled(self, clean_up: Callable[[], None]) -> Iterator[None]:
        """Handle SIGTERM here: `clean_up`, then SystemExit in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._end(clean_up))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def install(self, clean_up: Callable[[], None]) -> None:
        """Take SIGTERM over from the SDK, which sets its own handler when a task begins."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._end(clean_up))

    def note(self) -> None:
        """Remember it, and see to it that the process ends."""
        self.asked = True
        timer = threading.Timer(_HARD_END_S, os._exit, args=(EXIT_TERMINATED,))
        timer.daemon = True
        timer.start()

    def _end(self, clean_up: Callable[[], None]) -> None:
        if self.asked:
            os._exit(EXIT_TERMINATED)
        self.note()
        log.warning("SIGTERM: the task is stopped")
        try:
            clean_up()
        except Exception:
            log.exception("on_kill failed")
        raise SystemExit(EXIT_TERMINATED)


class TerminationListener:
    """Airflow's listener that takes SIGTERM over when a task begins to execute."""

    def __init__(self, termination: Termination) -> None:
        self._termination = termination

    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Install the handler over the SDK's."""
        self._termination.install(lambda: task_instance.task.on_kill())


def listener(termination: Termination) -> Any:
    """Return the listener, marked as Airflow's plugin manager wants it."""
    from airflow.listeners import hookimpl

    TerminationListener.on_task_instance_running = hookimpl(  # type: ignore[method-assign]
        TerminationListener.on_task_instance_running
    )
    return TerminationListener(termination)
