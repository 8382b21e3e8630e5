"""The pruners of Optuna as schedulers: each stops trials by its own rule, whatever proposes them.

The arguments are those of Optuna's constructors under Optuna's names; `time_attr`, `metric` and `mode` are those of
every scheduler here. A step of Optuna is a report's `time_attr`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from airflow_provider_raynode.config._kinds import ByType
from airflow_provider_raynode.config._section import Problem
from airflow_provider_raynode.config._values import (
    CountOrAuto,
    Fraction,
    IntegerAboveOne,
    NonNegativeInteger,
    NonNegativeNumber,
    Number,
    Percentage,
    PositiveInteger,
)
from airflow_provider_raynode.config.schedulers import Measured

_WARMUP = Field(default=0, description="no trial is stopped before this step")
_INTERVAL = Field(default=1, description="steps between two decisions on a trial")
_STARTUP = Field(default=5, description="trials that must have ended before one is stopped")
_LEAST = Field(default=1, description="trials with a value at the step that a decision needs")
_BOOTSTRAP = Field(default=0, description="trials of a rung that must have reported before one is stopped")


class Pruner(Measured):
    """A pruner of Optuna as a scheduler."""

    libraries: ClassVar[Mapping[str, str]] = {"optuna": "optuna>=4.0"}


class MedianPruner(Pruner):
    """Stops a trial whose best value is worse than the median of the others at the same step."""

    ray_class: ClassVar[str] = "optuna.pruners:MedianPruner"

    type: Literal["MedianPruner"]
    n_startup_trials: NonNegativeInteger = _STARTUP
    n_warmup_steps: NonNegativeInteger = _WARMUP
    interval_steps: PositiveInteger = _INTERVAL
    n_min_trials: PositiveInteger = _LEAST


class PercentilePruner(Pruner):
    """Stops a trial whose best value is not in the best percentile of the others at the same step."""

    ray_class: ClassVar[str] = "optuna.pruners:PercentilePruner"

    type: Literal["PercentilePruner"]
    percentile: Percentage = Field(description="share of trials that go on, in percent")
    n_startup_trials: NonNegativeInteger = _STARTUP
    n_warmup_steps: NonNegativeInteger = _WARMUP
    interval_steps: PositiveInteger = _INTERVAL
    n_min_trials: PositiveInteger = _LEAST


class SuccessiveHalvingPruner(Pruner):
    """Asynchronous successive halving, as Optuna does it."""

    ray_class: ClassVar[str] = "optuna.pruners:SuccessiveHalvingPruner"

    type: Literal["SuccessiveHalvingPruner"]
    min_resource: CountOrAuto = Field(
        default="auto", description="steps before the first decision; auto: by the first trials"
    )
    reduction_factor: IntegerAboveOne = Field(default=4, description="one in so many trials goes on at each rung")
    min_early_stopping_rate: NonNegativeInteger = Field(default=0, description="rungs that are left out")
    bootstrap_count: NonNegativeInteger = _BOOTSTRAP

    def problems(self) -> Iterator[Problem]:
        """Yield what Optuna refuses to have together."""
        if self.bootstrap_count and self.min_resource == "auto":
            yield ("bootstrap_count",), f"{self.bootstrap_count} needs a number as min_resource, not auto"


class HyperbandPruner(Pruner):
    """Hyperband, as Optuna does it: several brackets of successive halving."""

    ray_class: ClassVar[str] = "optuna.pruners:HyperbandPruner"

    type: Literal["HyperbandPruner"]
    min_resource: PositiveInteger = Field(default=1, description="steps of the shortest trial")
    max_resource: CountOrAuto = Field(
        default="auto", description="steps of the longest trial; auto: by the first trials that end"
    )
    reduction_factor: IntegerAboveOne = Field(default=3, description="one in so many trials goes on at each rung")
    bootstrap_count: NonNegativeInteger = _BOOTSTRAP

    def problems(self) -> Iterator[Problem]:
        """Yield what Optuna refuses to have together."""
        if self.max_resource == "auto":
            if self.bootstrap_count:
                yield ("bootstrap_count",), f"{self.bootstrap_count} needs a number as max_resource, not auto"
        elif self.max_resource < self.min_resource:
            yield ("max_resource",), f"{self.max_resource} is below min_resource ({self.min_resource})"


class ThresholdPruner(Pruner):
    """Stops a trial whose value leaves the bounds, or is NaN."""

    ray_class: ClassVar[str] = "optuna.pruners:ThresholdPruner"

    type: Literal["ThresholdPruner"]
    lower: Number | None = Field(default=None, description="a trial below it is stopped")
    upper: Number | None = Field(default=None, description="a trial above it is stopped")
    n_warmup_steps: NonNegativeInteger = _WARMUP
    interval_steps: PositiveInteger = _INTERVAL

    def problems(self) -> Iterator[Problem]:
        """Yield a rule without a bound, or with bounds that leave nothing."""
        if self.lower is None and self.upper is None:
            yield ("lower",), "is missing, and so is upper: one of them at least"
        elif self.lower is not None and self.upper is not None and self.lower > self.upper:
            yield ("lower",), f"{self.lower:g} is above upper ({self.upper:g})"


class WilcoxonPruner(Pruner):
    """Stops a trial that is worse than the best one by Wilcoxon's signed-rank test over equal steps; needs SciPy."""

    ray_class: ClassVar[str] = "optuna.pruners:WilcoxonPruner"
    libraries: ClassVar[Mapping[str, str]] = {**Pruner.libraries, "scipy": "scipy"}

    type: Literal["WilcoxonPruner"]
    p_threshold: Fraction = Field(default=0.1, description="the p-value below which a trial is stopped")
    n_startup_steps: NonNegativeInteger = Field(default=2, description="steps of a trial before the first decision")


_PLAIN = (MedianPruner, PercentilePruner, SuccessiveHalvingPruner, HyperbandPruner, ThresholdPruner, WilcoxonPruner)


class PatientPruner(Pruner):
    """Stops a trial, or lets another pruner decide, once its value has not improved for some steps."""

    ray_class: ClassVar[str] = "optuna.pruners:PatientPruner"

    type: Literal["PatientPruner"]
    wrapped_pruner: Annotated[Pruner, ByType(_PLAIN, "pruner of Optuna")] | None = Field(
        default=None, description="the pruner that then decides; left out: the trial is stopped"
    )
    patience: NonNegativeInteger = Field(description="steps without an improvement that a trial may have")
    min_delta: NonNegativeNumber = Field(default=0.0, description="a smaller improvement does not count")

    def problems(self) -> Iterator[Problem]:
        """Yield what the wrapped pruner does not decide."""
        given = set() if self.wrapped_pruner is None else self.wrapped_pruner.model_fields_set
        for name in sorted({"time_attr", "metric", "mode"} & given):
            yield ("wrapped_pruner", name), "is that of the PatientPruner: say it one level up"


PRUNERS: tuple[type[Pruner], ...] = (*_PLAIN, PatientPruner)
"""The pruners of Optuna."""
