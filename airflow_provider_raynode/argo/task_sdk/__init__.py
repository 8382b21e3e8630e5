"""The one place that uses Airflow's internals: a task through the Task SDK with no database and no API server.

`_imports.py` imports the task runner, `_run.py` builds the task instance and runs it over deferrals and reschedules,
`_comms.py` answers what the SDK asks its supervisor, `_dates.py` gives a run its dates, `_fire_times.py` says when the
scheduler starts runs, `_triggers.py` runs a trigger inline, `_signals.py` ends a pod on SIGTERM, `_subprocess.py`
serves the Python processes that a task starts, `_callbacks.py` gives a DAG's callbacks their context, `_dag.py` reads
what a DAG keeps to itself, `_logs.py` prints and masks. Written for Airflow 3.3; a test per message type shows what a
new version asks differently.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.task_sdk._callbacks import dag_callback_context as dag_callback_context
    from airflow_provider_raynode.argo.task_sdk._comms import UnsupportedMessageError as UnsupportedMessageError
    from airflow_provider_raynode.argo.task_sdk._dates import RunDates as RunDates
    from airflow_provider_raynode.argo.task_sdk._dates import run_dates as run_dates
    from airflow_provider_raynode.argo.task_sdk._fire_times import FireTimes as FireTimes
    from airflow_provider_raynode.argo.task_sdk._imports import import_task_runner as import_task_runner
    from airflow_provider_raynode.argo.task_sdk._logs import container_logs as container_logs
    from airflow_provider_raynode.argo.task_sdk._run import DagRunInfo as DagRunInfo
    from airflow_provider_raynode.argo.task_sdk._run import TaskCallError as TaskCallError
    from airflow_provider_raynode.argo.task_sdk._run import TaskResult as TaskResult
    from airflow_provider_raynode.argo.task_sdk._run import TaskRun as TaskRun

# Loaded at first use: the export needs `_dag` alone, and those who need the rest are needed by it.
_PLACES = {
    "DagRunInfo": "_run",
    "FireTimes": "_fire_times",
    "RunDates": "_dates",
    "TaskCallError": "_run",
    "TaskResult": "_run",
    "TaskRun": "_run",
    "UnsupportedMessageError": "_comms",
    "container_logs": "_logs",
    "dag_callback_context": "_callbacks",
    "import_task_runner": "_imports",
    "run_dates": "_dates",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
