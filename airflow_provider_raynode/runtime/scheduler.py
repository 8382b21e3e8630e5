"""The scheduler as Ray Tune takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.resource_changing_scheduler import DistributeResources, DistributeResourcesToTopJob

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.domains import is_domain
from airflow_provider_raynode.config.schedulers import (
    PB2,
    PopulationBasedTraining,
    ResourceAllocation,
    ResourceChangingScheduler,
    Scheduler,
)
from airflow_provider_raynode.runtime._ray_class import ray_class, seed_globals
from airflow_provider_raynode.runtime.names import key_of
from airflow_provider_raynode.runtime.space import Drawn, build_space

_ALLOCATIONS = {
    "DistributeResources": DistributeResources,
    "DistributeResourcesToTopJob": DistributeResourcesToTopJob,
}


def build_scheduler(config: RayConfig) -> TrialScheduler | None:
    """Return the scheduler of the search, or None where the config names none.

    Metric and mode are not in it: Ray hands on those of the `TuneConfig`, and refuses both. Where the scheduler draws
    from Python's or numpy's global generators, `ray_tune.seed` seeds these in this process.
    """
    tune = config.ray_tune
    if tune is None or tune.scheduler is None:
        return None
    seed_globals(tune.seed)
    return _build(tune.scheduler, tune.search_space)


def _build(scheduler: Scheduler, space: Mapping[str, Any]) -> TrialScheduler:
    if scheduler.ray_class.startswith("optuna."):
        return _pruning(scheduler)
    arguments = scheduler.arguments()
    if "time_attr" in arguments:
        arguments["time_attr"] = key_of(arguments["time_attr"])
    if isinstance(scheduler, PopulationBasedTraining):
        from airflow_provider_raynode.runtime.explore import LegalPBT, mutated

        arguments["hyperparam_mutations"] = _mutations(scheduler.hyperparam_mutations)
        return LegalPBT(domains=mutated(scheduler.hyperparam_mutations), **arguments)
    if isinstance(scheduler, PB2):
        from airflow_provider_raynode.runtime.explore import LegalPB2, bounded

        return LegalPB2(domains=bounded(scheduler.hyperparam_bounds, space), **arguments)
    if isinstance(scheduler, ResourceChangingScheduler):
        base = scheduler.base_scheduler
        arguments["base_scheduler"] = None if base is None else _build(base, space)
        arguments["resources_allocation_function"] = _allocation(scheduler.resources_allocation_function)
    built: TrialScheduler = ray_class(scheduler)(**arguments)
    return built


def _pruning(scheduler: Any) -> TrialScheduler:
    from airflow_provider_raynode.runtime.pruner import PrunerScheduler
    from airflow_provider_raynode.runtime.sampler import build_pruner

    return PrunerScheduler(build_pruner(scheduler), key_of(scheduler.time_attr))


def _mutations(mutations: dict[str, Any]) -> dict[str, Any]:
    """Return the mutations as Ray takes them: a choice as a list, since Ray would multiply its value by a factor."""
    result: dict[str, Any] = {}
    for name, value in mutations.items():
        if isinstance(value, dict) and not is_domain(value):
            result[name] = _mutations(value)
            continue
        if is_domain(value) and value["type"] == "choice":
            value = value["choices"]
        built = build_space({name: value})[name]
        # A domain with one value is a value, which Ray takes in a list only.
        result[name] = built if isinstance(built, Drawn | list) else [built]
    return result


def _allocation(allocation: ResourceAllocation) -> DistributeResources:
    return _ALLOCATIONS[allocation.type](**allocation.model_dump(exclude={"type"}))
