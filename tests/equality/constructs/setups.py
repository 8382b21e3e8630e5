"""Setups and teardowns."""

from __future__ import annotations

from airflow.sdk import DAG, setup, task, teardown
from airflow.sdk.exceptions import AirflowSkipException


@setup
def make():
    return "made"


@setup
def cannot_make():
    raise ValueError("no")


@setup
def need_not_make():
    raise AirflowSkipException


def remove():
    """Return a teardown task; Airflow takes a decorated teardown once only."""

    @teardown
    def remove():
        return "removed"

    return remove()


def cannot_remove():
    @teardown
    def cannot_remove():
        raise ValueError("no")

    return cannot_remove()


def must_remove():
    @teardown(on_failure_fail_dagrun=True)
    def must_remove():
        raise ValueError("no")

    return must_remove()


@task
def work():
    return "work"


@task
def fail():
    raise ValueError("no")


def around(before, within, after):
    made, removed = before(), after()
    made >> within >> removed
    made >> removed


with DAG("setup_and_teardown"):
    around(make, work(), remove)

with DAG("work_that_fails"):
    around(make, fail(), remove)

with DAG("setup_that_fails"):
    around(cannot_make, work(), remove)

with DAG("setup_that_is_skipped"):
    around(need_not_make, work(), remove)

with DAG("teardown_that_fails"):
    around(make, work(), cannot_remove)

with DAG("teardown_that_must_not_fail"):
    around(make, work(), must_remove)

with DAG("after_a_teardown"):
    made, removed = make(), remove()
    made >> fail() >> removed >> work.override(task_id="next", trigger_rule="all_done")()
    made >> removed

with DAG("rule_within_a_setup"):
    first, last = cannot_make(), remove()
    inner = work()
    first >> inner >> work.override(task_id="whatever", trigger_rule="all_done")() >> last
    first >> last

with DAG("two_setups"):
    a, b, gone = make.override(task_id="a")(), cannot_make.override(task_id="b")(), remove()
    [a, b] >> work() >> gone
    [a, b] >> gone

with DAG("context_manager"), remove().as_teardown(setups=make()):
    work() >> fail()

with DAG("short_circuit_leaves_the_teardown"):

    @task.short_circuit
    def stop():
        return False

    begun, over = make(), remove()
    begun >> stop() >> work() >> over
    begun >> over

with DAG("only_a_teardown_is_left"):
    around(make, work(), remove)
    fail.override(task_id="beside")() >> work.override(task_id="recover", trigger_rule="all_done")()
