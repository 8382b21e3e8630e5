"""The combinations of search space, search algorithm and scheduler that Ray would refuse late, or quietly change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._section import Loc, Problem
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config.domains import Domain, is_domain, within
from airflow_provider_raynode.config.meaning import MOST_VALUES
from airflow_provider_raynode.config.schedulers import (
    PB2,
    HyperBandForBOHB,
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
    ResourceChangingScheduler,
    Scheduler,
)
from airflow_provider_raynode.config.search_space import NO_SPACE, domains_of
from airflow_provider_raynode.config.searchers import BasicVariantGenerator, Searcher, TuneBOHB, ZOOptSearch

if TYPE_CHECKING:
    from airflow_provider_raynode.config.tune import RayTune

_POPULATION = (PopulationBasedTraining, PB2, PopulationBasedTrainingReplay)


def combination_problems(tune: RayTune) -> Iterator[Problem]:
    """Yield what does not fit together, below `ray_tune`."""
    scheduler = _innermost(tune.scheduler)
    searcher = tune.search_algorithm
    domains = list(domains_of(tune.search_space))
    learns = searcher is not None and not isinstance(searcher, BasicVariantGenerator)
    if not tune.search_space and not isinstance(scheduler, _POPULATION):
        yield ("search_space",), NO_SPACE
    yield from _scheduler_problems(tune, scheduler)
    yield from _mutation_problems(tune, scheduler)
    if isinstance(scheduler, _POPULATION) and searcher is not None and learns:
        yield (
            ("search_algorithm", "type"),
            f"{searcher.type} does not work with {scheduler.type}, which proposes values itself: leave one of them out",
        )
    if isinstance(scheduler, HyperBandForBOHB) != isinstance(searcher, TuneBOHB):
        yield from _bohb_problems(tune, scheduler)
    if searcher is not None:
        if learns:
            yield from _searcher_problems(searcher, tune.search_space, domains)
        yield from _point_problems(tune, searcher, complete=learns)
    if isinstance(searcher, ZOOptSearch) and tune.num_samples > searcher.budget:
        yield (
            ("search_algorithm", "budget"),
            f"{searcher.budget} is below ray_tune.num_samples ({tune.num_samples}): the search would end early",
        )


def _innermost(scheduler: Scheduler | None) -> Scheduler | None:
    return scheduler.base_scheduler if isinstance(scheduler, ResourceChangingScheduler) else scheduler


def _scheduler_problems(tune: RayTune, scheduler: Scheduler | None) -> Iterator[Problem]:
    if isinstance(tune.scheduler, ResourceChangingScheduler) and tune.reuse_actors:
        yield (
            ("reuse_actors",),
            "must be false with ResourceChangingScheduler, which restarts trials with new resources",
        )
    if isinstance(scheduler, PopulationBasedTrainingReplay) and tune.num_samples != 1:
        yield ("num_samples",), f"{tune.num_samples} is not 1: PopulationBasedTrainingReplay repeats one trial"
    base = tune.scheduler.base_scheduler if isinstance(tune.scheduler, ResourceChangingScheduler) else None
    for name in ("metric", "mode"):
        own, value = getattr(base, name, None), getattr(tune, name)
        if own is not None and own != value:
            yield (
                ("scheduler", "base_scheduler", name),
                f"{own!r} contradicts {value!r} in another place: say it once, in ray_tune.{name}",
            )


def _bohb_problems(tune: RayTune, scheduler: Scheduler | None) -> Iterator[Problem]:
    if isinstance(scheduler, HyperBandForBOHB):
        other = str(tune.search_algorithm.type) if tune.search_algorithm else "BasicVariantGenerator"
        yield (
            ("scheduler", "type"),
            f"HyperBandForBOHB works only with the search algorithm TuneBOHB, not with {other}: use HyperBandScheduler",
        )
    else:
        other = scheduler.type if scheduler else "FIFOScheduler"
        yield (
            ("search_algorithm", "type"),
            f"TuneBOHB works only with the scheduler HyperBandForBOHB, not with {other}",
        )


def _searcher_problems(
    searcher: Searcher, space: Mapping[str, Any], domains: list[tuple[Loc, Domain]]
) -> Iterator[Problem]:
    if not domains and space:
        yield ("search_space",), f"nothing in it varies: {searcher.type} needs at least one domain"
    for loc, domain in domains:
        where = ("search_space", *loc)
        if domain.type == "grid_search":
            yield where, f"{searcher.type} has no grid: use choice, or leave search_algorithm out to run the whole grid"
        elif searcher.domains is not None and domain.type not in searcher.domains:
            allowed = ", ".join(sorted(searcher.domains))
            yield where, f"{searcher.type} does not keep to {domain.type}; its domains are: {allowed}"
        elif searcher.runs_every_value and domain.type != "choice":
            size = domain.meaning().size
            if size is None or size > MOST_VALUES:
                many = "has no end of values" if size is None else f"has {size} values"
                yield where, f"{many}, and BruteForceSampler runs each of them: use a domain with few, such as qrandint"


def _point_problems(tune: RayTune, searcher: Searcher, *, complete: bool) -> Iterator[Problem]:
    """Yield points that do not lie in the space, or would not be run.

    :param complete: whether each must name every hyperparameter that varies.
    """
    points = searcher.points_to_evaluate or []
    where: Loc = ("search_algorithm", "points_to_evaluate")
    if 0 <= tune.num_samples < len(points) and getattr(searcher, "evaluated_rewards", None) is None:
        yield where, f"has {len(points)} entries, more than ray_tune.num_samples ({tune.num_samples}): raise that"
    if points:
        from airflow_provider_raynode.config.space_tree import SpaceTree, problems_of_point

        tree = SpaceTree(tune.sampled_space)
        for index, point in enumerate(points):
            yield from problems_of_point(tree, point, (*where, index), complete=complete)


def _mutation_problems(tune: RayTune, scheduler: Scheduler | None) -> Iterator[Problem]:
    """Yield mutations that do not fit what the search space says of the same name."""
    front = ("scheduler",) if scheduler is tune.scheduler else ("scheduler", "base_scheduler")
    if isinstance(scheduler, PopulationBasedTraining):
        mutations = scheduler.hyperparam_mutations
        yield from _mismatches(tune.search_space, mutations, (*front, "hyperparam_mutations"), _factor_problems)
    if isinstance(scheduler, PB2):
        bounds = scheduler.hyperparam_bounds
        yield from _mismatches(tune.search_space, bounds, (*front, "hyperparam_bounds"), _bounds_problems)


def _mismatches(
    space: Mapping[str, Any],
    mutations: Mapping[str, Any],
    loc: Loc,
    check: Callable[[Any, Any, Loc], Iterator[Problem]],
) -> Iterator[Problem]:
    for name, mutation in mutations.items():
        if name not in space:
            continue
        nested = isinstance(mutation, dict) and not is_domain(mutation)
        below = space[name]
        if nested != (isinstance(below, dict) and not is_domain(below)):
            kind = "a nested part" if nested else "one value"
            yield (*loc, name), f"is {kind} here and not in search_space: a mutation is written as the space is"
        elif nested:
            yield from _mismatches(below, mutation, (*loc, name), check)
        else:
            yield from check(below, mutation, (*loc, name))


def _factor_problems(below: Any, mutation: Any, loc: Loc) -> Iterator[Problem]:
    """Yield a mutation of PBT that multiplies what is no number."""
    if is_domain(mutation) and mutation["type"] != "choice" and not _is_numeric(below):
        yield loc, f"{mutation['type']} changes numbers, and {shown(below)} in search_space is none: list the values"


def _bounds_problems(below: Any, bounds: Any, loc: Loc) -> Iterator[Problem]:
    """Yield bounds of PB2 that leave no legal value of the search space."""
    if any("/" in part for part in loc if isinstance(part, str)):
        yield loc, "PB2 does not allow a slash in a name"
    if not _is_numeric(below) or (is_domain(below) and below["type"] in ("choice", "grid_search")):
        yield loc, f"PB2 changes numbers within bounds, and {shown(below)} in search_space is no range: use PBT"
    elif isinstance(bounds, list) and len(bounds) == 2:
        try:
            within(below, *bounds)
        except ValueError as error:
            yield loc, f"leaves no value of the domain in search_space: {error}"


def _is_numeric(value: Any) -> bool:
    """Whether a value of the search space is a number in every trial."""
    if is_domain(value):
        if value["type"] == "constant":
            return _is_numeric(value["value"])
        return all(_is_numeric(each) for each in (*value.get("choices", ()), *value.get("values", ())))
    return isinstance(value, int | float) and not isinstance(value, bool)
