"""Whether the pods of a RayJob's cluster have room for what the node asks for: told at export, where nobody waits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.config.kuberay import KubeRay, RayPods
    from airflow_provider_raynode.config.scaling import Scaling

_KUBERAY = "ray_cluster.kuberay"
# What is compared, in Ray's words; custom resources and labels are known to the running cluster only.
_COMPARED = ("CPU", "GPU", "memory")
_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
# What each kind of work runs as one process.
_UNITS = {"search": "a trial", "map": "a call", "function": "the function"}
_ALMOST = 1e-6


@dataclass(frozen=True)
class _Pods:
    """Like pods of the cluster, the most that there can be of them."""

    name: str
    count: int
    has: Mapping[str, float]

    def fit(self, bundle: Mapping[str, float], taken: Mapping[str, float] | None = None) -> int:
        """Return how many bundles fit in one pod, beside what is taken of it."""
        counts = [
            math.floor((self.has[name] - (taken or {}).get(name, 0)) / bundle[name] + _ALMOST)
            for name in _COMPARED
            if bundle.get(name)
        ]
        return max(min(counts), 0) if counts else _ENOUGH


# Of what asks for nothing that is compared.
_ENOUGH = 1_000_000


def size_problems(config: RayConfig) -> Iterator[str]:
    """Yield what of a node has no room in the cluster that its section `ray_cluster.kuberay` describes.

    Ray would let it wait for ever, or until the RayJob's deadline.
    """
    cluster = config.ray_cluster.kuberay
    assert cluster is not None
    pods = _pods(cluster)
    alone = config.ray_train is None or config.ray_tune is not None
    if alone and (problem := _process_problem(config, pods)):
        yield problem
    elif config.ray_train is not None:
        yield from _training_problems(config, config.ray_train.scaling, pods)


def _pods(cluster: KubeRay) -> list[_Pods]:
    groups = [_Pods(group.name, group.bounds[1], _amounts(group)) for group in cluster.worker_groups]
    return [_Pods("head", 1, _amounts(cluster.head)), *(group for group in groups if group.count)]


def _amounts(pods: RayPods) -> dict[str, float]:
    given = pods.ray_start_params
    return {
        # KubeRay tells Ray the CPUs of a pod as a whole number, rounded up.
        "CPU": _number(given.get("num-cpus"), -(-pods.num_cpus // 1)),
        "GPU": _number(given.get("num-gpus"), pods.num_gpus),
        "memory": _number(given.get("memory"), pods.memory),
    }


def _shown(name: str, amount: float) -> str:
    return f"{amount / 1e9:g} GB of memory" if name == "memory" else f"{amount:g} {name}"


def _number(text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        return default


def _process_problem(config: RayConfig, pods: list[_Pods]) -> str | None:
    """Return what one process of the function asks for that no pod has."""
    own = config.ray_map.resources if config.ray_map else config.ray_tune.resources if config.ray_tune else None
    asked = config.trial_resources if config.work == "search" else config.call_resources
    where = {"search": "ray_tune.resources", "map": "ray_map.resources"}.get(config.work, "")
    for name, amount in asked.bundle().items():
        if name not in _COMPARED:
            continue
        most = max(each.has[name] for each in pods)
        if amount > most + _ALMOST:
            key = _KEYS[name]
            place = where if getattr(own, key, None) is not None else "default_resources"
            return (
                f"{place}.{key}: {_UNITS[config.work]} asks for {_shown(name, amount)}, the largest pod has "
                f"{_shown(name, most)}: lower it, or raise {key} in {_KUBERAY}.worker_groups"
            )
    return None


def _training_problems(config: RayConfig, scaling: Scaling, pods: list[_Pods]) -> Iterator[str]:
    """Yield why the least workers of a training do not fit at the same time."""
    worker, least = scaling.worker(config.default_resources), scaling.bounds[0]
    own = config.trial_resources.bundle(num_cpus=0.0) if config.ray_tune is not None else {}
    whose = "each trial" if config.ray_tune is not None else "the training"
    shown = ", ".join(_shown(name, amount) for name, amount in worker.items() if name in _COMPARED) or "nothing"
    for name in _COMPARED:
        most = max(each.has[name] for each in pods)
        if worker.get(name, 0) > most + _ALMOST:
            yield (
                f"ray_train.scaling: a worker asks for {_shown(name, worker[name])}, the largest pod has "
                f"{_shown(name, most)}: lower it in resources_per_worker"
                f"{' or leave use_gpu out' if name == 'GPU' else ''}, or raise {_KEYS[name]} in "
                f"{_KUBERAY}.worker_groups"
            )
            return
    room = _room(scaling.placement_strategy, worker, own, pods)
    if room < least:
        beside = f" beside {own['CPU']:g} CPU of the trial's own process" if own.get("CPU") else ""
        how = {
            "STRICT_PACK": f" on one pod (placement_strategy: {scaling.placement_strategy})",
            "STRICT_SPREAD": f" each on a pod of its own (placement_strategy: {scaling.placement_strategy})",
        }.get(scaling.placement_strategy, "")
        yield (
            f"ray_train.scaling.num_workers: {whose} needs {least} workers of {shown} each{how}, and the cluster has "
            f"room for {room}{beside}: lower num_workers or resources_per_worker, or raise num_cpus, replicas or "
            f"max_replicas in {_KUBERAY}.worker_groups"
        )


def _room(strategy: str, worker: Mapping[str, float], own: Mapping[str, float], pods: list[_Pods]) -> int:
    """Return how many workers fit at the same time, beside the trial's own process where it takes the least room."""
    if strategy == "STRICT_PACK":
        # Ray places the trial's own process in the same group.
        return max(each.fit(worker, own) for each in pods)
    single = strategy == "STRICT_SPREAD"

    def total(taking: _Pods | None) -> int:
        found = 0
        for each in pods:
            fitting, beside = each.fit(worker), each.fit(worker, own)
            if single:
                fitting, beside = min(fitting, 1), min(beside, 0)
            found += fitting * each.count - (fitting - beside if each is taking else 0)
        return min(found, _ENOUGH)

    if not own:
        return total(None)
    return max((total(each) for each in pods if each.fit(own)), default=0)
