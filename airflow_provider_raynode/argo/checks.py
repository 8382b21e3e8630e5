"""What a DAG has that Argo cannot do: found all at once, with the reason and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import mapped_node, source_ids
from airflow_provider_raynode.argo.graph import tasks_between
from airflow_provider_raynode.argo.pod_override import pod_override_problem
from airflow_provider_raynode.argo.schedule import Schedule, run_bounds
from airflow_provider_raynode.argo.shape import has_default, operator_class, rule_of, scope_of
from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

# Features that `--allow` may downgrade to a warning, with what is lost then.
ALLOWABLE = {
    "asset-outlets": "no asset event is emitted",
    "backoff-factor": "the factor is rounded to a whole number",
    "catchup": "runs begin with the export, missed ones are not made up for",
    "deadline": "no deadline alert is sent",
    "earlier-runs": "a task that asks for an earlier run fails",
    "end-date": "the task runs as long as the DAG does",
    "start-date": "the task runs as soon as the DAG does",
    "fail-fast": "the other tasks go on when one has failed",
    "group-trigger-rule": "the rule is decided for each map index by itself",
    "max-active-tis": "the instances of the task are limited by max_active_tasks alone",
    "max-consecutive-failed-runs": "the schedule goes on after failed runs",
    "pool": "the task runs without the pool's limit",
    "pool-slots": "the task counts as one slot",
    "rayjob-catalog": "the RayJob is written all the same: for a catalog that the export cannot see, a connection's",
    "waiting-slots": "the task holds its slot while it waits",
    "retry-policy": "retries wait for retry_delay; that the policy says FAIL counts",
}
# Airflow may decide these by the first instances that end, before a mapped group is expanded (TriggerRuleDep).
_EARLY_RULES = ("none_failed_min_one_success", "one_success")
_DEFAULT_POOL = "default_pool"


@dataclass(frozen=True)
class Refusal:
    """One thing of the DAG that has no counterpart in Argo."""

    feature: str
    reason: str
    remedy: str
    task_id: str = ""

    def __str__(self) -> str:
        """Return the lines of the report."""
        where = f"task {self.task_id}" if self.task_id else "DAG"
        allow = f" Or --allow {self.feature}: {ALLOWABLE[self.feature]}." if self.feature in ALLOWABLE else ""
        return f"  {where}: {self.feature}: {self.reason}\n      {self.remedy}.{allow}"


class RefusedError(RayNodeError):
    """The DAG has features that cannot be exported; the message lists all of them."""

    def __init__(self, dag_id: str, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        things = "1 thing" if len(refusals) == 1 else f"{len(refusals)} things"
        lines = [f"{dag_id} cannot run on Argo as it is, nothing was written. {things} to change:"]
        super().__init__("\n".join([*lines, *map(str, refusals)]))


def check_allowed(allow: Iterable[str]) -> frozenset[str]:
    """Return the features to allow.

    :raises RayNodeError: some are none, or not safe to allow; a line for each.
    """
    asked = frozenset(allow)
    if unknown := sorted(asked - set(ALLOWABLE)):
        known = ", ".join(sorted(ALLOWABLE))
        near = {each: did_you_mean(each, ALLOWABLE).lstrip(",;") for each in unknown}
        raise RayNodeError("\n".join(f"--allow {each}:{hint} allowed are: {known}" for each, hint in near.items()))
    return asked


def find_refusals(dag: DAG, schedule: Schedule, *, pools: Iterable[str] = ()) -> list[Refusal]:
    """Return everything of a DAG that Argo cannot do, the DAG's own first, then by task.

    :param pools: the pools whose sizes the settings give.
    """
    found = [*_of_dag(dag, schedule), *_of_params(dag, schedule)]
    known = {_DEFAULT_POOL, *pools}
    for task in dag.tasks:
        found += _of_task(task, known)
        found += _of_rule(dag, task)
    return found


def without_earlier_runs() -> Refusal:
    """Return what is to be said where tasks ask for earlier runs, and each run has a catalog of its own."""
    return Refusal(
        "earlier-runs",
        "it asks for earlier runs (prev_…_success), and each run has a catalog of its own, which goes with it",
        "name a catalog in the settings that all runs share",
    )


def _of_dag(dag: DAG, schedule: Schedule) -> Iterator[Refusal]:
    if not dag.tasks:
        yield Refusal("empty-dag", "the DAG has no tasks", "add a task")
    for problem in schedule.problems:
        yield Refusal(problem.feature, problem.reason, problem.remedy)
    if schedule.repeats:
        yield from _of_dates(dag)
    if dag.deadline:
        yield Refusal(
            "deadline", "deadline alerts are sent by Airflow's scheduler", "use dagrun_timeout, which is held"
        )
    if dag.fail_fast:
        yield Refusal("fail-fast", "Argo's failFast lets running tasks end and skips none", "leave fail_fast out")
    if dag.max_consecutive_failed_dag_runs:
        yield Refusal(
            "max-consecutive-failed-runs",
            f"max_consecutive_failed_dag_runs={dag.max_consecutive_failed_dag_runs} pauses the DAG in Airflow",
            "leave it out",
        )
    for group, between in tasks_between(dag):
        yield Refusal(
            "group-cycle",
            f"it lies between two tasks of the mapped group {group}, which is one node in Argo",
            "move it into the group, or split the group in two",
            between,
        )


def _of_dates(dag: DAG) -> Iterator[Refusal]:
    if dag.catchup:
        yield Refusal("catchup", "Argo makes no runs for the past", "set catchup=False; submit past runs by hand")
    start, end = run_bounds(dag)
    for task in dag.tasks:
        # Airflow makes no instance of a task for a date outside its own.
        if task.start_date is not None and start is not None and task.start_date > max(start, datetime.now(UTC)):
            reason = f"the task's own start_date ({task.start_date:%Y-%m-%d %H:%M}) begins after the DAG's runs"
            yield Refusal("start-date", reason, "give it to the DAG, or export again then", task.task_id)
        if task.end_date is not None and (end is None or task.end_date < end):
            reason = f"the task's own end_date ({task.end_date:%Y-%m-%d %H:%M}) ends it before the DAG's runs"
            yield Refusal("end-date", reason, "give it to the DAG", task.task_id)


def _of_params(dag: DAG, schedule: Schedule) -> Iterator[Refusal]:
    for name in dag.params:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name == "logical-date":
            reason = f"the param {name!r} is not a name for a parameter of Argo"
            yield Refusal("param-name", reason, "name it with letters, digits, - and _ (logical-date is taken)")
        if schedule.kind != "template" and not has_default(dag.params.get_param(name)):
            reason = f"the param {name!r} has no default, and nobody gives it a value in a scheduled run"
            yield Refusal("param-value", reason, "give it a default")


def _of_task(task: Any, pools: set[str]) -> Iterator[Refusal]:
    names = {each.__name__ for each in operator_class(task).__mro__}
    for refusal in (
        *_of_operator(names),
        *_of_past(task),
        *_of_limits(task, pools),
        *_of_retries(task),
        *_of_pod(task),
    ):
        yield Refusal(refusal.feature, refusal.reason, refusal.remedy, task.task_id)


def _of_rule(dag: DAG, task: Any) -> Iterator[Refusal]:
    if rule_of(task) == "all_done_min_one_success" and _is_decided_unexpanded(dag, task):
        yield Refusal(
            "group-trigger-rule",
            "Airflow 3.3 makes a task with all_done_min_one_success upstream_failed in a group that is mapped over "
            "another task's output, whatever its upstream did",
            "use all_done or none_failed",
            task.task_id,
        )


def _is_decided_unexpanded(dag: DAG, task: Any) -> bool:
    """Whether Airflow asks a task's rule while its mapped group waits for the list, with no instances upstream yet."""
    scope = scope_of(task)
    if scope is None or not source_ids(mapped_node(dag, scope)):
        return False
    return any(scope_of(dag.task_dict[each]) == scope for each in task.upstream_task_ids)


def _of_operator(names: set[str]) -> Iterator[Refusal]:
    if "TriggerDagRunOperator" in names:
        yield Refusal(
            "trigger-dagrun",
            "TriggerDagRunOperator asks Airflow's scheduler for a run",
            "submit the other DAG's WorkflowTemplate with a task that creates a Workflow",
        )
    if names & {"ExternalTaskSensor", "ExternalTaskMarker"}:
        yield Refusal(
            "external-task",
            "it looks at runs of another DAG in Airflow's database",
            "wait for what the other DAG writes: a file, a table, an object",
        )
    if names & {"HITLOperator", "HITLEntryOperator", "HITLBranchOperator", "ApprovalOperator", "HITLTrigger"}:
        yield Refusal(
            "human-in-the-loop",
            "the answer comes through Airflow's UI",
            "split the DAG there, or keep this part in Airflow",
        )


def _of_past(task: Any) -> Iterator[Refusal]:
    # Airflow sets depends_on_past where wait_for_downstream is set: that is one thing to change.
    name = next((each for each in ("wait_for_downstream", "depends_on_past") if getattr(task, each, False)), None)
    if name is not None:
        yield Refusal(name.replace("_", "-"), f"{name} looks at the DAG's earlier run", f"set {name}=False on the task")


def _of_limits(task: Any, pools: set[str]) -> Iterator[Refusal]:
    if task.pool not in pools:
        yield Refusal(
            "pool",
            f"the size of the pool {task.pool!r} lies in Airflow's database",
            _pool_remedy(task.pool, pools),
        )
    if task.pool_slots != 1:
        yield Refusal(
            "pool-slots", f"pool_slots={task.pool_slots}: a semaphore's slots are taken singly", "set it to 1"
        )
    if task.max_active_tis_per_dagrun is not None:
        yield Refusal(
            "max-active-tis",
            f"max_active_tis_per_dagrun={task.max_active_tis_per_dagrun} has no counterpart within one workflow",
            "use max_active_tis_per_dag, which becomes a semaphore, or max_active_tasks",
        )


def _pool_remedy(name: str, pools: set[str]) -> str:
    near = did_you_mean(name, pools - {_DEFAULT_POOL})
    known = f"{near.removeprefix(', ')} Else " if near != ";" else ""
    return f"{known}give it in the settings: pools: {{{name}: 4}}"


def _of_retries(task: Any) -> Iterator[Refusal]:
    factor = float(task.retry_exponential_backoff or 0)
    if factor and not factor.is_integer() and task.retries:
        yield Refusal(
            "backoff-factor",
            f"retry_exponential_backoff={factor:g}: Argo's factor is a whole number",
            "use a whole one",
        )
    if task.retry_policy is not None:
        yield Refusal("retry-policy", "its delays are decided in Python after each failure", "use retry_delay")


def _of_pod(task: Any) -> Iterator[Refusal]:
    if getattr(task, "run_as_user", None):
        yield Refusal(
            "run-as-user",
            f"run_as_user={task.run_as_user!r} is sudo on an Airflow worker",
            "use security_context: {runAsUser: …} in the settings",
        )
    if task.outlets:
        yield Refusal("asset-outlets", "no scheduler hears of the assets that it updates", "leave outlets out")
    if problem := pod_override_problem(task.executor_config):
        yield Refusal("executor-config", problem, "say it in the settings, under tasks")


def ignored(dag: DAG) -> list[str]:
    """Return what has no counterpart and changes no result: told, not refused."""
    notes: list[str] = []
    if any(task.priority_weight != 1 for task in dag.tasks):
        notes.append("priority_weight has no counterpart between the tasks of one workflow: it is ignored")
    if any(task.queue not in ("default", None) for task in dag.tasks):
        notes.append("queue names Airflow's workers: it is ignored; say where pods run with node_selector")
    if any(getattr(task, "executor", None) for task in dag.tasks):
        notes.append("executor names Airflow's: it is ignored")
    for task in dag.tasks:
        if rule_of(task) in _EARLY_RULES and _is_decided_unexpanded(dag, task):
            notes.append(
                f"task {task.task_id}: {rule_of(task)} is decided for each map index by itself; where instances "
                "upstream in its mapped group fail, Airflow 3.3 may make it upstream_failed for all indexes at once"
            )
    if any(task.email for task in dag.tasks):
        notes.append("emails are sent by the pods: they need Airflow's [smtp] settings")
    return notes
