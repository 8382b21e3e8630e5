"""Mapped tasks: where the indexes come from, what is below them, instances that fail or are skipped."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException


@task
def numbers():
    return [1, 2, 3]


@task
def letters():
    return {"a": 1, "b": 2}


@task
def double(x, by=2):
    return x * by


@task
def collect(values):
    return list(values)


@task
def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


@task
def odd_skips(x):
    if x % 2:
        raise AirflowSkipException(str(x))
    return x


@task
def end():
    return "end"


def ends(upstream):
    for rule in ("all_success", "all_done", "none_failed", "one_failed", "one_success", "none_failed_min_one_success"):
        upstream >> end.override(task_id=f"end_{rule}", trigger_rule=rule)()


with DAG("over_a_literal"):
    collect(double.expand(x=[1, 2, 3]))

with DAG("over_a_literal_dict"):

    @task
    def item(pair):
        return list(pair)

    collect(item.expand(pair={"a": 1, "b": 2}))

with DAG("over_an_xcom"):
    collect(double.expand(x=numbers()))

with DAG("over_an_xcom_dict"):

    @task
    def item_of(pair):
        return list(pair)

    collect(item_of.expand(pair=letters()))

with DAG("product_of_literals"):
    collect(double.expand(x=[1, 2], by=[10, 100]))

with DAG("product_of_two_tasks"):
    collect(double.expand(x=numbers(), by=numbers.override(task_id="more")()))

with DAG("product_of_a_task_and_a_literal"):
    collect(double.expand(x=numbers(), by=[10, 100]))

with DAG("partial"):
    collect(double.partial(by=numbers.override(task_id="whole")()).expand(x=[1, 2]))

with DAG("expand_kwargs_literal"):
    collect(double.expand_kwargs([{"x": 1, "by": 3}, {"x": 2}]))

with DAG("expand_kwargs_of_a_task"):

    @task
    def arguments():
        return [{"x": n, "by": n} for n in range(3)]

    collect(double.expand_kwargs(arguments()))

with DAG("map_function"):
    collect(double.expand(x=numbers().map(lambda n: n + 100)))

with DAG("map_that_skips"):

    def only_even(n):
        if n % 2:
            raise AirflowSkipException(f"{n} is odd")
        return n

    filtered = double.expand(x=numbers().map(only_even))
    collect.override(trigger_rule="none_failed")(filtered)

with DAG("zip_of_two"):

    @task
    def pairs(pair):
        return list(pair)

    collect(pairs.expand(pair=numbers().zip(numbers.override(task_id="more")().map(lambda n: -n))))

with DAG("zip_with_a_fill_value"):

    @task
    def two():
        return ["x", "y"]

    @task
    def both(pair):
        return list(pair)

    collect(both.expand(pair=numbers().zip(two(), fillvalue="none")))

with DAG("concat_of_two"):
    collect(double.expand(x=numbers().concat(numbers.override(task_id="more")())))

with DAG("over_nothing"):

    @task
    def nothing():
        return []

    mapped = double.expand(x=nothing())
    mapped >> end()
    mapped >> end.override(task_id="after_all", trigger_rule="all_done")()
    collect.override(trigger_rule="none_failed")(mapped)

with DAG("over_a_literal_nothing"):
    double.expand(x=[]) >> end.override(trigger_rule="none_failed")()

with DAG("over_a_mapped_task"):
    collect(double.override(task_id="again").expand(x=double.expand(x=numbers())))

with DAG("over_a_mapped_task_with_skips"):
    collect.override(trigger_rule="none_failed")(
        double.override(task_id="again", trigger_rule="none_failed").expand(x=odd_skips.expand(x=numbers()))
    )

with DAG("instances_that_fail"):
    ends(odd_fails.expand(x=numbers()))

with DAG("instances_that_skip"):
    ends(odd_skips.expand(x=numbers()))

with DAG("over_a_failed_task"):

    @task
    def broken():
        raise ValueError("nothing to map over")

    mapped_over_broken = double.expand(x=broken())
    mapped_over_broken >> end()
    mapped_over_broken >> end.override(task_id="after_all", trigger_rule="all_done")()

with DAG("over_a_skipped_task"):

    @task
    def skipped():
        raise AirflowSkipException

    double.expand(x=skipped()) >> end.override(trigger_rule="all_done")()

with DAG("over_no_list"):

    @task
    def number():
        return 5

    double.expand(x=number()) >> end()

with DAG("mapped_retries"):

    @task(retries=1, retry_delay=timedelta(0))
    def again(x):
        ti = get_current_context()["ti"]
        if x == 2 and ti.try_number == 1:
            raise ValueError("again")
        return [x, ti.try_number, ti.map_index]

    collect(again.expand(x=numbers()))

with DAG("mapped_rule"):
    numbers() >> (good := end.override(task_id="good")())
    good >> double.override(task_id="after", trigger_rule="all_done").expand(x=[1, 2])
    odd_fails.override(task_id="bad")(1) >> double.override(task_id="after_bad", trigger_rule="all_done").expand(
        x=[1, 2]
    )
    numbers.override(task_id="third")() >> double.override(task_id="alarm", trigger_rule="one_failed").expand(x=[1, 2])

with DAG("mapped_operator"):
    BashOperator.partial(task_id="bash").expand(bash_command=["echo 1", "echo {{ ti.map_index }}"])

with DAG("index_template"):

    @task(map_index_template="{{ name }}")
    def named(x):
        get_current_context()["name"] = f"number {x}"
        return x

    named.expand(x=[1, 2])

with DAG("one_of_a_mapped_task"):

    @task
    def pick():
        return get_current_context()["ti"].xcom_pull(task_ids="double", map_indexes=[2, 0])

    double.expand(x=numbers()) >> pick()

with DAG("lazy_sequence"):

    @task
    def slices(values):
        return [values[0], values[-1], list(values[1:]), len(values), list(values)[::-1]]

    slices(double.expand(x=numbers()))
