"""The search algorithms of Ray Tune, each with its constructor's arguments under Ray's names and Ray's defaults."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from airflow_provider_raynode.config._kinds import ByType, Kind
from airflow_provider_raynode.config._section import Problem
from airflow_provider_raynode.config._values import (
    Fraction,
    NonNegativeInteger,
    Number,
    PositiveInteger,
    Seed,
    Switch,
    Text,
    or_list,
)
from airflow_provider_raynode.config.domains import DOMAINS

_SPACE = "the space is ray_tune.search_space"
_SEED = Field(default=None, description="seed of the algorithm; ray_tune.seed where left out")
_ALL_BUT_GRIDS = frozenset(DOMAINS) - {"grid_search", "constant"}


class Searcher(Kind):
    """Proposes the hyperparameters of each trial."""

    domains: ClassVar[frozenset[str] | None] = None
    """The domains that it takes; None: all. What each means is `meaning.py`'s, and not the library's."""

    seed_argument: ClassVar[str | None] = None
    """The constructor's argument that takes ray_tune.seed."""

    @property
    def runs_every_value(self) -> bool:
        """Whether it goes through all values, so that there must be an end of them."""
        return False

    points_to_evaluate: list[dict[str, Any]] | None = Field(
        default=None, description="hyperparameters of the first trials, one mapping per trial"
    )


class _Measured(Searcher):
    """A search algorithm that learns from the metric."""

    metric: Text | None = Field(default=None, description="as ray_tune.metric, with which it must agree")
    mode: Literal["min", "max"] | None = Field(default=None, description="as ray_tune.mode, with which it must agree")


class BasicVariantGenerator(Searcher):
    """Random and grid search; Ray's default."""

    short_names: ClassVar[tuple[str, ...]] = ("random", "variant_generator", "basic", "grid")
    ray_class: ClassVar[str] = "ray.tune.search.basic_variant:BasicVariantGenerator"
    seed_argument: ClassVar[str | None] = "random_state"

    type: Literal["BasicVariantGenerator"]
    # It does not use them, but a config that changes only the type must stay valid.
    metric: Text | None = Field(default=None, description="as ray_tune.metric, with which it must agree")
    mode: Literal["min", "max"] | None = Field(default=None, description="as ray_tune.mode, with which it must agree")
    max_concurrent: NonNegativeInteger = Field(default=0, description="most trials at a time; 0: no limit")
    constant_grid_search: Switch = Field(
        default=False, description="whether the random values stay the same over a whole grid"
    )
    random_state: Seed | None = _SEED


class OptunaSearch(_Measured):
    """Optuna, by its TPE sampler or another."""

    short_names: ClassVar[tuple[str, ...]] = ("optuna",)
    ray_class: ClassVar[str] = "ray.tune.search.optuna:OptunaSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"optuna": "optuna>=4.0"}
    seed_argument: ClassVar[str | None] = "seed"
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "space": _SPACE,
        "storage": "it is an object of Optuna; the search keeps its own state",
    }

    type: Literal["OptunaSearch"]
    metric: Text | None = Field(
        default=None, description="as ray_tune.metric, with which it must agree", json_schema_extra=or_list
    )
    mode: Literal["min", "max"] | None = Field(
        default=None, description="as ray_tune.mode, with which it must agree", json_schema_extra=or_list
    )
    study_name: Text | None = Field(default=None, description="name of the study")
    sampler: (
        Annotated[Kind, ByType((), "sampler of Optuna", later="airflow_provider_raynode.config.samplers:SAMPLERS")]
        | None
    ) = Field(default=None, description="one of Optuna's samplers, see below; left out: TPESampler")
    seed: Seed | None = _SEED
    evaluated_rewards: list[Number] | None = Field(
        default=None, description="known results of points_to_evaluate, which are then not run"
    )

    @property
    def runs_every_value(self) -> bool:
        """See `Searcher`."""
        return getattr(self.sampler, "type", None) == "BruteForceSampler"

    def problems(self) -> Iterator[Problem]:
        """Yield rewards that do not belong to points, and a second seed."""
        yield from _rewards(self.evaluated_rewards, self.points_to_evaluate)
        own = getattr(self.sampler, "seed", None)
        if own is not None and self.seed is not None and own != self.seed:
            yield ("sampler", "seed"), f"{own} contradicts seed ({self.seed}): say it once"


class HyperOptSearch(_Measured):
    """HyperOpt's tree of Parzen estimators."""

    short_names: ClassVar[tuple[str, ...]] = ("hyperopt",)
    ray_class: ClassVar[str] = "ray.tune.search.hyperopt:HyperOptSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"hyperopt": "hyperopt>=0.2.7"}
    seed_argument: ClassVar[str | None] = "random_state_seed"
    not_in_yaml: ClassVar[Mapping[str, str]] = {"space": _SPACE}

    type: Literal["HyperOptSearch"]
    n_initial_points: NonNegativeInteger = Field(default=20, description="random trials before the model is used")
    random_state_seed: Seed | None = _SEED
    gamma: Fraction = Field(default=0.25, description="share of trials that count as good")


class TuneBOHB(_Measured):
    """BOHB: Bayesian optimisation with HyperBand; works with the scheduler HyperBandForBOHB only."""

    short_names: ClassVar[tuple[str, ...]] = ("bohb",)
    ray_class: ClassVar[str] = "ray.tune.search.bohb:TuneBOHB"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"hpbandster": "hpbandster>=0.7.4", "ConfigSpace": "ConfigSpace>=1.2"}
    seed_argument: ClassVar[str | None] = "seed"
    not_in_yaml: ClassVar[Mapping[str, str]] = {"space": _SPACE}

    type: Literal["TuneBOHB"]
    bohb_config: dict[str, Any] | None = Field(default=None, description="arguments of HpBandSter's BOHB")
    seed: Seed | None = _SEED
    max_concurrent: NonNegativeInteger = Field(default=0, description="most trials at a time; 0: no limit")


class NevergradSearch(_Measured):
    """Nevergrad's derivative-free optimisers."""

    short_names: ClassVar[tuple[str, ...]] = ("nevergrad",)
    ray_class: ClassVar[str] = "ray.tune.search.nevergrad:NevergradSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"nevergrad": "nevergrad>=1.0.3"}
    not_in_yaml: ClassVar[Mapping[str, str]] = {"space": _SPACE}

    type: Literal["NevergradSearch"]
    optimizer: Text = Field(description="name in Nevergrad's registry, e.g. OnePlusOne, NGOpt, CMA, PSO, TwoPointsDE")
    optimizer_kwargs: dict[str, Any] | None = Field(default=None, description="its arguments, e.g. {budget: 100}")


class BayesOptSearch(_Measured):
    """Gaussian processes by the package bayesian-optimization."""

    short_names: ClassVar[tuple[str, ...]] = ("bayesopt",)
    ray_class: ClassVar[str] = "ray.tune.search.bayesopt:BayesOptSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"bayes_opt": "bayesian-optimization>=1.4.3,<2"}
    seed_argument: ClassVar[str | None] = "random_state"
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "space": _SPACE,
        "analysis": "it is an object of Ray: use points_to_evaluate",
    }

    type: Literal["BayesOptSearch"]
    utility_kwargs: dict[str, Any] | None = Field(
        default=None, description="arguments of its utility function: kind, kappa, xi"
    )
    random_state: Seed | None = Field(
        default=None, description="seed of the algorithm; ray_tune.seed where left out, else Ray's own 42"
    )
    random_search_steps: NonNegativeInteger = Field(default=10, description="random trials before the model is used")
    verbose: NonNegativeInteger = Field(default=0, description="how much the library logs")
    patience: PositiveInteger = Field(default=5, description="the search ends when a point was proposed so often")
    skip_duplicate: Switch = Field(default=True, description="whether to skip points that were run before")
    repeat_float_precision: NonNegativeInteger = Field(
        default=5, description="digits by which two points count as the same"
    )


class ZOOptSearch(_Measured):
    """ZOOpt's sequential randomised coordinate shrinking."""

    short_names: ClassVar[tuple[str, ...]] = ("zoopt",)
    ray_class: ClassVar[str] = "ray.tune.search.zoopt:ZOOptSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"zoopt": "zoopt>=0.4.2"}
    not_in_yaml: ClassVar[Mapping[str, str]] = {"dim_dict": _SPACE}

    type: Literal["ZOOptSearch"]
    algo: Literal["asracos", "sracos"] = Field(default="asracos", description="its algorithm")
    budget: PositiveInteger = Field(description="number of trials: as ray_tune.num_samples, or more")
    parallel_num: PositiveInteger = Field(default=1, description="trials at a time")


class AxSearch(_Measured):
    """Bayesian optimisation by Ax, with PyTorch."""

    short_names: ClassVar[tuple[str, ...]] = ("ax",)
    ray_class: ClassVar[str] = "ray.tune.search.ax:AxSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"ax": "ax-platform>=1.0,<1.3"}
    # Not in the signature: AxSearch hands it on to AxClient.
    seed_argument: ClassVar[str | None] = "random_seed"
    not_in_yaml: ClassVar[Mapping[str, str]] = {"space": _SPACE, "ax_client": "it is an object of Ax"}

    type: Literal["AxSearch"]
    parameter_constraints: list[Text] | None = Field(default=None, description="such as `x3 >= x4`")
    outcome_constraints: list[Text] | None = Field(default=None, description="such as `latency <= 3`")
    random_seed: Seed | None = _SEED


class HEBOSearch(_Measured):
    """Heteroscedastic evolutionary Bayesian optimisation."""

    short_names: ClassVar[tuple[str, ...]] = ("hebo",)
    ray_class: ClassVar[str] = "ray.tune.search.hebo:HEBOSearch"
    domains: ClassVar[frozenset[str] | None] = _ALL_BUT_GRIDS
    libraries: ClassVar[Mapping[str, str]] = {"hebo": "HEBO>=0.2.0"}
    seed_argument: ClassVar[str | None] = "random_state_seed"
    not_in_yaml: ClassVar[Mapping[str, str]] = {"space": _SPACE}

    type: Literal["HEBOSearch"]
    evaluated_rewards: list[Number] | None = Field(
        default=None, description="known results of points_to_evaluate, which are then not run"
    )
    random_state_seed: Seed | None = _SEED
    max_concurrent: PositiveInteger = Field(default=8, description="most trials at a time")

    def problems(self) -> Iterator[Problem]:
        """Yield rewards that do not belong to points."""
        yield from _rewards(self.evaluated_rewards, self.points_to_evaluate)


def _rewards(rewards: list[float] | None, points: list[dict[str, Any]] | None) -> Iterator[Problem]:
    if rewards is not None and len(rewards) != len(points or ()):
        yield ("evaluated_rewards",), f"has {len(rewards)} entries, points_to_evaluate has {len(points or ())}"


SEARCHERS: tuple[type[Searcher], ...] = (
    BasicVariantGenerator,
    OptunaSearch,
    HyperOptSearch,
    TuneBOHB,
    NevergradSearch,
    BayesOptSearch,
    ZOOptSearch,
    AxSearch,
    HEBOSearch,
)
"""Every search algorithm of Ray 2.60."""

AnySearcher = Annotated[Searcher, ByType(SEARCHERS, "search algorithm")]
