"""Mapped tasks and groups whose sources were skipped, failed, or did both by index."""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


@task
def end():
    return "end"


@task
def numbers():
    return [1, 2]


@task
def double(x):
    return [x, x]


@task
def skipped():
    raise AirflowSkipException


@task
def failing():
    raise ValueError


@task
def two_fails(x):
    if x == 2:
        raise ValueError
    return x


@task
def two_skips(x):
    if x == 2:
        raise AirflowSkipException
    return x


@task_group
def group(x):
    return double.override(task_id="last")(double(x))


with DAG("branch_past_the_source_of_a_mapped_task"):

    @task.branch
    def choose():
        return "other"

    source = numbers()
    choose() >> [source, end.override(task_id="other")()]
    mapped = double.override(trigger_rule="none_failed").expand(x=source)
    mapped >> end.override(task_id="join", trigger_rule="none_failed")()

with DAG("mapped_over_a_skip_whatever_its_rule"):
    for rule in ("none_failed", "all_done", "all_skipped", "none_failed_min_one_success"):
        over = double.override(task_id=rule, trigger_rule=rule).expand(x=skipped.override(task_id=f"skipped_{rule}")())
        over >> end.override(task_id=f"end_{rule}", trigger_rule="none_failed")()

with DAG("mapped_over_one_skip_and_one_success"):
    pairs = numbers().zip(skipped()).map(lambda pair: {"x": pair[0]})
    double.override(trigger_rule="none_failed").expand_kwargs(pairs)

with DAG("source_that_pushed_before_it_ended_badly"):

    @task
    def pushes(kind):
        get_current_context()["ti"].xcom_push("return_value", [1, 2])
        raise AirflowSkipException if kind == "skip" else ValueError

    double.override(trigger_rule="all_done").expand(x=pushes("skip"))
    double.override(task_id="after_failure", trigger_rule="all_done").expand(x=pushes.override(task_id="fails")("fail"))

with DAG("below_a_group_over_a_failed_task"):

    @task_group
    def unmade(x):
        return double(x) >> end.override(task_id="inside", trigger_rule="one_done")()

    unmade.expand(x=failing()) >> end.override(task_id="below", trigger_rule="none_failed")()

with DAG("group_over_a_mapped_task_that_fails_at_one_index"):
    group.expand(x=two_fails.expand(x=[1, 2, 3]))

with DAG("group_over_a_mapped_task_that_skips_at_one_index"):
    group.expand(x=two_skips.expand(x=[1, 2, 3])) >> end.override(trigger_rule="none_failed")()

with DAG("group_over_a_mapped_task_that_takes_failures"):

    @task_group
    def tolerant(x):
        return double.override(task_id="last")(double.override(trigger_rule="all_done")(x))

    tolerant.expand(x=two_fails.expand(x=[1, 2, 3]))

with DAG("short_circuit_past_a_literal"):

    @task.short_circuit
    def stop():
        return False

    stop() >> end() >> double.override(trigger_rule="all_done").expand(x=[1, 2])
