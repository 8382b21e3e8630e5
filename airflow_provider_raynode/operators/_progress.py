"""Live progress of a search: the table in the task log, its pace, and the observers that `raynode run` adds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_raynode.spec import JobRef, NodeProgress

Observer = Callable[[JobRef, NodeProgress], None]
_observers: list[Observer] = []
# What each line of the table begins with in a log.
_MARK = "progress | "


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call `observer` with each new snapshot of every node that this process executes, while the context is open."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def notify(job: JobRef, progress: NodeProgress) -> None:
    """Tell the observers of a new snapshot."""
    for observer in _observers:
        observer(job, progress)


def clock(seconds: float | None) -> str:
    """Return a duration as `0:42`, `12:03` or `1:02:03`; `-` for None."""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def short(value: object) -> str:
    """Return a hyperparameter or metric in few characters: floats with five significant digits."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def describe_best(progress: NodeProgress) -> str:
    """Return `accuracy 0.978 (trial ab12_3: learning_rate=0.003, …)`, or `-` before the first result."""
    best = progress.best
    if best is None or progress.metric is None:
        return "-"
    config = ", ".join(f"{key}={short(value)}" for key, value in best.config.items())
    return f"{progress.metric} {short(best.metrics.get(progress.metric))} (trial {best.trial_id}: {config})"


def table(progress: NodeProgress) -> list[str]:
    """Return the snapshot as the lines of a small table."""
    cells = {
        "done": str(progress.terminated),
        **({"stopped early": str(progress.early_stopped)} if progress.early_stopped else {}),
        "running": str(progress.running),
        "pending": str(progress.pending),
        "failed": str(progress.errored),
        "of": "?" if progress.total is None else str(progress.total),
        "elapsed": clock(progress.elapsed_s),
        "ETA": clock(progress.eta_s),
    }
    header, row = tuple(cells), tuple(cells.values())
    widths = [max(len(name), len(cell)) for name, cell in zip(header, row, strict=True)]
    return [
        "trials  " + "  ".join(name.rjust(width) for name, width in zip(header, widths, strict=True)),
        "        " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)),
        f"best    {describe_best(progress)}",
    ]


def lines(progress: NodeProgress) -> list[str]:
    """Return the table as it stands in a log, between the lines of the trials."""
    return [f"{_MARK}{line}" for line in table(progress)]


class Pace:
    """Decides when the table is worth printing again: on news, at growing distances, at the end always.

    The first table comes at once, the next after `first_s` seconds, each further distance is 1.5 times the last up to
    `last_s`: a short search shows its steps, a search of a night does not fill the log.
    """

    def __init__(self, first_s: float = 5.0, last_s: float = 120.0) -> None:
        self._distance = first_s
        self._last = last_s
        self._next = 0.0
        self._shown: tuple[object, ...] | None = None

    def due(self, progress: NodeProgress) -> bool:
        """Whether to print `progress` now."""
        news = (
            progress.phase,
            progress.terminated,
            progress.early_stopped,
            progress.errored,
            progress.running,
            progress.best and progress.best.trial_id,
        )
        now = time.monotonic()
        if news == self._shown or (now < self._next and progress.phase not in ("done", "failed")):
            return False
        self._shown = news
        self._next = now + self._distance
        self._distance = min(self._distance * 1.5, self._last)
        return True
