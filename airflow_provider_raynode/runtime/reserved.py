"""What one process of a plain function or of a map reserves, and how many of them the cluster holds."""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.runtime.placement import nodes_of_cluster


def actor_options(resources: Resources) -> dict[str, Any]:
    """Return the options of an actor that reserves this, and that is never started again by Ray itself."""
    return {**resources.options(), "max_restarts": 0, "max_task_retries": 0}


def places(resources: Resources) -> int:
    """Return how many such processes the machines of the cluster hold, whoever else uses them."""
    bundle, labels = resources.bundle(), resources.label_selector or {}
    return sum(node.holds(bundle) for node in nodes_of_cluster() if node.matches(labels))
