"""What the driver sees of the trials while Tune runs: states, scores, the best so far, outputs that can go."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune import Callback
from ray.tune.experiment import Trial

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.completion import CUT_OFF, EARLY_STOPPED, FAILED, FINISHED, NOT_BEGUN, SearchEnd
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, SHOWN, reported_in, travelling
from airflow_provider_raynode.runtime.outputs import sanitised
from airflow_provider_raynode.runtime.search_state import SEARCH_KEY, SearchState, read_back
from airflow_provider_raynode.runtime.steps import Steps


def metrics_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a Tune result as JSON, by the function's own names, without what Tune added for itself."""
    return {name: sanitised(value) for name, value in reported_in(result).items()}


class Scores:
    """The score of each trial, by the scope that says which of its reports count.

    `last`: the last report; `all`: the best one; `avg`, `last-5-avg`, `last-10-avg`: the mean of all, of the last 5 or
    10 (as in Ray's `get_best_result`). A report whose metric is NaN or infinite has no score: a trial is compared by
    its other reports, with the scope `last` it is not compared at all when its last report is one.

    :param further: metrics that are weighed against `metric`, with their modes; the scope is then `last`.
    """

    def __init__(self, metric: str, mode: str, scope: str, further: Mapping[str, str] | None = None) -> None:
        self.metric = metric
        self.sign = _sign(mode)
        self.scope = scope
        self._further = {name: _sign(each) for name, each in (further or {}).items()}
        self._reports: dict[str, list[float]] = {}
        self._sums: dict[str, tuple[float, int]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, dict[str, dict[str, Any]]] = {}

    def add(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Take a report."""
        self._last[trial_id] = kept = dict(result)
        if OUTPUTS_KEY in result:
            # A trial that goes on from a checkpoint does not report again what it gave before.
            self._outputs.setdefault(trial_id, {}).update(outputs_in(result))
        value = _number(result.get(travelling(self.metric)))
        finite = math.isfinite(value)
        if self.scope == "last":
            self._reports[trial_id] = [value] if finite else []
            self._results[trial_id] = kept
        elif finite and self.scope == "all":
            best = self._reports.get(trial_id)
            if not best or self.sign * value > self.sign * best[0]:
                self._reports[trial_id] = [value]
                self._results[trial_id] = kept
        elif finite:
            keep = {"avg": 0, "last-5-avg": 5, "last-10-avg": 10}[self.scope]
            if keep:
                self._reports[trial_id] = [*self._reports.get(trial_id, []), value][-keep:]
            else:
                total, count = self._sums.get(trial_id, (0.0, 0))
                self._sums[trial_id] = (total + value, count + 1)
                self._reports[trial_id] = [(total + value) / (count + 1)]
            self._results[trial_id] = kept

    def score(self, trial_id: str) -> float | None:
        """Return a trial's score in the metric's own unit, None without a finite one."""
        values = self._reports.get(trial_id)
        return sum(values) / len(values) if values else None

    def values(self, trial_id: str) -> tuple[float, ...] | None:
        """Return a trial's values by every metric, the greater the better; None where one of them is not finite."""
        score = self.score(trial_id)
        if score is None:
            return None
        result = self.result(trial_id)
        further = (sign * _number(result.get(travelling(name))) for name, sign in self._further.items())
        values = (self.sign * score, *further)
        return values if all(map(math.isfinite, values)) else None

    def best(self, trial_ids: Sequence[str] | None = None) -> str | None:
        """Return the best trial, the earliest of equal ones; of several metrics the first decides, then the next."""
        scored = [(trial_id, self.values(trial_id)) for trial_id in (trial_ids or list(self._reports))]
        found = [(trial_id, values) for trial_id, values in scored if values is not None]
        return max(found, key=lambda each: each[1])[0] if found else None

    def front(self, trial_ids: Sequence[str]) -> list[str]:
        """Return the trials that no other beats in one metric without losing in another, the best of `metric` first.

        The Pareto front; trials with equal values are all in it.
        """
        scored = [(values, trial_id) for trial_id in trial_ids if (values := self.values(trial_id)) is not None]
        # In this order none can be beaten by one that comes later.
        scored.sort(key=lambda each: each[0], reverse=True)
        front: list[str] = []
        points = np.empty((len(scored), 1 + len(self._further)))
        for values, trial_id in scored:
            ahead = points[: len(front)]
            if not np.any(np.all(ahead >= values, axis=1) & np.any(ahead > values, axis=1)):
                points[len(front)] = values
                front.append(trial_id)
        return front

    def is_superfluous(self, trial_id: str, other: str) -> bool:
        """Whether a trial is not worth keeping beside another."""
        one, two = self.values(trial_id), self.values(other)
        if one is None or two is None:
            return one is None
        return all(left <= right for left, right in zip(one, two, strict=True)) and (one != two or not self._further)

    def get_state(self) -> dict[str, Any]:
        """Return the scores for `set_state`."""
        return {
            "reports": dict(self._reports),
            "sums": dict(self._sums),
            "results": dict(self._results),
            "last": dict(self._last),
            "outputs": {trial_id: dict(found) for trial_id, found in self._outputs.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take the scores of an earlier attempt."""
        self._reports, self._sums, self._results = state["reports"], state["sums"], state["results"]
        self._last, self._outputs = state["last"], state["outputs"]

    def result(self, trial_id: str) -> dict[str, Any]:
        """Return the report that a trial's score comes from."""
        return self._results.get(trial_id, {})

    def last(self, trial_id: str) -> dict[str, Any]:
        """Return a trial's own last report; Tune gives one that takes over another's checkpoint that one's result."""
        return self._last.get(trial_id, {})

    def outputs(self, trial_id: str) -> dict[str, dict[str, Any]]:
        """Return the references of a trial's outputs, the last of each name."""
        return self._outputs.get(trial_id, {})


def _sign(mode: str) -> float:
    return 1.0 if mode == "max" else -1.0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# The observer of this process, last made.
_observing: list[Observer] = []


def _own_observer() -> Callback:
    return _observing[-1] if _observing else Callback()


class Observer(Callback):
    """Tune's callback of the node.

    Keeps the counts and the best for the progress, and, unless all outputs are to be kept, removes those of a trial
    that has ended behind a better one: a search never holds more than its best (of several metrics, its front) and its
    running trials' outputs.

    :param end: how the search ends; the observer tells it of the trials that fail.
    :param steps: takes what the trials report.
    """

    def __init__(
        self, scores: Scores, *, end: SearchEnd, outputs: Catalog | None = None, steps: Steps | None = None
    ) -> None:
        self.scores = scores
        self.end = end
        self.steps = steps
        self._states: dict[str, str] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._with_outputs: set[str] = set()
        # Trials that Tune stopped at their last report, and those whose last report was what the function returned.
        self._stopped: set[str] = set()
        self._returned: set[str] = set()
        self._kept: list[str] = []
        self._remover = _Remover(outputs) if outputs is not None else None
        self._best: str | None = None
        self._seen = False
        self.restored = 0
        # Whose search it is, for its state; and the state that Tune is to go on from, where there is one.
        self.search: dict[str, Any] = {}
        self.expected: SearchState | None = None
        self.started = threading.Event()
        # Called with a trial that has failed, and whether it is tried again.
        self.tell_failure: Callable[[Trial, bool], None] | None = None
        _observing.append(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks with the experiment; a process that restores it goes on with its own observer."""
        return _own_observer, ()

    def get_state(self) -> dict[str, Any]:
        """Return what a later attempt has to know of the trials so far; Tune writes it with the trials' states."""
        return {
            SEARCH_KEY: self.search,
            "scores": self.scores.get_state(),
            "states": dict(self._states),
            "configs": dict(self._configs),
            "with_outputs": set(self._with_outputs),
            "kept": list(self._kept),
            "returned": set(self._returned),
            "steps": self.steps.get_state() if self.steps is not None else None,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what an earlier attempt knew."""
        self.scores.set_state(state["scores"])
        self._states = {trial: name for trial, name in state["states"].items() if name != "running"}
        self._configs = state["configs"]
        self._with_outputs = state["with_outputs"]
        self._kept = state["kept"]
        self._returned = state.get("returned", set())
        if self.steps is not None and state.get("steps") is not None:
            self.steps.set_state(state["steps"])

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """At the first step: forget the trials that a restored search has replaced by new ones."""
        if self._seen:
            return
        self._seen = True
        known = {trial.trial_id: trial for trial in trials}
        if self.expected is not None:
            # A failed trial that runs anew has another id by now.
            read_back(self.expected, {*known, *self.end.read_back})
        self._states = {trial_id: state for trial_id, state in self._states.items() if trial_id in known}
        for trial_id in self._states:
            if known[trial_id].status == Trial.PENDING:
                self._states[trial_id] = "pending"
        self.restored = sum(trial.status == Trial.TERMINATED for trial in trials)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the trial as running."""
        self.started.set()
        self._states[trial.trial_id] = "running"
        self._configs.setdefault(trial.trial_id, trial.config)  # one that PBT changed has not run with it yet

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Take a report."""
        self._configs[trial.trial_id] = trial.config  # PBT changes it on the way
        self.scores.add(trial.trial_id, result)
        for those, holds in ((self._stopped, result.get("done")), (self._returned, RETURNED_KEY in result)):
            those.add(trial.trial_id) if holds else those.discard(trial.trial_id)
        if self.steps is not None:
            self.steps.add(trial.trial_id, result, _steps_metrics(result))
        if OUTPUTS_KEY in result:
            self._with_outputs.add(trial.trial_id)
        if self.scores.scope == "last":
            self._best = None  # the best may have become worse: found anew by the next snapshot
        elif self._best is None or self._better(trial.trial_id, self._best):
            self._best = trial.trial_id

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the trial as done, and let go of the worse outputs."""
        # A function that ended by itself is heard of once more after its last report: only then is that one "done".
        # What is stopped is done with its report, or, while it was paused, not at all.
        by_itself = trial.trial_id not in self._stopped and bool((trial.last_result or {}).get("done"))
        ended_well = by_itself or trial.trial_id in self._returned
        self._states[trial.trial_id] = "terminated" if ended_well else "early_stopped"
        if trial.trial_id not in self._with_outputs:
            return
        if any(self.scores.is_superfluous(trial.trial_id, other) for other in self._kept):
            worse = [trial.trial_id]
        else:
            worse = [other for other in self._kept if self.scores.is_superfluous(other, trial.trial_id)]
            self._kept = [*(other for other in self._kept if other not in worse), trial.trial_id]
        if self._remover is not None:
            for trial_id in worse:
                self._remover.remove(trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the trial as failed, and tell it."""
        self._states[trial.trial_id] = "errored"
        self.end.trial_failed(trial.trial_id)
        if self.tell_failure is not None:
            self.tell_failure(trial, False)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell that the trial has failed; it is tried again."""
        if self.tell_failure is not None:
            self.tell_failure(trial, True)

    def seen(self) -> int:
        """Return how many trials have started."""
        return len(self._states)

    def early_stopped(self, trial_id: str) -> bool:
        """Whether a trial was stopped before its function returned."""
        return self._states.get(trial_id) == "early_stopped"

    def statuses(self) -> list[str]:
        """Return what has become of the trials, in the words of `completion`, while the search still runs."""
        return [_STATUS[state] for state in list(self._states.values())]

    def close(self) -> None:
        """The search is over: wait until what was to be removed is gone; what still ran is cut off."""
        if self._remover is not None:
            self._remover.close()
        for trial_id, state in self._states.items():
            if state == "running":
                self._states[trial_id] = "cut_off"

    def snapshot(self) -> dict[str, Any]:
        """Return the counts and the best so far, as fields of NodeProgress."""
        states = list(self._states.values())
        counts = {name: states.count(name) for name in _STATUS if name != "pending"}
        best = self._best or self.scores.best()
        total = self.end.asked
        return {
            "phase": "running",
            "metric": self.scores.metric,
            "mode": "max" if self.scores.sign > 0 else "min",
            "total": total,
            "pending": max(total - sum(counts.values()), 0) if total is not None else 0,
            **counts,
            "best": None
            if best is None
            else {
                "trial_id": best,
                "config": sanitised(self._configs.get(best, {})),
                "metrics": metrics_of(self.scores.result(best)),
            },
        }

    def _better(self, left: str, right: str) -> bool:
        one, two = self.scores.values(left), self.scores.values(right)
        return one is not None and (two is None or one > two)


# The states of a trial, and the status that each is in the table and the record.
_STATUS = {
    "running": CUT_OFF,
    "terminated": FINISHED,
    "early_stopped": EARLY_STOPPED,
    "errored": FAILED,
    "cut_off": CUT_OFF,
    "pending": NOT_BEGUN,
}


def _steps_metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a step, without those that are columns of their own."""
    return {name: value for name, value in reported_in(result).items() if name not in SHOWN}


class _Remover:
    """Removes outputs in a thread of its own: a slow catalog never holds the search up."""

    def __init__(self, outputs: Catalog) -> None:
        self._outputs = outputs
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="raynode-remove", daemon=True)
        self._thread.start()

    def remove(self, trial_id: str) -> None:
        self._queue.put(trial_id)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while (trial_id := self._queue.get()) is not None:
            try:
                self._outputs.delete(f"{self._outputs.prefix_uri}/{trial_id}")
            except CatalogError:
                continue  # the last clean-up of the search tries again


def outputs_in(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the references that a trial's last report carried, by name."""
    text = result.get(OUTPUTS_KEY)
    return dict(json.loads(text)) if text else {}
