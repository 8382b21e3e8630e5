"""The combinations of search space, search algorithm and scheduler that Ray would refuse late, or quietly change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._section import Loc, Problem, did_you_mean, path_of
from airflow_provider_raynode.config.domains import Choice, Domain
from airflow_provider_raynode.config.schedulers import (
    PB2,
    HyperBandForBOHB,
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
    ResourceChangingScheduler,
    Scheduler,
)
from airflow_provider_raynode.config.search_space import domains_of
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
        yield ("search_space",), "is missing or empty: name at least one hyperparameter"
    yield from _scheduler_problems(tune, scheduler)
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
        yield from _point_problems(searcher, domains, complete=learns)
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
        if any("/" in str(part) for part in loc):
            yield where, f"{searcher.type} does not allow a slash in a name"
        if domain.type == "grid_search":
            yield where, f"{searcher.type} has no grid: use choice, or leave search_algorithm out to run the whole grid"
        elif searcher.domains is not None and domain.type not in searcher.domains:
            allowed = ", ".join(sorted(searcher.domains))
            yield where, f"{searcher.type} does not keep to {domain.type}; its domains are: {allowed}"


def _point_problems(searcher: Searcher, domains: list[tuple[Loc, Domain]], *, complete: bool) -> Iterator[Problem]:
    """Yield points that do not lie in the space; `complete`: each must name every hyperparameter that varies."""
    known = {path_of(loc): domain for loc, domain in domains}
    for index, point in enumerate(searcher.points_to_evaluate or ()):
        where: Loc = ("search_algorithm", "points_to_evaluate", index)
        given = dict(_leaves(point, set(known)))
        for name, value in given.items():
            if name not in known:
                yield (*where, name), f"is not in the search space{did_you_mean(name, known)} in it: {', '.join(known)}"
            elif (problem := _outside(known[name], value)) is not None:
                yield (*where, name), problem
        missing = [name for name in known if name not in given]
        if complete and missing:
            yield where, f"{', '.join(missing)} is missing: a point names every hyperparameter that varies"


def _leaves(point: Mapping[str, Any], known: set[str], front: Loc = ()) -> Iterator[tuple[str, Any]]:
    for name, value in point.items():
        loc = (*front, *name.split("/"))
        if isinstance(value, dict) and path_of(loc) not in known:
            yield from _leaves(value, known, loc)
        else:
            yield path_of(loc), value


def _outside(domain: Domain, value: Any) -> str | None:
    if isinstance(domain, Choice):
        return None if value in domain.choices else f"{value!r} is none of the choices"
    low, high = getattr(domain, "low", None), getattr(domain, "high", None)
    if low is None or high is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value!r} is not a number"
    if not low <= value <= high:
        return f"{value!r} is not between low ({low:g}) and high ({high:g})"
    return None
