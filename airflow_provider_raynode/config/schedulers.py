"""The schedulers of Ray Tune, each with its constructor's arguments under Ray's names and with Ray's defaults.

What differs from Ray: `time_attr` is `training_iteration` everywhere (Ray's PBT, PB2 and median rule count seconds).
`perturbation_interval` and the median rule's `grace_period`, 60 seconds in Ray, are 5 reports and 1 report: 60 reports
would quietly turn the scheduler off in most searches.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from airflow_provider_raynode.config._kinds import ByType, Kind
from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import (
    AtMostHalf,
    Fraction,
    Integer,
    NonNegativeInteger,
    NonNegativeNumber,
    NumberAboveOne,
    PositiveInteger,
    PositiveNumber,
    Switch,
    Text,
)
from airflow_provider_raynode.config.search_space import SearchSpaceSchema

_CALLABLE = "it is a function, which a config file cannot hold"


class Scheduler(Kind):
    """Decides during the search which trials go on, pause, stop or change."""


class Measured(Scheduler):
    """A scheduler that compares trials by the search's metric."""

    time_attr: Text = Field(
        default="training_iteration",
        description="the reported value that counts a trial's time: in each report, a number that grows",
    )
    metric: Text | None = Field(default=None, description="as ray_tune.metric, with which it must agree")
    mode: Literal["min", "max"] | None = Field(default=None, description="as ray_tune.mode, with which it must agree")


class FIFOScheduler(Scheduler):
    """Runs every trial to its end, in order; Ray's default."""

    short_names: ClassVar[tuple[str, ...]] = ("fifo",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:FIFOScheduler"

    type: Literal["FIFOScheduler"]


class ASHAScheduler(Measured):
    """Asynchronous successive halving: stops the worst trials at each rung."""

    short_names: ClassVar[tuple[str, ...]] = ("AsyncHyperBandScheduler", "asha", "async_hyperband", "asynchyperband")
    ray_class: ClassVar[str] = "ray.tune.schedulers:ASHAScheduler"

    type: Literal["ASHAScheduler"]
    max_t: PositiveInteger = Field(default=100, description="a trial is stopped at this time, in units of time_attr")
    grace_period: PositiveInteger = Field(default=1, description="no trial is stopped before this time")
    reduction_factor: NumberAboveOne = Field(default=4.0, description="one in so many trials goes on at each rung")
    brackets: PositiveInteger = Field(default=1, description="number of brackets, each with a later first rung")
    stop_last_trials: Switch = Field(default=True, description="whether to stop trials that have reached max_t")

    def problems(self) -> Iterator[Problem]:
        """Yield a grace period after the end."""
        if self.grace_period > self.max_t:
            yield ("grace_period",), f"{self.grace_period} is above max_t ({self.max_t})"


class _HyperBand(Measured):
    max_t: PositiveInteger = Field(default=81, description="a trial is stopped at this time, in units of time_attr")
    reduction_factor: NumberAboveOne = Field(default=3.0, description="one in so many trials goes on at each halving")
    stop_last_trials: Switch = Field(default=True, description="whether to stop trials that have reached max_t")


class HyperBandScheduler(_HyperBand):
    """HyperBand: pauses trials at each halving until the bracket is complete; the function should checkpoint."""

    short_names: ClassVar[tuple[str, ...]] = ("hyperband",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:HyperBandScheduler"

    type: Literal["HyperBandScheduler"]


class HyperBandForBOHB(_HyperBand):
    """HyperBand for the search algorithm TuneBOHB, which works with this scheduler only."""

    short_names: ClassVar[tuple[str, ...]] = ("hb_bohb",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:HyperBandForBOHB"

    type: Literal["HyperBandForBOHB"]


class MedianStoppingRule(Measured):
    """Stops a trial whose best result is below the median of the other trials' running averages."""

    short_names: ClassVar[tuple[str, ...]] = ("median_stopping_rule", "medianstopping", "median")
    ray_class: ClassVar[str] = "ray.tune.schedulers:MedianStoppingRule"

    type: Literal["MedianStoppingRule"]
    grace_period: NonNegativeNumber = Field(
        default=1.0, description="no trial is stopped before this time (Ray's default, 60, counts seconds)"
    )
    min_samples_required: PositiveInteger = Field(default=3, description="trials needed to compute a median")
    min_time_slice: NonNegativeInteger = Field(default=0, description="least time between two decisions on a trial")
    hard_stop: Switch = Field(default=True, description="whether to stop a trial, or only to pause it")


class PopulationBasedTraining(Measured):
    """PBT: the worst trials continue from copies of the best with changed hyperparameters; needs checkpoints."""

    short_names: ClassVar[tuple[str, ...]] = ("pbt",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:PopulationBasedTraining"
    not_in_yaml: ClassVar[Mapping[str, str]] = {"custom_explore_fn": _CALLABLE}

    type: Literal["PopulationBasedTraining"]
    perturbation_interval: PositiveNumber = Field(
        default=5.0, description="time between two changes of a trial (Ray's default, 60, counts seconds)"
    )
    burn_in_period: NonNegativeNumber = Field(default=0.0, description="no trial is changed before this time")
    hyperparam_mutations: Annotated[dict[str, Any], SearchSpaceSchema(lists_are_choices=True)] = Field(
        min_length=1, description="what to change: a domain or a list of values per hyperparameter, nested as the space"
    )
    quantile_fraction: AtMostHalf = Field(default=0.25, description="share of trials that are best, and that are worst")
    resample_probability: Fraction = Field(default=0.25, description="chance to sample anew in place of a small change")
    perturbation_factors: tuple[PositiveNumber, PositiveNumber] = Field(
        default=(1.2, 0.8), description="factors of a small change"
    )
    log_config: Switch = Field(default=True, description="whether to log each change of a trial's hyperparameters")
    require_attrs: Switch = Field(
        default=True, description="whether a report without time_attr or metric fails the search"
    )
    synch: Switch = Field(default=False, description="whether all trials wait for each other before a change")


class PopulationBasedTrainingReplay(Scheduler):
    """Repeats the schedule of hyperparameters of one trial of an earlier PBT, in one trial."""

    short_names: ClassVar[tuple[str, ...]] = ("pbt_replay",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:PopulationBasedTrainingReplay"

    type: Literal["PopulationBasedTrainingReplay"]
    policy_file: Text = Field(
        description="the pbt_policy_….txt file: sought beside the config file or the DAG file, else a path where the "
        "driver runs, as in its working_dir"
    )


class PB2(Measured):
    """PBT that chooses the changes with a Gaussian process; needs scikit-learn and checkpoints."""

    short_names: ClassVar[tuple[str, ...]] = ("pb2",)
    ray_class: ClassVar[str] = "ray.tune.schedulers.pb2:PB2"
    libraries: ClassVar[Mapping[str, str]] = {"sklearn": "scikit-learn>=1.5"}
    not_in_yaml: ClassVar[Mapping[str, str]] = {"custom_explore_fn": _CALLABLE}

    type: Literal["PB2"]
    perturbation_interval: PositiveNumber = Field(
        default=5.0, description="time between two changes of a trial (Ray's default, 60, counts seconds)"
    )
    hyperparam_bounds: dict[str, Any] = Field(
        min_length=1, description="what to change: [low, high] per hyperparameter, nested as the search space"
    )
    quantile_fraction: AtMostHalf = Field(default=0.25, description="share of trials that are best, and that are worst")
    log_config: Switch = Field(default=True, description="whether to log each change of a trial's hyperparameters")
    require_attrs: Switch = Field(
        default=True, description="whether a report without time_attr or metric fails the search"
    )
    synch: Switch = Field(default=False, description="whether all trials wait for each other before a change")

    def problems(self) -> Iterator[Problem]:
        """Yield bounds that are no [low, high]."""
        yield from _bounds(self.hyperparam_bounds, ("hyperparam_bounds",))


def _bounds(bounds: Mapping[str, Any], loc: tuple[str, ...]) -> Iterator[Problem]:
    for name, value in bounds.items():
        where = (*loc, name)
        if isinstance(value, dict):
            yield from _bounds(value, where)
        elif not isinstance(value, list) or len(value) != 2 or not all(type(each) in (int, float) for each in value):
            yield where, f"{value!r} is not [low, high] with two numbers"
        elif value[0] >= value[1]:
            yield where, f"{value[0]} is not below {value[1]}: [low, high]"


class ResourceAllocation(Section):
    """How ResourceChangingScheduler gives free resources to running trials: Ray's DistributeResources."""

    type: Literal["DistributeResources", "DistributeResourcesToTopJob"] = Field(
        default="DistributeResources", description="to all trials alike, or to the best one"
    )
    add_bundles: Switch = Field(default=False, description="whether to add bundles in place of enlarging the one")
    increase_by: dict[Text, PositiveNumber] | None = Field(
        default=None, description="unit of resources that a trial grows by, e.g. {CPU: 1}"
    )
    increase_by_times: Integer = Field(default=-1, description="most units that a trial grows by; -1: no limit")
    reserve_resources: dict[Text, NonNegativeNumber] | None = Field(
        default=None, description="resources that are not given away, e.g. {CPU: 1}"
    )


_PLAIN = (
    FIFOScheduler,
    ASHAScheduler,
    HyperBandScheduler,
    HyperBandForBOHB,
    MedianStoppingRule,
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
    PB2,
)


class ResourceChangingScheduler(Scheduler):
    """Gives free resources to running trials; works with `reuse_actors: false` only, and needs checkpoints."""

    short_names: ClassVar[tuple[str, ...]] = ("resource_changing",)
    ray_class: ClassVar[str] = "ray.tune.schedulers:ResourceChangingScheduler"

    type: Literal["ResourceChangingScheduler"]
    base_scheduler: Annotated[Scheduler, ByType(_PLAIN, "scheduler")] | None = Field(
        default=None, description="the scheduler that decides on the trials; FIFOScheduler where left out"
    )
    resources_allocation_function: ResourceAllocation = Field(
        default=ResourceAllocation(), description="one of Ray's two ways, with its arguments"
    )


SCHEDULERS: tuple[type[Scheduler], ...] = (*_PLAIN, ResourceChangingScheduler)
"""Every scheduler of Ray 2.60."""

AnyScheduler = Annotated[
    Scheduler, ByType(SCHEDULERS, "scheduler", later="airflow_provider_raynode.config.pruners:PRUNERS")
]
