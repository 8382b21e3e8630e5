"""What one process of the function reserves, as Ray's actors say it, and how many of them the cluster holds."""

from __future__ import annotations

import logging
from typing import Any

import ray

from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.exceptions import ClusterError

log = logging.getLogger(__name__)


def actor_options(resources: Resources) -> dict[str, Any]:
    """Return the options of an actor that reserves this, and that is never started again by Ray itself."""
    options: dict[str, Any] = {
        "num_cpus": 1.0 if resources.num_cpus is None else resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory,
        "resources": resources.resources,
        "accelerator_type": resources.accelerator_type,
        "label_selector": resources.label_selector,
    }
    return {**{name: value for name, value in options.items() if value}, "max_restarts": 0, "max_task_retries": 0}


def places(resources: Resources) -> int:
    """Return how many such processes the machines of the cluster hold, whoever else uses them."""
    return sum(_fits(node["Resources"], resources.bundle()) for node in ray.nodes() if node["Alive"])


def _fits(node: dict[str, float], wanted: dict[str, float]) -> int:
    # Ray counts in ten-thousandths; 0.1 times 10 is 1.
    return int(min((node.get(name, 0.0) / amount + 1e-6 for name, amount in wanted.items()), default=1 << 20))


def check_fits(resources: Resources, unit: str, *, fixed: bool) -> dict[str, float]:
    """Check that some machine can hold one process, and return what the cluster has.

    :param unit: what it runs, in messages.
    :param fixed: whether the cluster cannot grow (the embedded Ray); an autoscaler may still add what is missing.
    :raises ClusterError: it asks for more than the fixed cluster has; the message has both numbers.
    """
    total = {name: float(amount) for name, amount in ray.cluster_resources().items() if "node:" not in name}
    if places(resources) == 0:
        wanted = resources.bundle()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        asked = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
        largest = "; ".join(", ".join(f"{name} {node.get(name, 0):g}" for name in wanted) for node in nodes)
        message = (
            f"a {unit} asks for {asked} (default_resources), but no node of the Ray cluster has that: {largest}. Lower "
            "default_resources, or use a cluster with larger nodes"
        )
        if fixed:
            raise ClusterError(message)
        log.warning("%s. Waiting for the cluster to grow.", message)
    return total
