"""The structure hash: whether the DAG that a pod loads is the DAG that was exported."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import total_length
from airflow_provider_raynode.argo.names import mapped_group_ids
from airflow_provider_raynode.argo.skips import may_be_mixed, skippers
from airflow_provider_raynode.argo.task_sdk._dag import expand_input

if TYPE_CHECKING:
    from airflow.sdk import DAG

_DIGITS = 16


def structure_hash(dag: DAG) -> str:
    """Return 16 hex digits over what the workflow was made from: tasks, their order and rules, groups, mapping.

    The code of the tasks is not part of it: a fix in a function needs no new export, another dependency does.
    """
    shape: dict[str, Any] = {
        "dag": dag.dag_id,
        "tasks": {task.task_id: [*_shape(task), *_skips(dag, task.task_id)] for task in dag.tasks},
        "groups": {each: _inputs(dag.task_group_dict[each]) for each in mapped_group_ids(dag)},
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _shape(task: Any) -> list[Any]:
    return [
        task.task_type,
        sorted(task.upstream_task_ids),
        str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        bool(task.is_setup),
        bool(task.is_teardown),
        [group.group_id for group in task.iter_mapped_task_groups()],
        _inputs(task) if task.is_mapped else [],
    ]


def _skips(dag: DAG, task_id: str) -> list[Any]:
    return [list(skippers(dag, task_id)), may_be_mixed(dag, task_id)]


def _inputs(mapped: Any) -> list[Any]:
    """Return where a mapped task's or group's indexes come from."""
    source = expand_input(mapped)
    references = sorted(f"{task.task_id}:{key}" for task, key in source.iter_references())
    # Literal ones are counted at export.
    return [source.EXPAND_INPUT_TYPE, references, total_length(source, lambda *_: 0)]
