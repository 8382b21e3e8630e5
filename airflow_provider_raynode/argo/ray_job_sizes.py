"""Whether the pods of a RayJob's cluster have room for what the node asks for: told at export, where nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_raynode.config.units import Processes, Unit, unit_of
from airflow_provider_raynode.runtime.placement import Node
from airflow_provider_raynode.runtime.shortage import shortage

if TYPE_CHECKING:
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.config.kuberay import KubeRay, RayPods

_GROUPS = "ray_cluster.kuberay.worker_groups"
# What is compared, in Ray's words; custom resources and labels are the running cluster's to know.
_COMPARED = ("CPU", "GPU", "memory")
# Of one group; more are not worth the counting.
_MOST_NODES = 1_000
# The remedies that the running cluster's message has, in the words of the config that makes the cluster.
_REMEDIES = {
    "use a larger cluster": f"raise num_cpus, num_gpus, memory, replicas or max_replicas in {_GROUPS}",
    "use a cluster that has it": f"give it to a group of {_GROUPS}",
}


def size_problems(config: RayConfig) -> Iterator[str]:
    """Yield what of a node has no room in the cluster that its section `ray_cluster.kuberay` describes, at its largest.

    Ray would let it wait for ever, or until the RayJob's deadline.
    """
    cluster = config.ray_cluster.kuberay
    assert cluster is not None
    unit = _compared(unit_of(config))
    if problem := shortage(unit, _nodes(cluster)):
        for known, remedy in _REMEDIES.items():
            problem = problem.replace(known, remedy)
        yield problem


def _compared(unit: Unit) -> Unit:
    def without(each: Processes) -> Processes:
        bundle = {name: amount for name, amount in each.bundle.items() if name in _COMPARED}
        return replace(each, bundle=bundle, labels=())

    return replace(unit, processes=tuple(without(each) for each in unit.processes))


def _nodes(cluster: KubeRay) -> list[Node]:
    """Return the nodes of the cluster with every group at its greatest number."""
    groups = [(group, min(group.bounds[1], _MOST_NODES)) for group in cluster.worker_groups]
    return [_node(pods) for pods, count in [(cluster.head, 1), *groups] for _ in range(count)]


def _node(pods: RayPods) -> Node:
    given = pods.ray_start_params
    return Node.of(
        {
            # KubeRay tells Ray the CPUs of a pod as a whole number, rounded up.
            "CPU": _number(given.get("num-cpus"), -(-pods.num_cpus // 1)),
            "GPU": _number(given.get("num-gpus"), pods.num_gpus),
            "memory": _number(given.get("memory"), pods.memory),
        }
    )


def _number(text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        return default
