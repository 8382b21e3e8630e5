"""Airflow's listener that tells the display what the tasks do. Imported after the environment is prepared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow_provider_raynode.run.display import RunDisplay


class RunListener:
    """Passes the states of task instances on.

    :param display: told of each change.
    :param check: called after each; what it raises ends the run.
    :param begins: called with the task that begins.
    """

    def __init__(self, display: RunDisplay, check: Callable[[], None], begins: Callable[[Any], None]) -> None:
        self._display = display
        self._check = check
        self._begins = begins

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """A task begins."""
        self._begins(task_instance.task)
        self._display.task_started(task_instance.task_id, task_instance.map_index)
        self._check()

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """A task is done."""
        self._display.task_ended(task_instance.task_id, task_instance.map_index, "success")
        self._check()

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """A task was skipped."""
        self._display.task_ended(task_instance.task_id, task_instance.map_index, "skipped")
        self._check()

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """A task failed, for good or until its next try."""
        state = str(getattr(task_instance.state, "value", task_instance.state))
        ended = state if state == "up_for_retry" else "failed"
        self._display.task_ended(task_instance.task_id, task_instance.map_index, ended, error)
        self._check()
