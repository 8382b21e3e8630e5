"""A pruner of Optuna as a scheduler of Ray Tune."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class PrunerScheduler(FIFOScheduler):
    """Runs the trials in order, and stops one where the pruner says so.

    The pruner sees a study of Optuna that mirrors the search: a trial of Optuna per trial of Tune, with each reported
    metric at its step. Who proposes the hyperparameters does not matter to it.

    In a search that is gone on with, the study begins anew: trials that had ended are not in it.

    :param pruner: the pruner, an object of Optuna.
    :param time_attr: the reported value that counts the steps.
    """

    _supports_buffered_results = False

    def __init__(self, pruner: Any, time_attr: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pruner = pruner
        self._time_attr = time_attr
        self._mode: str | None = None
        self._study: Any = None
        self._mirrored: dict[str, Any] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take the metric and its direction from the search."""
        if not super().set_search_properties(metric, mode, **spec):
            return False
        self._mode = mode
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Mirror the trial."""
        self._mirrored[trial.trial_id] = self._own_study().ask()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Report a step to the pruner, and stop the trial where it says so."""
        from optuna.trial import TrialState

        mirrored = self._mirrored.get(trial.trial_id)
        if mirrored is None or self._report(mirrored, result) is None or not mirrored.should_prune():
            return str(TrialScheduler.CONTINUE)
        self._study.tell(mirrored, state=TrialState.PRUNED)
        del self._mirrored[trial.trial_id]
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Close the mirrored trial with the last value."""
        self._tell(trial, _number((result or {}).get(self._metric or "")))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Close the mirrored trial as failed."""
        self._tell(trial, None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Close the mirrored trial as failed: it was taken out before it ran."""
        self._tell(trial, None)

    def debug_string(self) -> str:
        """Return what Tune prints of the scheduler."""
        return f"Using {type(self._pruner).__name__} of Optuna."

    def _report(self, mirrored: Any, result: dict[str, Any]) -> float | None:
        """Report one step; None where the report has no metric or no step."""
        value, step = _number(result.get(self._metric or "")), _number(result.get(self._time_attr))
        if value is None or step is None or not math.isfinite(step):
            return None
        mirrored.report(value, int(step))
        return value

    def _tell(self, trial: Trial, value: float | None) -> None:
        from optuna.trial import TrialState

        mirrored = self._mirrored.pop(trial.trial_id, None)
        if mirrored is None:
            return
        if value is None or math.isnan(value):
            self._study.tell(mirrored, state=TrialState.FAIL)
        else:
            self._study.tell(mirrored, value)

    def _own_study(self) -> Any:
        # Made when the search runs: Tune pickles the scheduler before.
        if self._study is None:
            import optuna

            self._study = optuna.create_study(
                direction="minimize" if self._mode == "min" else "maximize",
                pruner=self._pruner,
                sampler=optuna.samplers.RandomSampler(),
            )
        return self._study


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
