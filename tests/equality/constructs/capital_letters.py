"""Ids with capital letters, and ids that only capital letters tell apart: each has a pod of its own."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, TaskGroup, task, task_group

NOW = timedelta(0)


@task
def one(n=1):
    return n


with DAG("Capital_Letters", schedule=None):
    first = one.override(task_id="Load_Daily", retries=1, retry_delay=NOW)()
    one.override(task_id="load_daily", retries=2, retry_delay=NOW)(first)
    one.override(task_id="LOAD_DAILY", retries=3, retry_delay=NOW)(first)
    one.override(task_id="Plain")()

with DAG("capital_groups", schedule=None):

    @task(retries=1, retry_delay=NOW)
    def Listed():
        return ["a", "b"]

    def work(n):
        one.override(task_id="Work", execution_timeout=timedelta(hours=1))(n) >> one.override(task_id="work")(n)

    items = Listed()
    task_group(group_id="Each")(work).expand(n=items)
    task_group(group_id="each")(work).expand(n=items)
    with TaskGroup("Outer"):
        one.override(task_id="Mapped", retries=4).expand(n=items)
