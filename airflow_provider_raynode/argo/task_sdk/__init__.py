"""The one place that uses Airflow's internals: a task through the Task SDK with no database and no API server.

`_run.py` builds the task instance and runs it over deferrals and reschedules, `_comms.py` answers what the SDK asks
its supervisor, `_dates.py` gives a run its dates, `_triggers.py` runs a trigger inline, `_signals.py` ends a pod on
SIGTERM, `_subprocess.py` serves the Python processes that a task starts, `_callbacks.py` gives a DAG's callbacks their
context, `_logs.py` prints and masks. Written for Airflow 3.3; a test per message type shows what a
new version asks differently.
"""

from __future__ import annotations

from airflow_provider_raynode.argo.task_sdk._callbacks import dag_callback_context
from airflow_provider_raynode.argo.task_sdk._comms import UnsupportedMessageError
from airflow_provider_raynode.argo.task_sdk._dates import RunDates, run_dates
from airflow_provider_raynode.argo.task_sdk._logs import container_logs
from airflow_provider_raynode.argo.task_sdk._run import DagRunInfo, TaskCallError, TaskResult, TaskRun

__all__ = [
    "DagRunInfo",
    "RunDates",
    "TaskCallError",
    "TaskResult",
    "TaskRun",
    "UnsupportedMessageError",
    "container_logs",
    "dag_callback_context",
    "run_dates",
]
