"""What a task is, for the export and for the pods: without a pod, a skipper of others, a scope of its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import mapped_node, source_ids
from airflow_provider_raynode.argo.names import per_dag

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


def expanded_by(task: Any) -> str | None:
    """Return the id of what a task's map indexes come from: itself, or its mapped task group; None without any."""
    return str(task.task_id) if task.is_mapped else scope_of(task)


def has_default(param: Any) -> bool:
    """Whether a param of a DAG has a default that its schema takes; None is one where the schema has null."""
    try:
        # A copy: what a param resolves to, it keeps.
        copy.copy(param).resolve(suppress_exception=False)
    except Exception:  # of Airflow's own, whose place changes
        return False
    return True


def is_skipper(task: Any) -> bool:
    """Whether a task can skip others: a branch, a short circuit, or another of Airflow's SkipMixin."""
    return bool(task.inherits_from_skipmixin)


def skippers(dag: DAG, task_id: str) -> tuple[str, ...]:
    """Return the ids of the tasks that may skip this one whatever its trigger rule, in order."""
    return _skippers(dag).get(task_id, ())


def skips_all_below(task: Any) -> bool:
    """Whether a skipper may skip more than what is directly downstream of it."""
    names = {each.__name__ for each in operator_class(task).__mro__}
    if names & {"BranchMixIn", "BaseBranchOperator"}:
        return False
    if "ShortCircuitOperator" in names:
        ignore = task.partial_kwargs if task.is_mapped else vars(task)
        return bool(ignore.get("ignore_downstream_trigger_rules", True))
    return True


@per_dag
def _skippers(dag: DAG) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for task in dag.tasks:
        # Inside a mapped task group Airflow 3.3 skips nothing: its scheduler looks for the XCom of an unmapped parent
        # at the map index -1 (NotPreviouslySkippedDep).
        if is_skipper(task) and scope_of(task) is None:
            whole = skips_all_below(task) and not task.is_mapped
            below = task.get_flat_relative_ids(upstream=False) if whole else task.downstream_task_ids
            # What is mapped over literals is expanded when the run is made, and an id without an index no longer meets
            # it; a direct child is skipped nevertheless (NotPreviouslySkippedDep).
            below = {each for each in below if each in task.downstream_task_ids or not _is_expanded_at_once(dag, each)}
            for each in below:
                if not dag.task_dict[each].is_teardown:
                    found.setdefault(each, []).append(task.task_id)
    return {task_id: tuple(sorted(names)) for task_id, names in found.items()}


def _is_expanded_at_once(dag: DAG, task_id: str) -> bool:
    mapped_id = expanded_by(dag.task_dict[task_id])
    return mapped_id is not None and not source_ids(mapped_node(dag, mapped_id))
