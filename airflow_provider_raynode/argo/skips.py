"""Who may skip a task: a branch or a short circuit whatever the task's rule, or what lies before it by the rule."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import mapped_node, source_ids
from airflow_provider_raynode.argo.names import per_dag
from airflow_provider_raynode.argo.shape import expanded_by, operator_class, rule_of, scope_of

if TYPE_CHECKING:
    from airflow.sdk import DAG

# Rules that skip a task though nothing before it was skipped.
_SKIPPING_RULES = frozenset(
    ("all_failed", "one_failed", "one_done", "none_skipped", "all_skipped", "all_done_min_one_success")
)
_RULES_THAT_PASS_ON = frozenset(("all_success", "one_success", "none_failed_min_one_success", "all_done_setup_success"))


def _is_skipper(task: Any) -> bool:
    """Whether a task can skip others: a branch, a short circuit, or another of Airflow's SkipMixin."""
    return bool(task.inherits_from_skipmixin)


def skippers(dag: DAG, task_id: str) -> tuple[str, ...]:
    """Return the ids of the tasks that may skip this one whatever its trigger rule, in order."""
    return _skippers(dag).get(task_id, ())


def _skips_all_below(task: Any) -> bool:
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
        if _is_skipper(task) and scope_of(task) is None:
            whole = _skips_all_below(task) and not task.is_mapped
            below = task.get_flat_relative_ids(upstream=False) if whole else task.downstream_task_ids
            # What is mapped over literals is expanded when the run is made, and an id without an index no longer meets
            # it; a direct child is skipped nevertheless (NotPreviouslySkippedDep).
            below = {each for each in below if each in task.downstream_task_ids or not _is_expanded_at_once(dag, each)}
            for each in below:
                if not dag.task_dict[each].is_teardown:
                    found.setdefault(each, []).append(task.task_id)
    return {task_id: tuple(sorted(names)) for task_id, names in found.items()}


def may_be_skipped_first(dag: DAG, task_id: str) -> bool:
    """Whether something before an all_success task may be skipped earlier than something else there fails.

    Airflow decides by what comes first. What the task's own skippers skip does not count: they skip the task as well.
    """
    task = dag.task_dict[task_id]
    if rule_of(task) != "all_success" or len(task.upstream_task_ids) < 2:
        return False
    causes = _skip_causes(dag)
    above = frozenset[str]().union(*(causes[each] for each in task.upstream_task_ids))
    return not above <= set(skippers(dag, task_id))


@per_dag
def _skip_causes(dag: DAG) -> dict[str, frozenset[str]]:
    """Return by task id the tasks that may be the reason why it is skipped, as far as the DAG file shows."""
    found: dict[str, frozenset[str]] = {}
    above = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
    for task_id in TopologicalSorter(above).static_order():
        task = dag.task_dict[task_id]
        causes = set(skippers(dag, task_id))
        if rule_of(task) in _SKIPPING_RULES or _may_skip_itself(task):
            causes.add(task_id)
        if rule_of(task) in _RULES_THAT_PASS_ON:
            causes.update(*(found[each] for each in above[task_id]))
        found[task_id] = frozenset(causes)
    return found


def _may_skip_itself(task: Any) -> bool:
    options = task.partial_kwargs if task.is_mapped else vars(task)
    if options.get("soft_fail"):
        return True
    function = getattr(task, "python_callable", None) or options.get("python_callable")
    return _names(getattr(function, "__code__", None), "AirflowSkipException")


def _names(code: Any, name: str) -> bool:
    if code is None:
        return False
    return name in code.co_names or any(_names(each, name) for each in code.co_consts if hasattr(each, "co_names"))


def _is_expanded_at_once(dag: DAG, task_id: str) -> bool:
    mapped_id = expanded_by(dag.task_dict[task_id])
    return mapped_id is not None and not source_ids(mapped_node(dag, mapped_id))
