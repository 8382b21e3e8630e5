"""Which tasks of a DAG are a Ray node's, and which of them belong together: a pod asks as well as the export."""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode.argo.shape import operator_class


def is_execution(task: Any) -> bool:
    """Whether a task is the execution task of a Ray node."""
    return _is_a(task, "RayExecutionOperator") and not is_one_task(task)


def is_fan_out(task: Any) -> bool:
    """Whether a task is the fan-out of a Ray node."""
    return _is_a(task, "RayFanOutOperator")


def is_one_task(task: Any) -> bool:
    """Whether a task stages, runs and collects by itself: `@task.ray`, a RaySubmitJobOperator."""
    return _is_a(task, "RayOneTaskOperator")


def _is_a(task: Any, name: str) -> bool:
    return any(each.__name__ == name for each in operator_class(task).__mro__)


def fan_out_of(task: Any) -> Any:
    """Return the fan-out whose job an execution task runs, None where its `job` is no XCom of one."""
    return getattr(getattr(task, "job", None), "operator", None)
