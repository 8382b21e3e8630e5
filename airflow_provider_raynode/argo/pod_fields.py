"""What the workflow's spec says of all pods: each template that says something itself replaces it.

Not in `templateDefaults`: there Argo merges tolerations by their key, and looks at no volume that is mounted nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Fields of a template, with those of the spec that stand for them where a template has none.
_SAME = ("nodeSelector", "tolerations", "affinity", "securityContext")
_OF_SPEC = {**{name: name for name in _SAME}, "priorityClassName": "podPriorityClassName"}
_CONTAINERS = ("initContainers", "sidecars", "podSpecPatch")


def pod_fields(
    said: dict[str, Any], templates: Sequence[dict[str, Any]], *, with_containers: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the spec, and those of `templateDefaults`, for what is said of all pods.

    What some pod does not have stays in the templates: it could not be taken away there.

    :param said: the fields of a template of which nothing of its own is said.
    :param templates: the templates of all pods, each whole.
    :param with_containers: whether more containers and a patch may be in the defaults.
    """
    everywhere = {name for name in said if all(name in each for each in templates)}
    spec = {ours: said[name] for name, ours in _OF_SPEC.items() if name in everywhere}
    if "volumes" in said:
        # A pod gets those that its containers mount.
        spec["volumes"] = said["volumes"]
    metadata = {
        kind: {key: value for key, value in values.items() if all(key in _metadata(each, kind) for each in templates)}
        for kind, values in said.get("metadata", {}).items()
    }
    if metadata := {kind: values for kind, values in metadata.items() if values}:
        spec["podMetadata"] = metadata
    return spec, {name: said[name] for name in _CONTAINERS if name in everywhere and with_containers}


def without_fields(template: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return a template without what the spec says already."""
    found = {
        name: value for name, value in template.items() if name not in _OF_SPEC or spec.get(_OF_SPEC[name]) != value
    }
    if "volumes" in found:
        found["volumes"] = [each for each in found["volumes"] if each not in spec.get("volumes", [])]
    if "metadata" in found:
        found["metadata"] = {
            kind: {
                key: value
                for key, value in values.items()
                if spec.get("podMetadata", {}).get(kind, {}).get(key) != value
            }
            for kind, values in found["metadata"].items()
        }
    return found


def _metadata(template: dict[str, Any], kind: str) -> dict[str, Any]:
    return dict(template.get("metadata", {}).get(kind, {}))
