"""Mapped tasks and groups below one another, retries and rules by index, every rule over instances of every kind."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, TaskGroup, get_current_context, setup, task, task_group, teardown
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

NOW = timedelta(0)
RULES = (
    "all_success",
    "all_failed",
    "all_done",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_skipped",
    "none_failed_min_one_success",
    "all_skipped",
    "all_done_min_one_success",
    "always",
)


# Airflow refuses `always` for a mapped task, and in a mapped group, where a task makes the list.
MAPPED_RULES = RULES[:-1]
# all_done_min_one_success is refused in a group that is mapped over an output: Airflow fails it whatever happened.
GROUP_RULES = MAPPED_RULES[:-1]


@task
def numbers():
    return [1, 2, 3]


@task
def double(x, by=2):
    return x * by


@task
def collect(values):
    return list(values)


@task
def end():
    return "end"


@task
def by_number(x):
    if x == 2:
        raise AirflowSkipException
    if x == 3:
        raise ValueError(x)
    return x


@task
def skipped():
    raise AirflowSkipException


@task
def failing():
    raise ValueError


def ends(upstream):
    for rule in RULES:
        upstream >> end.override(task_id=f"end_{rule}", trigger_rule=rule)()


with DAG("instances_of_every_kind"):
    ends(by_number.expand(x=[1, 2, 3]))

with DAG("mapped_nothing_and_rules"):

    @task
    def nothing():
        return []

    ends(double.expand(x=nothing()))

with DAG("mapped_in_a_plain_group"):
    with TaskGroup("g"):
        m = double.expand(x=numbers())
    collect(m)

with DAG("over_too_short_a_zip"):

    @task
    def short():
        return [9]

    @task
    def pair(values):
        return list(values)

    collect(pair.expand(values=numbers().zip(short())))

with DAG("zip_of_three_and_map"):

    @task
    def triple(values):
        return sum(values)

    collect(
        triple.expand(
            values=numbers()
            .zip(numbers.override(task_id="second")(), numbers.override(task_id="third")())
            .map(lambda each: [value * 10 for value in each])
        )
    )

with DAG("map_that_fails"):

    def breaks(n):
        if n == 2:
            raise ValueError(n)
        return n

    double.expand(x=numbers().map(breaks)) >> end()

with DAG("concat_with_a_map_and_a_mapped"):
    collect(double.override(task_id="again").expand(x=numbers().map(lambda n: -n).concat(double.expand(x=[5, 6]))))

with DAG("three_mapped_in_a_row"):
    one = double.expand(x=numbers())
    two = double.override(task_id="two").expand(x=one)
    three = double.override(task_id="three", trigger_rule="all_done").expand(x=two)
    collect(three)

with DAG("mapped_below_failures_by_index"):
    one = by_number.expand(x=numbers())
    double.override(task_id="strict").expand(x=one)
    double.override(task_id="loose", trigger_rule="all_done").expand(x=one)
    double.override(task_id="alarm", trigger_rule="one_failed").expand(x=one)
    double.override(task_id="some", trigger_rule="one_success").expand(x=one)

with DAG("mapped_partial_of_mapped"):

    @task
    def whole(k, values):
        return [k, list(values)]

    whole.partial(values=double.expand(x=[1, 2])).expand(k=[1, 2])

with DAG("mapped_literal_below_failures_any_rule"):
    bad = failing.override(task_id="bad")()
    left = skipped.override(task_id="left")()
    for rule in MAPPED_RULES:
        bad >> double.override(task_id=f"bad_{rule}", trigger_rule=rule).expand(x=[1, 2])
        left >> double.override(task_id=f"left_{rule}", trigger_rule=rule).expand(x=[1, 2])

with DAG("mapped_retries_used_up_at_one"):

    @task(retries=2, retry_delay=NOW)
    def tries(x):
        ti = get_current_context()["ti"]
        if x == 1:
            raise AirflowFailException
        if x == 2:
            raise ValueError
        if x == 3 and ti.try_number < 3:
            raise ValueError
        return ti.try_number

    tries.expand(x=[0, 1, 2, 3]) >> end.override(trigger_rule="all_done")()

with DAG("mapped_operators"):
    PythonOperator.partial(task_id="python", python_callable=lambda a, b: a + b, op_kwargs={"b": 1}).expand(
        op_args=[[1], [2]]
    )
    BashOperator.partial(task_id="bash", do_xcom_push=True).expand_kwargs(
        [
            {"bash_command": "echo $X", "env": {"X": "1"}},
            {"bash_command": "exit 99"},
            {"bash_command": "echo {{ task.task_id }}"},
        ]
    )
    PythonSensor.partial(task_id="sensor", python_callable=lambda: True, poke_interval=0.05).expand(op_args=[[], []])
    EmptyOperator.partial(task_id="empty").expand_kwargs([{"doc": "a"}, {"doc": "b"}])

with DAG("pulls_of_mapped"):

    @task
    def pulls():
        ti = get_current_context()["ti"]
        return [
            list(ti.xcom_pull(task_ids="double")),
            ti.xcom_pull(task_ids="double", map_indexes=1),
            ti.xcom_pull(task_ids=["double", "numbers"]),
            ti.xcom_pull(task_ids="double", map_indexes=9, default="nothing"),
            ti.xcom_pull(task_ids="double", key="other", default=None),
        ]

    double.expand(x=numbers()) >> pulls()

with DAG("mapped_group_in_a_plain_group"):
    with TaskGroup("outer"):

        @task_group
        def inner(x):
            return double.override(task_id="again")(double(x))

        found = inner.expand(x=numbers())
    collect(found)

with DAG("mapped_group_over_an_empty_list_and_rules"):

    @task
    def none_at_all():
        return []

    @task_group
    def unexpanded(x):
        first = double(x)
        for rule in GROUP_RULES:
            first >> end.override(task_id=f"in_{rule}", trigger_rule=rule)()
        return first

    ends(unexpanded.expand(x=none_at_all()))

with DAG("mapped_group_over_a_skip_and_rules"):

    @task_group
    def unmade(x):
        first = double(x)
        for rule in GROUP_RULES:
            first >> end.override(task_id=f"in_{rule}", trigger_rule=rule)()
        return first

    ends(unmade.expand(x=skipped()))

with DAG("mapped_group_retries"):

    @task_group
    def again(x):
        @task(retries=1, retry_delay=NOW)
        def second(n):
            ti = get_current_context()["ti"]
            if ti.try_number == 1 and n == 1:
                raise ValueError
            return [n, ti.try_number]

        return collect(second(x))

    collect.override(task_id="all")(again.expand(x=[0, 1]))

with DAG("mapped_group_after_mapped_group"):

    @task_group
    def first_group(x):
        return double(x)

    @task_group
    def second_group(x):
        return double.override(task_id="again")(double(x))

    collect(second_group.expand(x=first_group.expand(x=numbers())))

with DAG("mapped_group_setup_and_teardown"):

    @task_group
    def with_setup(x):
        @setup
        def make():
            return 1

        @teardown
        def remove():
            return 2

        @task
        def use(n):
            if n == 2:
                raise ValueError
            return n

        made, removed = make(), remove()
        made >> use(x) >> removed
        made >> removed

    with_setup.expand(x=[1, 2]) >> end()

with DAG("mapped_work_in_a_setup"):

    @setup
    def make_all():
        return 1

    @teardown
    def remove_all():
        return 2

    made, removed = make_all(), remove_all()
    made >> by_number.expand(x=[1, 2, 3]) >> removed
    made >> removed

with DAG("mapped_setup_teardown_by_index"):

    @setup
    def makes(x):
        return x

    @teardown
    def removes(x):
        return x

    built = makes.expand(x=[1, 2])
    gone = removes.expand(x=built)
    built >> double.expand(x=built) >> gone
