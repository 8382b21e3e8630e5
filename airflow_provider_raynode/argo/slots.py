"""Tasks that wait without a slot in Airflow, and with one on Argo: where they may hold all slots, nothing goes on.

A sensor that reschedules and a deferred task give their slot back while they wait. On Argo both wait in their pod,
which counts for `parallelism` and holds its semaphores. Argo takes a semaphore for the node, and holds it between the
tries. So a rescheduling pod that ended and was tried again would free `parallelism` only; and each poke would be a node
in the workflow's status, of which Kubernetes keeps 1 MiB.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.checks import Refusal
from airflow_provider_raynode.argo.expansion import total_length
from airflow_provider_raynode.argo.shape import is_podless, operator_class, scope_of
from airflow_provider_raynode.argo.task_sdk._dag import expand_input

if TYPE_CHECKING:
    from airflow.sdk import DAG

# They wait for the clock, never for another task.
_BY_THE_CLOCK = {
    "DateTimeSensor",
    "DateTimeSensorAsync",
    "DayOfWeekSensor",
    "TimeDeltaSensor",
    "TimeDeltaSensorAsync",
    "TimeSensor",
    "TimeSensorAsync",
    "WaitSensor",
}
# A Ray node waits for its own job, which has a place of its own.
_OF_RAY_NODES = {"RayFanOutOperator", "RayExecutionOperator", "RayFanInOperator"}
_SHOWN = 4
_WAITING_CODE = {"defer", "AirflowRescheduleException"}


@dataclass(frozen=True)
class _Limit:
    """Slots that some tasks of a DAG share."""

    slots: int
    name: str
    remedy: str
    members: tuple[Any, ...]


def waits_elsewhere(task: Any) -> bool:
    """Whether a task waits by deferring or rescheduling: Airflow gives its slot to others meanwhile."""
    options = task.partial_kwargs if task.is_mapped else vars(task)
    deferrable = options.get("deferrable", _default_deferrable(task))
    if deferrable is not None:
        return bool(deferrable) or options.get("mode") == "reschedule"
    if options.get("mode") == "reschedule" or "Async" in operator_class(task).__name__:
        return True
    return bool(_WAITING_CODE & _names_in_code(task, options))


def _default_deferrable(task: Any) -> Any:
    """Return what a mapped task's operator takes where nothing is said."""
    parameter = inspect.signature(operator_class(task).__init__).parameters.get("deferrable")  # type: ignore[misc]
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def slot_refusals(dag: DAG, pools: Mapping[str, int], parallelism: int | None) -> list[Refusal]:
    """Return the tasks that may hold every slot while another one, which they may wait for, cannot start.

    :param pools: sizes of the pools.
    :param parallelism: what the settings say instead of max_active_tasks.
    """
    found = {
        (waiter.task_id, limit.name): Refusal(
            "waiting-slots",
            f"{_how(waiter)}, and on Argo it holds one of the {limit.slots} slots of {limit.name} meanwhile, which "
            f"Airflow gives back: when all are held so, {other} cannot start, and if that is what it waits for, it "
            "waits for ever",
            limit.remedy.format(width + 1),
            waiter.task_id,
        )
        for limit in _limits(dag, pools, parallelism)
        for waiters, other, width in _standstills(dag, limit)
        for waiter in waiters
    }
    return list(found.values())


def slot_notes(dag: DAG, pools: Mapping[str, int]) -> list[str]:
    """Return warnings about slots that are held longer than in Airflow."""
    found: dict[str, list[str]] = {}
    for task in dag.tasks:
        names = [f"the pool {task.pool}"] if task.pool in pools else []
        names += ["max_active_tis_per_dag"] if task.max_active_tis_per_dag is not None else []
        when = "waits" if _is_waiter(task) else "waits for a retry" if task.retries and task.retry_delay else ""
        if names and when:
            found.setdefault(f"a slot of {' and of '.join(names)} is held while the task {when}", []).append(
                task.task_id
            )
    return [f"{_listed(ids)}: {what}; Airflow gives it back" for what, ids in found.items()]


def _listed(ids: list[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    return f"task {shown}" if len(ids) == 1 else f"tasks {shown}{', …' if len(ids) > _SHOWN else ''} ({len(ids)})"


def _limits(dag: DAG, pools: Mapping[str, int], parallelism: int | None) -> Iterator[_Limit]:
    pods = tuple(task for task in dag.tasks if not is_podless(task))
    if parallelism is None:
        remedy = "set max_active_tasks, or parallelism in the settings, to {} or more"
        yield _Limit(int(dag.max_active_tasks), "max_active_tasks", remedy, pods)
    else:
        yield _Limit(parallelism, "parallelism of the settings", "set it to {} or more", pods)
    for name, slots in pools.items():
        members = tuple(task for task in pods if task.pool == name)
        remedy = f"give the pool {{}} or more slots in the settings (pools: {name}), or take the task out of it"
        yield _Limit(slots, f"the pool {name}", remedy, members)


def _standstills(dag: DAG, limit: _Limit) -> Iterator[tuple[list[Any], str, int]]:
    """Yield waiters that can hold all slots at once, the task that cannot start then, and how many they can hold."""
    waiters = [task for task in limit.members if _is_waiter(task)]
    if not waiters:
        return
    below: dict[str, set[str]] = {task.task_id: task.get_flat_relative_ids(upstream=False) for task in limit.members}

    def is_beside(one: Any, other: Any) -> bool:
        """Whether instances of two tasks may run at the same time."""
        if scope_of(one) is not None and scope_of(one) == scope_of(other):
            return True
        if one is other:
            return _instances(dag, one, 2) > 1
        return other.task_id not in below[one.task_id] and one.task_id not in below[other.task_id]

    for other in limit.members:
        # A sensor makes nothing that another task could wait for.
        if _is_sensor(other):
            continue
        beside = [each for each in waiters if each is not other and is_beside(each, other)]
        counts = {each.task_id: _instances(dag, each, limit.slots) for each in beside}
        width = max(_width(counts, below), *counts.values()) if counts else 0
        if width >= limit.slots:
            yield beside, other.task_id, width


def _width(counts: Mapping[str, int], below: Mapping[str, set[str]]) -> int:
    """Return how many instances can wait at the same time: none of them after another (Dilworth)."""
    copies = [(name, number) for name, count in counts.items() for number in range(count)]
    matched: dict[tuple[str, int], tuple[str, int]] = {}

    def is_matched(one: tuple[str, int], seen: set[tuple[str, int]]) -> bool:
        for other in copies:
            if other[0] in below[one[0]] and other not in seen:
                seen.add(other)
                if other not in matched or is_matched(matched[other], seen):
                    matched[other] = one
                    return True
        return False

    return len(copies) - sum(is_matched(each, set()) for each in copies)


def _instances(dag: DAG, task: Any, most: int) -> int:
    """Return how many instances of a task a run has, `most` where they are more or not known yet."""
    if scope_of(task) is not None:
        return most
    if not task.is_mapped:
        return 1
    length = total_length(expand_input(task), lambda *_: None)
    return most if length is None else min(length, most)


def _is_waiter(task: Any) -> bool:
    names = _class_names(task)
    return waits_elsewhere(task) and not names & _OF_RAY_NODES and not names & _BY_THE_CLOCK


def _is_sensor(task: Any) -> bool:
    return "BaseSensorOperator" in _class_names(task)


def _class_names(task: Any) -> set[str]:
    return {each.__name__ for each in operator_class(task).__mro__}


def _how(task: Any) -> str:
    options = task.partial_kwargs if task.is_mapped else vars(task)
    return "it reschedules" if options.get("mode") == "reschedule" else "it waits deferred"


def _names_in_code(task: Any, options: Mapping[str, Any]) -> set[str]:
    """Return what the code of an operator's own class and of its function names."""
    own: Iterable[Callable[..., Any]] = (
        each
        for cls in operator_class(task).__mro__
        if not cls.__module__.startswith(("airflow.sdk.bases", "builtins"))
        for each in vars(cls).values()
    )
    found: set[str] = set()
    for each in (*own, options.get("python_callable")):
        code = getattr(getattr(each, "__wrapped__", each), "__code__", None)
        found |= set(code.co_names) if code is not None else set()
    return found
