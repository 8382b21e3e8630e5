"""How what is said for a group or a task is laid over what is said for all pods: field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

Layer = Mapping[str, Any]
"""What one part of the file says of pods: fields in the form of `PodKeys.layer`, null where it takes away."""


def _entries(depth: int) -> Callable[[Any, Any], Any]:
    def merge(inherited: Any, own: Any) -> Any:
        merged = dict(inherited or {})
        for key, value in own.items():
            both = depth > 1 and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = _entries(depth - 1)(merged[key], value) if both else value
        return merged

    return merge


def _behind(inherited: Any, own: Any) -> Any:
    """Return the lists one behind the other, of equal entries the last: it is the one that counts in `envFrom`."""
    both = [*(inherited or []), *own]
    return [each for index, each in enumerate(both) if each not in both[index + 1 :]]


# Fields that are not here are replaced.
_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("env", "volumes", "volume_mounts", "node_selector", "labels", "annotations"), _entries(1)),
    **dict.fromkeys(("init_containers", "sidecars"), _entries(1)),
    **dict.fromkeys(("affinity", "security_context", "container_security_context"), _entries(1)),
    **dict.fromkeys(("resources", "retry_strategy"), _entries(2)),
    **dict.fromkeys(("tolerations", "env_from"), _behind),
}


def merged(layers: Iterable[Layer]) -> dict[str, Any]:
    """Return layers laid over each other, the first undermost. Nulls stay: they take away what is below them."""
    return reduce(_laid_over, layers, {})


def _laid_over(inherited: dict[str, Any], own: Layer) -> dict[str, Any]:
    result = dict(inherited)
    for field, value in own.items():
        merge = _MERGES.get(field)
        result[field] = value if merge is None or value is None else merge(inherited.get(field), value)
    return result


def without_nulls(value: Any) -> Any:
    """Return `value` without the entries of mappings, at any depth, that are null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
