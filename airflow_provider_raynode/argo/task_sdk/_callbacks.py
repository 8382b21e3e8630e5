"""The context of a DAG's callbacks, as Airflow's DAG processor builds it: that of the task instance that decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.task_sdk._run import DagRunInfo, TaskRun

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore, TaskRecord


@contextlib.contextmanager
def dag_callback_context(dag: DAG, store: RunStore, run: DagRunInfo, *, succeeded: bool) -> Iterator[dict[str, Any]]:
    """Yield the context for a DAG's callbacks; XComs, variables and connections can be read within.

    `ti` is the last task instance that failed, or that succeeded. Where there is none, the context has no `ti`, as in
    Airflow.
    """
    from airflow.sdk.api.datamodels._generated import DagRunState

    record = _last(dag, store, succeeded=succeeded)
    task_id = dag.task_ids[0] if record is None else record.task_id
    instance = TaskRun(dag, task_id, -1 if record is None else record.map_index, store, run)
    with instance.connected():
        context = instance.callback_context(record)
        context["dag_run"].state = DagRunState.SUCCESS if succeeded else DagRunState.FAILED
        context["reason"] = "success" if succeeded else "task_failure"
        yield context


def _last(dag: DAG, store: RunStore, *, succeeded: bool) -> TaskRecord | None:
    """Return the record of the task instance that ended last with the run's own state."""
    # What a killed pod left is a failure.
    wanted = ("success",) if succeeded else ("failed", "running", "up_for_retry")
    found = [
        record
        for task_id in dag.task_ids
        for index in (-1, *store.map_indexes(task_id))
        if (record := store.record(task_id, index)) is not None and record.state in wanted
    ]
    return max(found, key=lambda record: record.ended or record.started, default=None)
