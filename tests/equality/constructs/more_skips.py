"""Branches to groups and over mapped tasks, several skippers over one task, groups in a chain."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.sdk import DAG, TaskGroup, chain, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


@task
def work(*values):
    return "work"


@task
def fail():
    raise ValueError("on purpose")


@task
def skip():
    raise AirflowSkipException


@task
def numbers():
    return [1, 2]


@task
def double(x):
    return x * 2


def named(function, task_id, rule="all_success"):
    return function.override(task_id=task_id, trigger_rule=rule)()


with DAG("branch_to_a_group"):

    @task.branch
    def choose_group():
        return "chosen"

    with TaskGroup("chosen") as chosen:
        named(work, "a") >> named(work, "b")
        named(work, "root_too")
    with TaskGroup("other") as other:
        named(work, "a") >> named(work, "b")
    choose_group() >> [chosen, other] >> named(work, "join", "none_failed_min_one_success")

with DAG("branch_to_a_mapped_task"):

    @task.branch
    def choose_mapped():
        return "double"

    choose_mapped() >> [mapped := double.expand(x=numbers()), named(work, "other")]
    mapped >> named(work, "join", "none_failed_min_one_success")

with DAG("branch_away_from_a_mapped_task"):

    @task.branch
    def choose_other():
        return "other"

    choose_other() >> [away := double.expand(x=numbers()), named(work, "other")]
    away >> named(work, "end", "all_done")

with DAG("branch_away_from_a_mapped_group"):

    @task.branch
    def choose_beside():
        return "beside"

    @task_group
    def grouped(x):
        return double.override(task_id="again")(double(x))

    choose_beside() >> [left := grouped.expand(x=numbers()), named(work, "beside")]
    left >> named(work, "end", "none_failed_min_one_success")

with DAG("branch_to_a_mapped_group"):

    @task.branch
    def choose_the_group():
        return "inside.double"

    @task_group
    def inside(x):
        return double(x)

    choose_the_group() >> [inside.expand(x=[1, 2]), named(work, "beside")]

with DAG("two_branches_over_one_task"):

    @task.branch
    def first():
        return "x"

    @task.branch
    def second():
        return "y"

    x, y, z = (named(work, each) for each in "xyz")
    first() >> [x, z]
    second() >> [y, z]
    [x, y, z] >> named(work, "join", "none_failed_min_one_success")

with DAG("branch_that_skips_itself"):

    @task.branch
    def undecided():
        raise AirflowSkipException

    undecided() >> [named(work, "a"), named(work, "b", "all_done")]

with DAG("branch_that_retries"):

    @task.branch(retries=1, retry_delay=0)
    def at_last():
        if get_current_context()["ti"].try_number == 1:
            raise ValueError
        return "b"

    at_last() >> [named(work, "a"), named(work, "b")]

with DAG("branch_below_a_skip"):

    @task.branch
    def never():
        return "a"

    skip() >> never() >> [named(work, "a"), named(work, "b", "all_done")]

with DAG("branch_behind_all_done"):

    @task.branch(trigger_rule="all_done")
    def anyway():
        return "b"

    fail() >> anyway() >> [named(work, "a", "none_failed"), named(work, "b")]

with DAG("classic_branch"):
    (
        BranchPythonOperator(task_id="choose", python_callable=lambda n: f"way_{n}", op_args=["{{ 1 + 1 }}"])
        >> [named(work, "way_1"), named(work, "way_2"), named(work, "way_3", "all_done")]
        >> named(work, "join", "one_success")
    )

with DAG("branch_over_rules_that_do_not_care"):

    @task.branch
    def pick():
        return "kept"

    pick() >> [
        named(work, "kept"),
        *(named(work, f"dropped_{rule}", rule) for rule in ("all_done", "always", "one_failed")),
    ]

with DAG("run_if_and_skip_if"):

    @task.skip_if(lambda context: True)
    @task
    def skipped_if():
        return 1

    @task.run_if(lambda context: True)
    @task
    def run_if():
        return 2

    skipped_if() >> run_if() >> named(work, "end", "none_failed")
    skipped_if.override(task_id="alone")() >> named(work, "after", "none_failed")

with DAG("short_circuit_behind_short_circuit"):

    @task.short_circuit
    def goes():
        return 1

    @task.short_circuit
    def stops():
        return None

    goes() >> named(work, "a") >> stops() >> named(work, "b") >> named(work, "c", "all_done")

with DAG("short_circuit_before_mapping"):

    @task.short_circuit
    def stop():
        return False

    stop() >> (source := numbers())
    double.expand(x=source) >> named(work, "end", "all_done")

with DAG("short_circuit_next_only_before_mapping"):
    ShortCircuitOperator(task_id="stop", python_callable=lambda: False, ignore_downstream_trigger_rules=False) >> (
        source := numbers()
    )
    double.expand(x=source) >> named(work, "end", "all_done")

with DAG("short_circuit_before_a_mapped_group"):

    @task.short_circuit
    def halt():
        return False

    @task_group
    def halted(x):
        return double.override(task_id="again", trigger_rule="all_done")(double(x))

    halt() >> halted.expand(x=[1, 2]) >> named(work, "end", "all_done")

with DAG("groups_in_a_chain"):
    with TaskGroup("one") as one_group:
        a, b = named(work, "a"), named(work, "b")
        with TaskGroup("deep", default_args={"trigger_rule": "all_done"}):
            a >> EmptyOperator(task_id="join")
    with TaskGroup("two") as two_group:
        named(fail, "a") >> named(work, "b")
    with TaskGroup("three") as three_group:
        named(work, "a", "one_failed")
    chain(named(work, "start"), one_group, two_group, three_group, named(work, "end"))
