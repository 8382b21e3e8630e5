"""Who may skip a task: a branch or a short circuit whatever the task's rule, or what lies before it by the rule."""

from __future__ import annotations

import itertools
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import is_expanded_at_once
from airflow_provider_raynode.argo.names import per_dag
from airflow_provider_raynode.argo.node_tasks import is_execution
from airflow_provider_raynode.argo.shape import (
    is_podless,
    operator_class,
    rule_of,
    scope_of,
    setups_further_up,
)

if TYPE_CHECKING:
    from airflow.sdk import DAG

# Rules that skip a task though nothing before it was skipped.
_SKIPPING_RULES = frozenset(
    ("all_failed", "one_failed", "one_done", "none_skipped", "all_skipped", "all_done_min_one_success")
)
_RULES_THAT_PASS_ON = frozenset(("all_success", "one_success", "none_failed_min_one_success", "all_done_setup_success"))
# Rules by which a task is never upstream_failed.
_RULES_WITHOUT_FAILURE = frozenset(
    ("all_done", "always", "all_failed", "one_failed", "one_done", "none_skipped", "all_skipped")
)
# Operators in whose pods nothing of the user's runs that could skip the task.
_NEVER_SKIPPED = frozenset(("EmptyOperator", "RayFanOutOperator"))


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
            below = {each for each in below if each in task.downstream_task_ids or not is_expanded_at_once(dag, each)}
            for each in below:
                # A short circuit spares teardowns; a branch skips each direct child that it does not choose.
                if each in task.downstream_task_ids or not dag.task_dict[each].is_teardown:
                    found.setdefault(each, []).append(task.task_id)
    return {task_id: tuple(sorted(names)) for task_id, names in found.items()}


def may_be_mixed(dag: DAG, task_id: str) -> bool:
    """Whether before an all_success task one thing may be skipped and another fail: Airflow goes by what comes first.

    What the task's own skippers skip does not count: they skip the task as well.
    """
    return task_id in _Causes.of(dag).mixed


def passes_on(dag: DAG, task_id: str) -> frozenset[str]:
    """Return the tasks before one that skip it by being skipped, and fail it by failing, whatever else happens."""
    return _Causes.of(dag).passed_on[task_id]


class _Causes:
    """For each task what may be the first cause of its being skipped, and of its having failed.

    A task may skip itself wherever code of its own runs: a Python function by what it calls, a BashOperator by the exit
    code 99, a sensor by `soft_fail`, any of them by `skip_if`.
    """

    def __init__(self, dag: DAG) -> None:
        self._dag = dag
        self.passed_on: dict[str, frozenset[str]] = {}
        self.mixed: set[str] = set()
        self._of_skips: dict[str, frozenset[str]] = {}
        self._of_failures: dict[str, frozenset[str]] = {}
        above = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
        for task_id in TopologicalSorter(above).static_order():
            self._add(dag.task_dict[task_id], above[task_id])

    @staticmethod
    def of(dag: DAG) -> _Causes:
        return _causes(dag)

    def _add(self, task: Any, above: list[str]) -> None:
        rule = rule_of(task)
        if rule == "all_success" and self._may_be_mixed(task, above):
            self.mixed.add(task.task_id)
        skips, failures = set(skippers(self._dag, task.task_id)), set[str]()
        if rule in _SKIPPING_RULES or not _never_skips_itself(task):
            skips.add(task.task_id)
        if not is_podless(task):
            failures.add(task.task_id)
        further_up = set() if task.is_teardown or rule == "always" else setups_further_up(task)
        for each in (*above, *further_up):
            if rule in _RULES_THAT_PASS_ON or each in further_up:
                skips |= self._of_skips[each]
            if rule not in _RULES_WITHOUT_FAILURE or each in further_up:
                failures |= self._of_failures[each]
        self._of_skips[task.task_id], self._of_failures[task.task_id] = frozenset(skips), frozenset(failures)
        passed_on = set[str]()
        if rule == "all_success" and task.task_id not in self.mixed:
            passed_on.update(above, *(self.passed_on[each] for each in above))
        self.passed_on[task.task_id] = frozenset(passed_on)

    def _may_be_mixed(self, task: Any, above: list[str]) -> bool:
        own = set(skippers(self._dag, task.task_id))
        for skipped, failed in itertools.permutations(above, 2):
            if not self._excludes(skipped, failed) and any(
                one != other and not self._excludes(one, other)
                for one in self._of_skips[skipped] - own
                for other in self._of_failures[failed]
            ):
                return True
        return False

    def _excludes(self, skipped: str, failed: str) -> bool:
        """Whether one cannot have failed where the other was skipped: the later of the two has it from the other."""
        return skipped in self.passed_on[failed] or failed in self.passed_on[skipped]


@per_dag
def _causes(dag: DAG) -> _Causes:
    return _Causes(dag)


def _never_skips_itself(task: Any) -> bool:
    names = {each.__name__ for each in operator_class(task).__mro__}
    return is_podless(task) or is_execution(task) or bool(names & _NEVER_SKIPPED)
