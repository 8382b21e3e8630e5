"""When a training stops by itself: at a bound of `ray_train.stop`, or once its time budget is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from airflow_provider_raynode.config.train import RayTrain
from airflow_provider_raynode.runtime.bounds import reached


class Ending(NamedTuple):
    """Why a training stops before its function returns."""

    kind: Literal["stop_rule", "time_budget"]
    reason: str


@dataclass(frozen=True)
class Stop:
    """What ends a training at a report.

    :param bounds: value by name, of a metric or `training_iteration`, the number of the report.
    :param falling: the names whose bound is reached from above.
    :param budget_s: seconds from the first start of the function.
    :param spent_s: what earlier starts have spent of it.
    """

    bounds: Mapping[str, float]
    falling: frozenset[str] = frozenset()
    budget_s: float | None = None
    spent_s: float = 0.0

    @classmethod
    def of(cls, training: RayTrain) -> Stop:
        """Return what the section asks for."""
        best = training.best_by
        falling = frozenset([best[0]]) if best is not None and best[1] == "min" else frozenset[str]()
        return cls(dict(training.stop or {}), falling, training.time_budget_s)

    def __bool__(self) -> bool:
        return bool(self.bounds) or self.budget_s is not None

    def reached(self, metrics: Mapping[str, Any], reports: int, elapsed_s: float) -> Ending | None:
        """Return why the training ends with this report, None where it goes on."""
        values = {"training_iteration": reports, **metrics}
        for name, bound in self.bounds.items():
            falls = name in self.falling
            if reached(values.get(name), bound, falling=falls):
                sign = "<=" if falls else ">="
                return Ending("stop_rule", f"{name} = {values[name]:g} {sign} {bound:g} (stop) at report {reports}")
        if self.budget_s is not None and self.spent_s + elapsed_s >= self.budget_s:
            return Ending("time_budget", f"time_budget_s ({self.budget_s:g} s) was spent at report {reports}")
        return None
