"""Staging of a node's inputs: what is small JSON travels in the spec, the rest as a reference to the catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef

# Above this size in bytes a value goes to the catalog: the spec stays a file that a person can read.
INLINE_LIMIT = 16_384


def stage_inputs(op_kwargs: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return op_kwargs as JSON, every value that is large or not JSON replaced by its reference.

    A CatalogRef anywhere in a value stays as it is: the driver loads it before the call.
    """
    return {name: _stage(name, value, catalog) for name, value in op_kwargs.items()}


def _stage(name: str, value: Any, catalog: Catalog) -> Any:
    if isinstance(value, Sequence) and type(value).__module__.startswith("airflow."):
        value = list(value[:])  # the results of a mapped task: one request for all, where iteration makes one for each
    if CatalogRef.is_ref(value):
        return dict(value)
    encoded = as_exact_json(value)
    if encoded is not None and len(encoded) <= INLINE_LIMIT:
        return json.loads(encoded)
    if _holds_ref(value):
        # References inside a large structure must stay visible to the driver, so the structure is taken apart.
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _stage(f"{name}.{key}", item, catalog) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [_stage(f"{name}.{index}", item, catalog) for index, item in enumerate(value)]
    return dict(catalog.put(value, name))


def as_exact_json(value: Any) -> bytes | None:
    """Return the JSON of a value that comes back equal from it, else None (tuples, NaN, int keys, objects)."""
    try:
        encoded = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        return encoded if _same(json.loads(encoded), value) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _same(left: Any, right: Any) -> bool:
    # XCom gives plain types; `1 == True` and `(1,) == [1]` differ in what a function does with them.
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(_same(left[key], right[key]) for key in left)
        )
    if isinstance(left, list):
        return (
            isinstance(right, list)
            and len(left) == len(right)
            and all(_same(one, two) for one, two in zip(left, right, strict=True))
        )
    return type(left) is type(right) and bool(left == right)


def _holds_ref(value: Any) -> bool:
    if CatalogRef.is_ref(value):
        return True
    if isinstance(value, Mapping):
        return any(_holds_ref(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_holds_ref(item) for item in value)
