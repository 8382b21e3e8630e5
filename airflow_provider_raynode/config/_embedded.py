"""What the embedded Ray cannot have: it is one machine, with what Ray finds on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_provider_raynode.config._section import Loc, Problem
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config.runtime_env import embedded_problems as of_environment

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_config import RayConfig

# Accelerators that Ray itself looks for on a machine.
_FOUND_BY_RAY = ("TPU", "neuron_cores", "HPU", "NPU", "RBLN", "FURIOSA", "MBLT", "TTNPU")
_OF_RAY = ("CPU", "GPU", "memory")
_ELSEWHERE = (
    "the embedded Ray has only what Ray finds on this machine; leave it out, or name a cluster in ray_cluster.address"
)


def embedded_problems(config: RayConfig) -> Iterator[Problem]:
    """Yield what is asked for and cannot be there."""
    yield from _nowhere(("default_resources", "resources"), config.default_resources.resources)
    yield from _unlabelled(("default_resources", "label_selector"), config.default_resources.label_selector)
    if config.ray_tune is not None:
        own = config.ray_tune.resources
        yield from _nowhere(("ray_tune", "resources", "resources"), own.resources)
        yield from _unlabelled(("ray_tune", "resources", "label_selector"), own.label_selector)
    if config.ray_map is not None:
        own = config.ray_map.resources
        yield from _nowhere(("ray_map", "resources", "resources"), own.resources)
        yield from _unlabelled(("ray_map", "resources", "label_selector"), own.label_selector)
    if config.ray_train is not None:
        scaling = config.ray_train.scaling
        where: Loc = ("ray_train", "scaling")
        yield from _nowhere((*where, "resources_per_worker"), scaling.resources_per_worker or {})
        each = scaling.label_selector if isinstance(scaling.label_selector, list) else [scaling.label_selector]
        for labels in each:
            yield from _unlabelled((*where, "label_selector"), labels)
        environment = config.ray_train.worker_runtime_env
        if environment is not None:
            given = environment.model_dump(mode="json", exclude_none=True)
            for loc, message in of_environment(given):
                yield ("ray_train", "worker_runtime_env", *loc), message
        if scaling.placement_strategy == "STRICT_SPREAD" and scaling.bounds[0] > 1:
            yield (
                (*where, "placement_strategy"),
                f"STRICT_SPREAD puts each of {scaling.bounds[0]} workers on its own machine, and the embedded Ray is "
                "one: leave it out, or name a cluster in ray_cluster.address",
            )


def _nowhere(where: Loc, resources: Mapping[str, float]) -> Iterator[Problem]:
    for name, amount in resources.items():
        known = name in _OF_RAY or name in _FOUND_BY_RAY or name.startswith(("accelerator_type:", "TPU-"))
        if amount and not known:
            yield (*where, name), f"is nowhere: {_ELSEWHERE}"


def _unlabelled(where: Loc, labels: Mapping[str, str] | None) -> Iterator[Problem]:
    """Yield labels that only somebody can have set who started the node."""
    for name, condition in (labels or {}).items():
        if not name.startswith("ray.io/") and not condition.startswith("!"):
            yield (*where, name), f"{shown(condition)} is nowhere: {_ELSEWHERE}"
