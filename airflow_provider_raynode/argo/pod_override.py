"""`executor_config={"pod_override": …}` of Airflow's Kubernetes executor, as Argo's podSpecPatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Airflow's name of the container that runs the task, and Argo's.
_THEIRS, _OURS = "base", "main"
_KEY = "pod_override"


def pod_override_problem(executor_config: Any) -> str | None:
    """Return what of an executor_config has no counterpart, None where all of it does."""
    if not executor_config:
        return None
    if not isinstance(executor_config, Mapping):
        return f"executor_config is {type(executor_config).__name__}, not a dict"
    if others := sorted(set(executor_config) - {_KEY}):
        return f"executor_config[{others[0]!r}] is for another executor"
    return None


def pod_override(executor_config: Any) -> tuple[str, dict[str, Any]]:
    """Return the podSpecPatch (JSON, empty where there is none) and the pod's labels and annotations.

    :param executor_config: the task's; `pod_override` is a V1Pod of the package kubernetes, or a dict of its JSON form.
    """
    pod = executor_config.get(_KEY) if executor_config else None
    if not pod:
        return "", {}
    data = dict(pod) if isinstance(pod, Mapping) else _as_json(pod)
    spec = dict(data.get("spec") or {})
    containers = [dict(each) for each in spec.get("containers") or []]
    for container in containers:
        if container.get("name") == _THEIRS:
            container["name"] = _OURS
    if containers:
        spec["containers"] = containers
    metadata = {
        key: value for key, value in (data.get("metadata") or {}).items() if key in ("labels", "annotations") and value
    }
    return (as_patch(spec) if spec else ""), metadata


def as_patch(spec: Any) -> str:
    """Return a part of a pod's spec as JSON without a template tag: what stands in a DAG is none of Argo's."""
    return json.dumps(spec, sort_keys=True).replace("{{", "\\u007b\\u007b")


def _as_json(pod: Any) -> dict[str, Any]:
    from kubernetes.client import ApiClient

    client: Any = ApiClient()
    return dict(client.sanitize_for_serialization(pod))
