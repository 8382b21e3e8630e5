"""Live progress of a node's work: the table in the task log, its pace, and the observers that `raynode run` adds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_raynode.spec import JobRef, NodeProgress, TrainingProgress

Observer = Callable[[JobRef, NodeProgress], None]
_observers: list[Observer] = []
# What each line of the table begins with in a log.
_MARK = "progress | "
# Metrics of a training that the table shows, and characters of a value.
_METRICS_SHOWN, _LONGEST_VALUE = 6, 40


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
    """Return `accuracy 0.978 (trial ab12_3: lr=0.003, …)` or `loss 0.12 (step 9)`, or `-` before the first result."""
    if (training := progress.training) is not None:
        if training.best_metrics is None or progress.metric is None:
            return "-"
        return f"{progress.metric} {short(training.best_metrics.get(progress.metric))} (step {training.best_step})"
    best = progress.best
    if best is None or progress.metric is None:
        return "-"
    config = ", ".join(f"{key}={short(value)}" for key, value in best.config.items())
    return f"{progress.metric} {short(best.metrics.get(progress.metric))} (trial {best.trial_id}: {config})"


def describe_now(progress: NodeProgress) -> str:
    """Return the metrics of a training's last report, that of the node first: `loss 0.21, accuracy 0.9`; else `-`."""
    metrics = progress.training.metrics if progress.training is not None else {}
    names = sorted(metrics, key=lambda name: name != progress.metric)
    shown = [f"{name} {short(metrics[name])[:_LONGEST_VALUE]}" for name in names[:_METRICS_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(names) > _METRICS_SHOWN else [])]) or "-"


def table(progress: NodeProgress) -> list[str]:
    """Return the snapshot as the lines of a small table."""
    what, cells = _cells(progress)
    cells |= {"elapsed": clock(progress.elapsed_s)}
    if progress.work != "function":
        cells["ETA"] = clock(progress.eta_s)
    header, row = tuple(cells), tuple(cells.values())
    widths = [max(len(name), len(cell)) for name, cell in zip(header, row, strict=True)]
    label = max(len(what), len("best")) + 2
    found = [
        what.ljust(label) + "  ".join(name.rjust(width) for name, width in zip(header, widths, strict=True)),
        " " * label + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)),
    ]
    if progress.work == "training":
        found.append("now".ljust(label) + describe_now(progress))
    if progress.work == "search" or progress.metric is not None:
        found.append("best".ljust(label) + describe_best(progress))
    return found


def _cells(progress: NodeProgress) -> tuple[str, dict[str, str]]:
    """Return what the table counts, and the counts by name."""
    of = "?" if progress.total is None else str(progress.total)
    if progress.work == "training":
        training = progress.training or TrainingProgress()
        restarts = {"restarts": str(training.restarts)} if training.restarts else {}
        of = "?" if training.steps is None else str(training.steps)
        return "training", {"step": str(training.step), "of": of, "workers": str(training.workers), **restarts}
    if progress.work == "function":
        return "function", {"phase": progress.phase}
    counts = {
        "done": str(progress.terminated),
        **({"stopped early": str(progress.early_stopped)} if progress.early_stopped else {}),
        "running": str(progress.running),
        "pending": str(progress.pending),
        "failed": str(progress.errored),
        "of": of,
    }
    return ("items" if progress.work == "map" else "trials"), counts


def headline(progress: NodeProgress, between: str = ", ") -> str:
    """Return the counts in one line: `5/20 trials, 2 running, 1 failed`, `step 7/50, 2 workers`, `7/9 items, …`."""
    if progress.work == "function":
        return "running"
    if progress.work == "training":
        training = progress.training or TrainingProgress()
        of = "" if training.steps is None else f"/{training.steps}"
        restarts = [f"{training.restarts} restarts"] if training.restarts else []
        return between.join([f"step {training.step}{of}", f"{training.workers} workers", *restarts])
    stopped = [f"{progress.early_stopped} stopped early"] if progress.early_stopped else []
    what = "items" if progress.work == "map" else "trials"
    counts = [f"{progress.ended}/{'?' if progress.total is None else progress.total} {what}"]
    return between.join([*counts, f"{progress.running} running", *stopped, f"{progress.errored} failed"])


def bar(progress: NodeProgress) -> tuple[int, int | None]:
    """Return how far a progress bar is, and of how much; None where that is not known."""
    if progress.training is not None:
        return progress.training.step, progress.training.steps
    return progress.ended, progress.total


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
            progress.training,
        )
        now = time.monotonic()
        if news == self._shown or (now < self._next and progress.phase not in ("done", "failed")):
            return False
        self._shown = news
        self._next = now + self._distance
        self._distance = min(self._distance * 1.5, self._last)
        return True
