"""What Airflow makes of a DAG: `dag.test()`, read back from its database."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Instance = tuple[str, int]


@dataclass(frozen=True)
class Outcome:
    """A run: its state, and by task instance its state, its try number, its XComs as JSON data."""

    state: str
    states: dict[Instance, str]
    tries: dict[Instance, int]
    xcoms: dict[tuple[str, int, str], Any]


@contextmanager
def _short_waits() -> Iterator[None]:
    """Let `dag.test()` look again at once where no task could run: it sleeps a second, and only states change."""
    real = time.sleep

    def sleep(seconds: float) -> None:
        caller = sys._getframe(1).f_globals["__name__"]
        real(0.02 if caller == "airflow.sdk.definitions.dag" else seconds)

    time.sleep = sleep
    try:
        yield
    finally:
        time.sleep = real


@contextmanager
def _one_order() -> Iterator[None]:
    """Let Airflow look at a task's dependencies in one order: they are a set, whose order differs between processes.

    It matters where the trigger rule skips a task in the same look in which what it is mapped over turns out to have
    failed: the last one to look wins.
    """
    from airflow.models.taskinstance import TaskInstance

    real = TaskInstance.get_failed_dep_statuses

    def statuses(self: Any, dep_context: Any = None, *, session: Any) -> Iterator[Any]:
        for dep in sorted(dep_context.deps | self.task.deps, key=lambda dep: (dep.NAME.startswith("Mapped"), dep.NAME)):
            found = dep.get_dep_statuses(self, dep_context, session=session)
            yield from (each for each in found if not each.passed)

    TaskInstance.get_failed_dep_statuses = statuses
    try:
        yield
    finally:
        TaskInstance.get_failed_dep_statuses = real


def airflow_outcome(dag: Any, conf: dict[str, Any] | None = None) -> Outcome:
    """Run a live DAG once with `dag.test()`."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    bag = DagBag(os.devnull, collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    with _short_waits(), _one_order():
        run = dag.test(run_conf=conf)
    with create_session() as session:
        rows = session.query(XComModel).filter(XComModel.run_id == run.run_id, XComModel.dag_id == run.dag_id)
        xcoms = {(row.task_id, row.map_index, row.key): row.value for row in rows}
    instances = run.get_task_instances()
    return Outcome(
        state=str(run.state.value),
        states={(ti.task_id, ti.map_index): str(ti.state) for ti in instances},
        tries={(ti.task_id, ti.map_index): ti.try_number for ti in instances},
        xcoms=xcoms,
    )
