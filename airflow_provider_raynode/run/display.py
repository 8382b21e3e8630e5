"""The terminal's view of a running DAG: a line per task, a progress bar per Ray node, what the tasks print."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from airflow_provider_raynode.operators._progress import (
    Pace,
    bar,
    clock,
    describe_best,
    describe_now,
    headline,
    short,
)
from airflow_provider_raynode.spec import JobRef, NodeProgress

_MARKS = {
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "up_for_retry": ("↻", "yellow"),
    "skipped": ("-", "bright_black"),
    "upstream_failed": ("✗", "bright_black"),
}


@dataclass
class _Task:
    started: float | None = None
    ended: float | None = None
    state: str | None = None
    progress: NodeProgress | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))
    pace: Pace = field(default_factory=Pace)

    @property
    def seconds(self) -> float | None:
        if self.started is None:
            return None
        return (self.ended or time.monotonic()) - self.started


class RunDisplay:
    """Shows a run while it goes on; on a terminal as a live view, elsewhere as plain lines."""

    def __init__(self, stream: TextIO, *, width: int | None = None) -> None:
        self.console = Console(file=stream, highlight=False, width=width)
        self._tasks: dict[str, _Task] = {}
        self._current: str | None = None
        self._live: Live | None = None

    # -- the run ---------------------------------------------------------------------------------------------------

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Show that something goes on, while the context is open; nothing where there is no terminal."""
        if not self.console.is_terminal:
            return nullcontext()
        return self._live_view(Spinner("dots", what, style="cyan"), transient=True)

    def start(self, task_ids: list[str], title: str) -> None:
        """Show the tasks of the run, in their order."""
        self._tasks = {task_id: _Task() for task_id in task_ids}
        self.console.print(Text(title, style="bold"))
        if self.console.is_terminal:
            self._live = self._live_view(self)
            self._live.start()

    def stop(self) -> None:
        """Leave the last view on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def progress(self, job: JobRef, progress: NodeProgress) -> None:
        """Take a new snapshot of the node whose execution task runs now."""
        task = self._tasks.get(self._current or "")
        if task is None:
            return
        task.progress = progress
        if self._live is None and progress.phase != "starting" and task.pace.due(progress):
            self.console.print(
                f"  {self._current}: {headline(progress)}{_eta(progress, ', ')}{_found(progress)}",
                markup=False,
                soft_wrap=True,
            )

    def printed(self, line: str) -> None:
        """Show a line that a task printed."""
        self.console.print(Text.assemble((f"{self._current or ''} │ ", "bright_black"), line), soft_wrap=True)

    def _live_view(self, view: RenderableType, *, transient: bool = False) -> Live:
        # Stdout is taken care of elsewhere: what rich would bring to the terminal is Airflow's log.
        return Live(
            view,
            console=self.console,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=transient,
        )

    # -- the tasks -------------------------------------------------------------------------------------------------

    def task_started(self, task_id: str, map_index: int | None) -> None:
        """Mark the task as running; a mapped one takes the place of the line that stood for all."""
        name = _name(task_id, map_index)
        tasks = dict(self._tasks)
        if name not in tasks and task_id in tasks:
            place = list(tasks).index(task_id)
            names = list(tasks)
            if tasks[task_id].state is None:
                names[place] = name
            else:
                names.insert(place + 1, name)
        else:
            names = list(dict.fromkeys([*tasks, name]))
        # The indexes of one mapped task stand together.
        siblings = [each for each in names if each.startswith(f"{task_id} [")]
        if len(siblings) > 1:
            first = names.index(siblings[0])
            names = [each for each in names if each not in siblings]
            names[first:first] = siblings
        tasks[name] = _Task(started=time.monotonic(), state="running")
        self._tasks = {each: tasks[each] for each in names}
        self._current = name

    def task_ended(self, task_id: str, map_index: int | None, state: str, error: object = None) -> None:
        """Mark the task as ended, with the error of one that failed."""
        name = _name(task_id, map_index)
        task = self._tasks.setdefault(name, _Task())
        task.state, task.ended = state, time.monotonic()
        if self._live is None:
            self.console.print(f"{_MARKS[state][0]} {name}  {task.seconds or 0:.1f} s", markup=False)
        if error is not None:
            self.console.print(Text(f"{name} failed: {str(error).strip() or repr(error)}", style="red"), soft_wrap=True)

    # -- rendering -------------------------------------------------------------------------------------------------

    def __rich__(self) -> RenderableType:
        """Return the view now; rich calls this at each refresh."""
        table = Table.grid(padding=(0, 1))
        rows: list[RenderableType] = []
        for name, task in list(self._tasks.items()):
            table = Table.grid(padding=(0, 1))
            table.add_column(width=1)
            table.add_column(width=max(map(len, self._tasks)))
            table.add_column(justify="right", width=8)
            running = task.state == "running"
            mark, colour = _MARKS.get(task.state or "", ("·", "bright_black"))
            seconds = task.seconds
            table.add_row(
                task.spinner if running else Text(mark, style=colour),
                Text(name, style="bold" if running else colour if task.state != "success" else ""),
                Text("" if seconds is None else f"{seconds:.1f} s", style="bright_black"),
            )
            rows.append(table)
            if task.progress is not None:
                rows.append(_node(task.progress))
        return Group(*rows)


def _eta(progress: NodeProgress, between: str) -> str:
    """Return when the work ends, as far as that can be known."""
    return "" if progress.work == "function" else f"{between}ETA {clock(progress.eta_s)}"


def _found(progress: NodeProgress) -> str:
    """Return the best so far, and of a training the last report."""
    now = f", now {describe_now(progress)}" if progress.work == "training" else ""
    return f"{now}, best {describe_best(progress)}" if progress.metric is not None else now


def _node(progress: NodeProgress) -> RenderableType:
    if progress.phase == "starting":
        return Text("    starting Ray …", style="bright_black")
    done, total = bar(progress)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        "   ",
        ProgressBar(total=total, completed=done, width=28, pulse=total is None),
        f"{headline(progress, '  ')}  {clock(progress.elapsed_s)} elapsed{_eta(progress, '  ')}",
    )
    if progress.work == "training":
        now = Text.assemble("    now  ", describe_now(progress), overflow="ellipsis")
        best_so_far = Text.assemble("    best ", (describe_best(progress), "bold green"), overflow="ellipsis")
        return Group(line, now, *([] if progress.metric is None else [best_so_far]))
    best = progress.best
    if best is None or progress.metric is None:
        return line
    config = "  ".join(f"{key}={short(value)}" for key, value in best.config.items())
    value = short(best.metrics.get(progress.metric))
    return Group(
        line,
        Text.assemble("    best ", (f"{progress.metric} {value}", "bold green"), f"  {config}", overflow="ellipsis"),
    )


def _name(task_id: str, map_index: int | None) -> str:
    return task_id if map_index is None or map_index < 0 else f"{task_id} [{map_index}]"
