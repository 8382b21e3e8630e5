"""Retries, failures that are final, time limits, callbacks, the task state store."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

NOW = timedelta(0)
SOON = timedelta(milliseconds=10)


@task
def after():
    return "after"


def try_number():
    return get_current_context()["ti"].try_number


def note(line):
    """Append a line to the run's own file of notes, where the test has made one."""
    folder = Path(os.environ.get("RAYNODE_EQUALITY_NOTES", "/nonexistent"))
    if folder.is_dir():
        with (folder / "notes.txt").open("a") as file:
            file.write(f"{line}\n")


with DAG("second_try_succeeds", default_args={"retry_delay": NOW}):

    @task(retries=1)
    def second():
        if try_number() == 1:
            raise ValueError("the first")
        return try_number()

    second() >> after()

with DAG("third_try_succeeds"):

    @task(retries=4, retry_delay=SOON, retry_exponential_backoff=2, max_retry_delay=timedelta(seconds=1))
    def third():
        if try_number() < 3:
            raise ValueError("not yet")
        return try_number()

    third() >> after()

with DAG("retries_used_up"):

    @task(retries=2, retry_delay=NOW)
    def never():
        raise ValueError("never")

    never() >> after()

with DAG("final_failure"):

    @task(retries=3, retry_delay=NOW)
    def final():
        raise AirflowFailException("no more")

    final() >> after()

with DAG("xcoms_of_a_failed_try_are_gone"):

    @task(retries=1, retry_delay=NOW)
    def pushes():
        ti = get_current_context()["ti"]
        before = ti.xcom_pull(task_ids="pushes", key="mark")
        ti.xcom_push("mark", f"try {ti.try_number}")
        if ti.try_number == 1:
            ti.xcom_push("first", 1)
            raise ValueError("again")
        return [before, ti.xcom_pull(task_ids="pushes", key="first")]

    @task
    def looks():
        ti = get_current_context()["ti"]
        return [ti.xcom_pull(task_ids="pushes", key="first"), ti.xcom_pull(task_ids="pushes", key="mark")]

    pushes() >> looks()

with DAG("state_survives_a_try"):

    @task(retries=1, retry_delay=NOW)
    def keeps():
        store = get_current_context()["task_state_store"]
        seen = store.get("seen", 0)
        store.set("seen", seen + 1)
        if seen == 0:
            raise ValueError("again")
        return store.get("seen")

    keeps()

with DAG("skip_on_the_second_try"):
    from airflow.sdk.exceptions import AirflowSkipException

    @task(retries=2, retry_delay=NOW)
    def skips():
        if try_number() == 1:
            raise ValueError("again")
        raise AirflowSkipException("enough")

    skips() >> after()

with DAG("execution_timeout"):

    @task(execution_timeout=timedelta(seconds=1))
    def slow():
        time.sleep(30)

    slow() >> after()

with DAG("exit_in_a_task"):

    @task(retries=1, retry_delay=NOW)
    def leaves():
        if try_number() == 1:
            raise SystemExit(3)
        return "stayed"

    leaves()

with DAG(
    "callbacks",
    on_success_callback=lambda context: note(f"dag success {context['dag'].dag_id}"),
    on_failure_callback=lambda context: note(f"dag failure {context['dag'].dag_id}"),
):

    @task(
        retries=1,
        retry_delay=NOW,
        on_execute_callback=lambda context: note("execute"),
        on_retry_callback=lambda context: note("retry"),
        on_success_callback=[lambda context: note("success one"), lambda context: note("success two")],
    )
    def called():
        if try_number() == 1:
            raise ValueError("again")

    @task(on_failure_callback=lambda context: note(f"failure {type(context['exception']).__name__}"))
    def fails():
        raise KeyError("x")

    @task(on_skipped_callback=lambda context: note("skipped"))
    def skipped():
        from airflow.sdk.exceptions import AirflowSkipException

        raise AirflowSkipException

    called() >> fails() >> skipped.override(trigger_rule="all_done")() >> after.override(trigger_rule="all_done")()

with DAG("empty_with_a_callback"):
    EmptyOperator(task_id="calls", on_success_callback=lambda context: note("empty")) >> after()

with DAG("pools_and_limits", max_active_tasks=2):

    @task(max_active_tis_per_dag=1, priority_weight=5)
    def limited(n):
        return n

    limited.expand(n=[1, 2, 3])
