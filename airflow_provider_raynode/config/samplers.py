"""The samplers of Optuna, by which OptunaSearch proposes, each with its constructor's arguments under Optuna's names.

Arguments that are functions or objects of Optuna cannot stand in a file and are left at Optuna's defaults.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from airflow_provider_raynode.config._kinds import Kind
from airflow_provider_raynode.config._section import Problem
from airflow_provider_raynode.config._values import (
    Fraction,
    IntegerAboveOne,
    NonNegativeInteger,
    PositiveInteger,
    PositiveNumber,
    Seed,
    Switch,
)

_FUNCTION = "it is a function, which a config file cannot hold"
_OBJECT = "it is an object of Optuna: its default is used"
_NO_WARNING = Field(
    default=True, description="whether to warn of a hyperparameter that is sampled apart from the others"
)
_SEED = Field(default=None, description="seed of the sampler; that of the search where left out")


class Sampler(Kind):
    """Proposes the hyperparameters of a trial in Optuna."""

    several_metrics: ClassVar[bool] = True
    """Whether it can weigh several metrics against each other."""

    seed: Seed | None = _SEED


class TPESampler(Sampler):
    """A tree of Parzen estimators; the default."""

    short_names: ClassVar[tuple[str, ...]] = ("tpe",)
    ray_class: ClassVar[str] = "optuna.samplers:TPESampler"
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "gamma": _FUNCTION,
        "weights": _FUNCTION,
        "constraints_func": _FUNCTION,
    }

    type: Literal["TPESampler"]
    n_startup_trials: NonNegativeInteger = Field(default=10, description="random trials before the model is used")
    n_ei_candidates: PositiveInteger = Field(default=24, description="candidates for a proposal")
    multivariate: Switch = Field(default=False, description="whether hyperparameters are proposed together")
    group: Switch = Field(
        default=False, description="with multivariate: whether those that stand in the same trials are one group"
    )
    constant_liar: Switch = Field(
        default=True, description="whether running trials count as bad ones, so that no two are alike"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a group without what it is a part of."""
        if self.group and not self.multivariate:
            yield ("group",), "true needs multivariate: true"


class RandomSampler(Sampler):
    """Independent random values."""

    ray_class: ClassVar[str] = "optuna.samplers:RandomSampler"

    type: Literal["RandomSampler"]


class CmaEsSampler(Sampler):
    """Covariance matrix adaptation: for numbers; a choice is sampled apart at random."""

    short_names: ClassVar[tuple[str, ...]] = ("cmaes", "cma")
    ray_class: ClassVar[str] = "optuna.samplers:CmaEsSampler"
    libraries: ClassVar[Mapping[str, str]] = {"cmaes": "cmaes>=0.12"}
    several_metrics: ClassVar[bool] = False
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "x0": "say the first trials in points_to_evaluate",
        "independent_sampler": _OBJECT,
        "source_trials": _OBJECT,
        "restart_strategy": "Optuna has moved it to another package",
        "inc_popsize": "Optuna has moved it to another package",
    }

    type: Literal["CmaEsSampler"]
    sigma0: PositiveNumber | None = Field(
        default=None, description="first standard deviation; left out: a sixth of the smallest range"
    )
    n_startup_trials: NonNegativeInteger = Field(default=1, description="random trials before the model is used")
    warn_independent_sampling: Switch = _NO_WARNING
    consider_pruned_trials: Switch = Field(default=False, description="whether stopped trials count")
    popsize: PositiveInteger | None = Field(default=None, description="trials of a generation; left out: by dimension")
    use_separable_cma: Switch = Field(default=False, description="whether the covariance matrix is diagonal")
    with_margin: Switch = Field(default=False, description="whether steps of integers never get stuck")
    lr_adapt: Switch = Field(default=False, description="whether the learning rate adapts, for rough metrics")

    def problems(self) -> Iterator[Problem]:
        """Yield variants that exclude each other."""
        chosen = [name for name in ("use_separable_cma", "with_margin", "lr_adapt") if getattr(self, name)]
        if "use_separable_cma" in chosen and self.consider_pruned_trials:
            chosen.append("consider_pruned_trials")
        if ("lr_adapt" in chosen and len(chosen) > 1) or {"use_separable_cma", "with_margin"} <= set(chosen):
            yield (chosen[1],), f"cannot be beside {chosen[0]}: leave one of them out"


class GPSampler(Sampler):
    """A Gaussian process; needs PyTorch and SciPy."""

    short_names: ClassVar[tuple[str, ...]] = ("gp",)
    ray_class: ClassVar[str] = "optuna.samplers:GPSampler"
    libraries: ClassVar[Mapping[str, str]] = {"torch": "torch", "scipy": "scipy"}
    not_in_yaml: ClassVar[Mapping[str, str]] = {"independent_sampler": _OBJECT, "constraints_func": _FUNCTION}

    type: Literal["GPSampler"]
    n_startup_trials: NonNegativeInteger = Field(default=10, description="random trials before the model is used")
    deterministic_objective: Switch = Field(default=False, description="whether equal trials give equal metrics")
    warn_independent_sampling: Switch = _NO_WARNING


class _Genetic(Sampler):
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "mutation": _OBJECT,
        "crossover": _OBJECT,
        "constraints_func": _FUNCTION,
        "elite_population_selection_strategy": _FUNCTION,
        "child_generation_strategy": _FUNCTION,
        "after_trial_strategy": _FUNCTION,
    }

    population_size: IntegerAboveOne = Field(default=50, description="trials of a generation")
    mutation_prob: Fraction | None = Field(
        default=None, description="chance to mutate a hyperparameter; left out: one in their number"
    )
    crossover_prob: Fraction = Field(default=0.9, description="chance that a child has two parents")
    swapping_prob: Fraction = Field(default=0.5, description="chance to swap a hyperparameter of the parents")


class NSGAIISampler(_Genetic):
    """The genetic algorithm NSGA-II, for several metrics."""

    short_names: ClassVar[tuple[str, ...]] = ("nsga2", "nsgaii")
    ray_class: ClassVar[str] = "optuna.samplers:NSGAIISampler"

    type: Literal["NSGAIISampler"]


class NSGAIIISampler(_Genetic):
    """The genetic algorithm NSGA-III, for many metrics."""

    short_names: ClassVar[tuple[str, ...]] = ("nsga3", "nsgaiii")
    ray_class: ClassVar[str] = "optuna.samplers:NSGAIIISampler"
    not_in_yaml: ClassVar[Mapping[str, str]] = {**_Genetic.not_in_yaml, "reference_points": _OBJECT}

    type: Literal["NSGAIIISampler"]
    dividing_parameter: PositiveInteger = Field(default=3, description="density of the reference points")


class QMCSampler(Sampler):
    """A quasi-random sequence: covers the space more evenly than random values; needs SciPy."""

    short_names: ClassVar[tuple[str, ...]] = ("qmc",)
    ray_class: ClassVar[str] = "optuna.samplers:QMCSampler"
    libraries: ClassVar[Mapping[str, str]] = {"scipy": "scipy"}
    not_in_yaml: ClassVar[Mapping[str, str]] = {"independent_sampler": _OBJECT}

    type: Literal["QMCSampler"]
    qmc_type: Literal["sobol", "halton"] = Field(default="sobol", description="the sequence")
    scramble: Switch = Field(default=False, description="whether the sequence is randomised")
    warn_asynchronous_seeding: Switch = Field(default=True, description="whether to warn of scramble without a seed")
    warn_independent_sampling: Switch = _NO_WARNING


class BruteForceSampler(Sampler):
    """Every combination once; a float needs a quantum."""

    short_names: ClassVar[tuple[str, ...]] = ("brute_force",)
    ray_class: ClassVar[str] = "optuna.samplers:BruteForceSampler"

    type: Literal["BruteForceSampler"]
    avoid_premature_stop: Switch = Field(default=False, description="whether to wait for running trials before the end")


SAMPLERS: tuple[type[Sampler], ...] = (
    TPESampler,
    RandomSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    NSGAIIISampler,
    QMCSampler,
    BruteForceSampler,
)
"""The samplers of Optuna that a file can name; its GridSampler is Ray's grid_search, PartialFixedSampler a constant."""
