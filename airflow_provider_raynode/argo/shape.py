"""What a task is, for the export and for the pods: without a pod, in a scope of its own, expanded by what."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG

_CALLBACKS = ("on_execute_callback", "on_success_callback", "on_failure_callback", "on_skipped_callback")


def operator_class(task: Any) -> type:
    """Return the class of a task's operator, mapped or not."""
    found = task.operator_class if task.is_mapped else type(task)
    return found if isinstance(found, type) else type(task)


def is_podless(task: Any) -> bool:
    """Whether a task does nothing, so that no pod is worth its start: an EmptyOperator without callbacks or outlets.

    As Airflow's scheduler, which takes it for done without a worker.
    """
    return (
        not task.is_mapped
        and operator_class(task).__name__ == "EmptyOperator"
        and not task.outlets
        and not task.inlets
        and not any(getattr(task, name, None) for name in _CALLBACKS)
        and not task.is_setup
        and not task.is_teardown
    )


def scope_of(task: Any) -> str | None:
    """Return the id of the mapped task group whose sub-DAG a task lies in, None for the DAG itself."""
    group = task.get_closest_mapped_task_group()
    return None if group is None else str(group.group_id)


def rule_of(task: Any) -> str:
    """Return the name of a task's trigger rule."""
    return str(getattr(task.trigger_rule, "value", task.trigger_rule))


def setups_further_up(task: Any) -> set[str]:
    """Return the ids of the setups that a task lies between and their teardowns, but for those directly upstream."""
    above: set[str] = {setup.task_id for setup in task.get_upstreams_only_setups()}
    return above - set(task.upstream_task_ids)


def expanded_by(task: Any) -> str | None:
    """Return the id of what a task's map indexes come from: itself, or its mapped task group; None without any."""
    return str(task.task_id) if task.is_mapped else scope_of(task)


def counted_leaves(dag: DAG) -> set[str]:
    """Return the tasks whose states make the state of the run, after `DagRun._tis_for_dagrun_state`."""

    def is_counted(task: Any) -> bool:
        below = (dag.task_dict[each] for each in task.downstream_task_ids)
        if any(not each.is_teardown or each.on_failure_fail_dagrun for each in below):
            return False
        return not task.is_teardown or bool(task.on_failure_fail_dagrun)

    found = {task.task_id for task in dag.tasks if is_counted(task)}
    return found or {task.task_id for task in dag.tasks if not task.downstream_task_ids}


def has_default(param: Any) -> bool:
    """Whether a param of a DAG has a default that its schema takes; None is one where the schema has null."""
    try:
        # A copy: what a param resolves to, it keeps.
        copy.copy(param).resolve(suppress_exception=False)
    except Exception:  # of Airflow's own, whose place changes
        return False
    return True


def groups_of(node: Any) -> list[str]:
    """Return the ids of the task groups around a task or group, the outermost first."""
    group = node.task_group if hasattr(node, "task_id") else node
    found: list[str] = []
    while group is not None and group.group_id is not None:
        found.append(group.group_id)
        group = group.parent_group
    return found[::-1]
