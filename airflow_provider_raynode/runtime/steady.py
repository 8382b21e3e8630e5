"""A search algorithm that hears of every trial's end, also of one that failed, and never waits for one that is gone.

Ray hands a failed trial on as "complete, with an error", and most of its search algorithms only forget it: one that
counts results before it goes on (BayesOpt, ZOOpt, Ax), or that answers one point at a time (some of Nevergrad's), then
waits for ever. Each is told of a failure in the words that its library has for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from ray.tune.search import Searcher

log = logging.getLogger(__name__)

# What a library is told of a trial that failed, where it takes only numbers: nothing is worse.
_WORST = 1e30


class SteadySearcher(Searcher):
    """Another searcher, shielded from trials that failed, that report no finite metric, or that it never proposed.

    :param searcher: the search algorithm, or another wrapper around it.
    """

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher
        self.open_trials: set[str] = set()
        self._waiting: set[str] | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Hand on metric, mode and search space."""
        done = bool(self.searcher.set_search_properties(metric, mode, config, **spec))
        self._metric, self._mode = self.searcher.metric, self.searcher.mode
        optimizer = getattr(innermost(self.searcher), "_nevergrad_opt", None)
        if optimizer is not None and optimizer.num_ask == 0:
            optimizer.enable_pickling()  # some of Nevergrad's refuse to be saved otherwise
        return done

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Hand on the limit."""
        return bool(self.searcher.set_max_concurrency(max_concurrent))

    def suggest(self, trial_id: str) -> Any:
        """Return the next point; None: not now."""
        library = innermost(self.searcher)
        prepare = _PREPARE.get(type(library).__name__)
        if self.open_trials and self.open_trials == self._waiting:
            return None  # it knows no more than when it was asked last
        if prepare is not None and not prepare(library, len(self.open_trials)):
            return None
        suggested: Any = self.searcher.suggest(trial_id)
        # BayesOpt counts each proposal of a known point, and ends the search after some: it is not asked in vain.
        self._waiting = set(self.open_trials) if suggested is None and type(library).__name__ in _COUNTS else None
        if suggested is not None and suggested != Searcher.FINISHED:
            self.open_trials.add(trial_id)
        return suggested

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand on a step of a trial that the algorithm proposed, where it has a finite metric."""
        if trial_id in self.open_trials and self._is_finite(result):
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand on the end of a trial that the algorithm proposed.

        A retry runs a failed trial anew under an id of its own: of that, the algorithm knows nothing.
        """
        if trial_id not in self.open_trials:
            return
        self.open_trials.discard(trial_id)
        if not error and result and self._is_finite(result):
            self.searcher.on_trial_complete(trial_id, result=result, error=False)
            return
        library = innermost(self.searcher)
        tell = _TELL_FAILURE.get(type(library).__name__)
        if tell is not None:
            tell(library, trial_id)
        self.searcher.on_trial_complete(trial_id, result=None, error=True)

    def _is_finite(self, result: Mapping[str, Any]) -> bool:
        # Ray's annotation knows of one metric; OptunaSearch has a list of several.
        metric: Any = self.metric
        values = [result.get(name) for name in ([metric] if isinstance(metric, str) else metric or ())]
        return all(isinstance(value, int | float) and math.isfinite(value) for value in values)

    def on_pause(self, trial_id: str) -> None:
        """BOHB: its scheduler has paused a trial."""
        if trial_id in self.open_trials:
            cast("Any", self.searcher).on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """BOHB: its scheduler lets a trial go on."""
        if trial_id in self.open_trials:
            cast("Any", self.searcher).on_unpause(trial_id)

    def get_state(self) -> dict[str, Any]:
        """Return what a later attempt has to know beside the searcher's own state."""
        return {"open_trials": set(self.open_trials), "metric": self._metric, "mode": self._mode}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what an earlier attempt knew."""
        self.open_trials, self._waiting = set(state["open_trials"]), None
        self._metric, self._mode = state["metric"], state["mode"]

    def save(self, checkpoint_path: str) -> None:
        """Save the searcher."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the searcher."""
        self.searcher.restore(checkpoint_path)


# Search algorithms that count how often they were asked.
_COUNTS = frozenset({"BayesOptSearch"})


def innermost(searcher: Any) -> Any:
    """Return the search algorithm itself, below what is wrapped around it."""
    while hasattr(searcher, "searcher"):
        searcher = searcher.searcher
    return searcher


def _bayesopt_failed(library: Any, trial_id: str) -> None:
    """Of its random trials, it proposes another instead of waiting for this one's result; later, nothing was worse."""
    params = library._live_trial_mapping.get(trial_id)
    if params is None:
        return
    if len(library._buffered_trial_results) < library.random_search_trials:
        library._total_random_search_trials = max(library._total_random_search_trials - 1, 0)
    elif len(library.optimizer.space):
        with suppress(Exception):  # it has a value of this very point
            library.optimizer.register(params, min(library.optimizer.space.target))


def _nevergrad_failed(library: Any, trial_id: str) -> None:
    """Its sequential optimizers answer one point at a time: the next is asked for once this one has a value."""
    candidate = library._live_trial_mapping.get(trial_id)
    if candidate is not None:
        library._nevergrad_opt.tell(candidate, _WORST)


def _zoopt_failed(library: Any, trial_id: str) -> None:
    """It counts results before it leaves its first phase, and trials at a time after it."""
    solution = library.solution_dict.get(str(trial_id))
    if solution is not None:
        library.optimizer.complete(solution, _WORST)


def _ax_failed(library: Any, trial_id: str) -> None:
    """Ax takes a trial for running, and waits for its data, until it is told that it failed."""
    index = library._live_trial_mapping.get(trial_id)
    if index is not None:
        with suppress(Exception):  # it has no result either way
            library._ax.log_trial_failure(trial_index=index)


_TELL_FAILURE: Mapping[str, Callable[[Any, str], None]] = {
    "BayesOptSearch": _bayesopt_failed,
    "NevergradSearch": _nevergrad_failed,
    "ZOOptSearch": _zoopt_failed,
    "AxSearch": _ax_failed,
}


def _zoopt_ready(library: Any, running: int) -> bool:
    """Open the gate that it closes after its first phase, where all results of that phase are there already.

    With one trial at a time, the last of them comes before the gate is closed, and nothing would open it.
    """
    optimizer = library.optimizer
    if optimizer is not None and optimizer.semaphore == 0 and not running:
        optimizer.semaphore = 1
    return True


def _nevergrad_ready(library: Any, running: int) -> bool:
    """A sequential optimizer has one point at a time: asked for a second, it would halt the search's own loop."""
    return not (running and getattr(library._nevergrad_opt, "no_parallelization", False))


_PREPARE: Mapping[str, Callable[[Any, int], bool]] = {
    "ZOOptSearch": _zoopt_ready,
    "NevergradSearch": _nevergrad_ready,
}
