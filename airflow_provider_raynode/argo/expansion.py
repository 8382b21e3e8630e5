"""How many map indexes a mapped task or task group has: from the DAG's literals and the run's XComs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.names import argo_names, mapped_group_ids, per_dag
from airflow_provider_raynode.argo.task_sdk._dag import expand_input, has_fill_value

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore

# Length of what a task pushed under a key; None where it did not push it.
LengthOf = Callable[[str, str], int | None]
_RETURN_VALUE = "return_value"
# The output parameter that holds map indexes.
INDEXES = "indexes"


def mapped_node(dag: DAG, mapped_id: str) -> Any:
    """Return the mapped task or mapped task group with this id."""
    return dag.task_dict[mapped_id] if mapped_id in dag.task_dict else dag.task_group_dict[mapped_id]


def source_ids(mapped: Any) -> list[str]:
    """Return the ids of the tasks whose XComs a mapped task or group expands over; empty for literals."""
    return list(dict.fromkeys(task.task_id for task, _ in expand_input(mapped).iter_references()))


def total_length(source: Any, length_of: LengthOf) -> int | None:
    """Return the number of map indexes, None where an XCom that decides it was not pushed.

    Over several arguments it is the product of their lengths; zip takes the shortest, with a fill value the longest;
    concat adds; map changes nothing. As in `airflow.models.expandinput`.
    """
    if source.EXPAND_INPUT_TYPE == "list-of-dicts":
        return _length(source.value, length_of)
    lengths = [_length(value, length_of) for value in source.value.values()]
    return None if any(each is None for each in lengths) else math.prod(each for each in lengths if each is not None)


def is_expanded_at_once(dag: DAG, task_id: str) -> bool:
    """Whether Airflow makes the instances of a task with the run: it is mapped over literals, and these are not empty.

    There is none then that stands for all of them.
    """
    task = dag.task_dict[task_id]
    mapped = task if task.is_mapped else task.get_closest_mapped_task_group()
    return mapped is not None and not source_ids(mapped) and bool(total_length(expand_input(mapped), lambda *_: None))


def _length(value: Any, length_of: LengthOf) -> int | None:
    from airflow.sdk.definitions.xcom_arg import ConcatXComArg, MapXComArg, PlainXComArg, ZipXComArg

    if isinstance(value, PlainXComArg):
        return length_of(value.operator.task_id, value.key)
    if isinstance(value, MapXComArg):
        return _length(value.arg, length_of)
    if isinstance(value, ZipXComArg | ConcatXComArg):
        parts = [_length(each, length_of) for each in value.args]
        known = [each for each in parts if each is not None]
        if len(known) < len(parts):
            return None
        if isinstance(value, ConcatXComArg):
            return sum(known)
        return max(known) if has_fill_value(value) else min(known)
    return len(value) if isinstance(value, Sized) else None


def map_indexes(dag: DAG, mapped_id: str, store: RunStore) -> list[int] | None:
    """Return the map indexes of a mapped task or group in a run, None where its inputs were not pushed."""

    def length_of(task_id: str, key: str) -> int | None:
        task = dag.task_dict[task_id]
        if task.is_mapped or task.get_closest_mapped_task_group() is not None:
            # One XCom per map index that pushed: those that were skipped leave no gap.
            return len([index for index in store.xcom_indexes(task_id, key) if index >= 0])
        found, value = store.xcom(task_id, -1, key)
        return mappable_length(value) if found else None

    length = total_length(expand_input(mapped_node(dag, mapped_id)), length_of)
    return None if length is None else list(range(length))


def mappable_length(value: Any) -> int | None:
    """Return the length of an XCom's JSON data as `.expand` sees it; None where it cannot be expanded over."""
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict):
        # Airflow's serialised form of what JSON has not: a tuple, a set.
        data = value.get("__data__") if "__classname__" in value else value
        return len(data) if isinstance(data, list | dict) else None
    return None


def index_outputs(dag: DAG, task_id: str) -> dict[str, str]:
    """Return what expansions a task's own pod can count: its output parameter's name, and the mapped task or group.

    It can where the mapped one expands over nothing but this task's XComs, and the task itself is not mapped.
    """
    task = dag.task_dict[task_id]
    if task.is_mapped or task.get_closest_mapped_task_group() is not None:
        return {}
    return {indexes_output(dag, each): each for each in _sole_dependants(dag).get(task_id, ())}


def indexes_output(dag: DAG, mapped_id: str) -> str:
    """Return the name of the output that holds the map indexes of what is mapped over the XComs of one task.

    All that is mapped over the task's result has the same; what takes another key, or several, has its own.
    """
    source = expand_input(mapped_node(dag, mapped_id))
    values = [source.value] if source.EXPAND_INPUT_TYPE == "list-of-dicts" else list(source.value.values())
    is_plain = len(values) == 1 and _is_result(values[0])
    return INDEXES if is_plain else f"{INDEXES}-{argo_names(dag)[mapped_id]}"


def _is_result(value: Any) -> bool:
    from airflow.sdk.definitions.xcom_arg import PlainXComArg

    return isinstance(value, PlainXComArg) and value.key == _RETURN_VALUE


@per_dag
def _sole_dependants(dag: DAG) -> dict[str, list[str]]:
    """Return by task what is mapped over nothing but its XComs."""
    found: dict[str, list[str]] = {}
    mapped = [task.task_id for task in dag.tasks if task.is_mapped]
    for each in (*mapped, *mapped_group_ids(dag)):
        sources = source_ids(mapped_node(dag, each))
        if len(sources) == 1:
            found.setdefault(sources[0], []).append(each)
    return found
