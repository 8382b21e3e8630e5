"""Skips, branches, short circuits, and every trigger rule in a place where it is used."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG, TaskGroup, task
from airflow.sdk.exceptions import AirflowSkipException


@task
def work():
    return "work"


@task
def skip():
    raise AirflowSkipException("on purpose")


@task
def fail():
    raise ValueError("on purpose")


def named(function, task_id, rule="all_success"):
    return function.override(task_id=task_id, trigger_rule=rule)()


with DAG("skip_goes_on"):
    skip() >> named(work, "skipped_too") >> named(work, "and_this")

with DAG("skip_beside_success"):
    [skip(), named(work, "good")] >> named(work, "strict") >> named(work, "below", "none_failed")

with DAG("rules_in_use"):
    good, bad, left = named(work, "good"), named(fail, "bad"), named(skip, "left")
    [good, bad, left] >> named(work, "always_cleans_up", "all_done")
    [good, bad] >> named(work, "alarm", "one_failed")
    [good, left] >> named(work, "goes_on", "none_failed")
    [good, left] >> named(work, "goes_on_with_one", "none_failed_min_one_success")
    [bad, left] >> named(work, "any", "one_success")
    [good, bad] >> named(work, "first_done", "one_done")
    [good, bad] >> named(work, "nothing_skipped", "none_skipped")
    [good, bad] >> named(work, "done_and_one_good", "all_done_min_one_success")
    left >> named(work, "only_if_skipped", "all_skipped")
    bad >> named(work, "only_if_failed", "all_failed")
    bad >> named(work, "at_once", "always")

with DAG("end_of_a_failed_run_that_succeeds"):
    fail() >> named(work, "cleans_up", "all_done")

with DAG("rules_after_upstream_failed"):
    stopped = named(work, "stopped")
    fail() >> stopped
    for rule in ("all_done", "one_failed", "one_done", "all_failed", "one_success", "none_skipped", "all_skipped"):
        stopped >> named(work, f"after_{rule}", rule)

with DAG("branch_to_one"):

    @task.branch
    def choose():
        return "left"

    choose() >> [named(work, "left"), named(work, "right")] >> named(work, "join", "none_failed_min_one_success")

with DAG("branch_to_two"):

    @task.branch
    def choose_two():
        return ["a", "c"]

    choose_two() >> [named(work, each) for each in "abc"]

with DAG("branch_to_none"):

    @task.branch
    def choose_none():
        return None

    choose_none() >> [named(work, "a"), named(work, "b", "all_done")] >> named(work, "join", "all_done")

with DAG("branch_past_a_task_to_the_join"):

    @task.branch
    def choose_join():
        return "join"

    chosen = choose_join()
    join = named(work, "join", "none_failed_min_one_success")
    chosen >> named(work, "detour") >> join
    chosen >> join

with DAG("branches_in_branches"):

    @task.branch
    def outer():
        return "inner"

    @task.branch
    def inner():
        return "deep"

    within = inner()
    outer() >> [within, named(work, "beside")]
    within >> [named(work, "deep"), named(work, "shallow")] >> named(work, "end", "none_failed_min_one_success")

with DAG("branch_in_a_group"):

    @task.branch
    def choose_in_group():
        return "group.yes"

    with TaskGroup("group"):
        choose_in_group() >> [named(work, "yes"), named(work, "no")]

with DAG("branch_that_fails"):

    @task.branch
    def broken():
        raise ValueError("undecided")

    broken() >> [named(work, "a"), named(work, "b", "all_done")]

with DAG("branch_and_another_upstream"):

    @task.branch
    def choose_other():
        return "other"

    choose_other() >> [named(work, "other"), (both := named(work, "both"))]
    fail() >> both

with DAG("branch_over_empty_operators"):

    @task.branch
    def choose_empty():
        return "yes"

    (
        choose_empty()
        >> [EmptyOperator(task_id="yes"), EmptyOperator(task_id="no")]
        >> EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
    )

with DAG("short_circuit"):

    @task.short_circuit
    def stop():
        return False

    stop() >> named(work, "a") >> named(work, "b", "all_done") >> named(work, "c", "none_failed")

with DAG("short_circuit_that_goes_on"):

    @task.short_circuit
    def go():
        return True

    go() >> named(work, "a") >> named(work, "b", "all_done")

with DAG("short_circuit_of_the_next_only"):

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def stop_next():
        return False

    stop_next() >> named(work, "a") >> named(work, "b", "all_done") >> named(work, "c")

with DAG("short_circuit_and_another_upstream"):

    @task.short_circuit
    def stop_here():
        return 0

    stopped_here = named(work, "a")
    stop_here() >> stopped_here
    [stopped_here, named(work, "free")] >> named(work, "end", "none_failed_min_one_success")

with DAG("latest_only"):
    LatestOnlyOperator(task_id="latest") >> named(work, "a") >> named(work, "b", "all_done")
