"""The arguments that a mapped task group, or a mapped fan-out, gives to one map index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def map_variables(task: BaseOperator, context: Context) -> dict[str, Any]:
    """Return the map variables of this task instance by name; empty where nothing is mapped.

    The closest mapped task group wins where two name the same variable.
    """
    if context["ti"].map_index is None or context["ti"].map_index < 0:
        return {}
    found: dict[str, Any] = {}
    group = task.task_group
    if group is not None:
        for mapped in reversed(list(group.iter_mapped_task_groups())):
            values, _ = mapped._expand_input.resolve(context)
            found.update(values)
    original: Any = context["dag"].get_task(task.task_id)
    if getattr(original, "is_mapped", False):
        values, _ = original._get_specified_expand_input().resolve(context)
        found.update(values.get("op_kwargs", {}) if isinstance(values.get("op_kwargs"), Mapping) else values)
    return as_json_object(found)


def as_json_object(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping as JSON; a value that JSON cannot hold becomes its text."""
    plain = values.dump() if hasattr(values, "dump") else dict(values)
    return {str(key): _as_json(value) for key, value in plain.items()}


def _as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
