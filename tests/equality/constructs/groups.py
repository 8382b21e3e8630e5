"""Mapped task groups, and branches and short circuits in them."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


@task
def numbers():
    return [1, 2, 3]


@task
def double(x):
    return x * 2


@task
def collect(values):
    return list(values)


@task
def end():
    return "end"


with DAG("group_over_a_literal"):

    @task_group
    def literal(x):
        return double.override(task_id="again")(double(x))

    collect(literal.expand(x=[1, 2, 3]))

with DAG("group_over_an_xcom"):

    @task_group
    def over(x):
        return double.override(task_id="again")(double(x))

    collect(over.expand(x=numbers()))

with DAG("group_over_two_xcoms"):

    @task_group
    def product(x, y):
        @task
        def times(a, b):
            return a * b

        return times(x, y)

    collect(product.expand(x=numbers(), y=numbers.override(task_id="more")()))

with DAG("group_over_a_mapped_task"):

    @task_group
    def of_mapped(x):
        return double.override(task_id="again")(x)

    collect(of_mapped.expand(x=double.expand(x=numbers())))

with DAG("group_that_fails_at_one_index"):

    @task_group
    def one_fails(x):
        @task
        def check(n):
            if n == 2:
                raise ValueError(n)
            return n

        return double(check(x))

    results = one_fails.expand(x=numbers())
    collect(results)
    for rule in ("all_done", "none_failed", "one_failed", "one_success"):
        results >> end.override(task_id=f"end_{rule}", trigger_rule=rule)()

with DAG("group_that_skips_at_one_index"):

    @task_group
    def one_skips(x):
        @task
        def check(n):
            if n == 2:
                raise AirflowSkipException
            return n

        return double(check(x))

    skipping = one_skips.expand(x=numbers())
    collect.override(trigger_rule="none_failed")(skipping)
    skipping >> end()

with DAG("group_over_nothing"):

    @task
    def nothing():
        return []

    @task_group
    def never(x):
        double(x) >> end.override(trigger_rule="all_done")()

    never.expand(x=nothing()) >> end()

with DAG("group_over_a_failed_task"):

    @task
    def broken():
        raise ValueError("nothing to map over")

    @task_group
    def over_broken(x):
        return double.override(task_id="again")(double(x))

    over_broken.expand(x=broken()) >> end.override(trigger_rule="all_done")()

with DAG("group_with_an_upstream_outside"):

    @task_group
    def beside(x, other):
        @task
        def join(a, b):
            return [a, b]

        return join(double(x), other)

    outside = end.override(task_id="outside")()
    collect(beside.partial(other=outside).expand(x=[1, 2]))

with DAG("group_after_a_failure"):

    @task
    def fails():
        raise ValueError

    @task_group
    def after_failure(x):
        first = double(x)
        first >> end.override(trigger_rule="all_done")()

    fails() >> after_failure.expand(x=[1, 2])

with DAG("group_in_a_group"):

    @task_group
    def whole(x):
        with TaskGroup("part"):
            inner = double(x)
        return double.override(task_id="last")(inner)

    collect(whole.expand(x=[1, 2]))

with DAG("group_with_an_empty_operator"):

    @task_group
    def with_empty(x):
        double(x) >> EmptyOperator(task_id="nothing") >> end()

    with_empty.expand(x=[1, 2])

with DAG("group_with_a_branch"):

    @task_group
    def branching(x):
        @task.branch
        def choose(n):
            name = "yes" if n % 2 else "no"
            return f"branching.{name}"

        choose(x) >> [end.override(task_id="yes")(), end.override(task_id="no")()]

    branching.expand(x=[1, 2])

with DAG("group_with_a_short_circuit"):

    @task_group
    def circuit(x):
        @task.short_circuit
        def odd(n):
            return n % 2

        odd(x) >> end.override(task_id="first")() >> end.override(task_id="second", trigger_rule="all_done")()

    circuit.expand(x=[1, 2])

with DAG("mapped_branch"):

    @task.branch
    def each(n):
        return "a" if n else "b"

    each.expand(n=[1, 1]) >> [end.override(task_id="a")(), end.override(task_id="b")()]

with DAG("group_arguments_by_name"):

    @task_group
    def named(x, y):
        @task
        def show(a, b):
            return [a, b, get_current_context()["ti"].map_index]

        return show(x, y)

    collect(named.expand_kwargs([{"x": 1, "y": 2}, {"x": 3, "y": 4}]))

with DAG("mapped_branch_over_mapped_tasks"):

    @task.branch
    def pick(n):
        return "a" if n % 2 else "b"

    pick.expand(n=[1, 2]) >> [
        double.override(task_id="a").expand(x=[1, 2]),
        double.override(task_id="b").expand(x=[1, 2]),
    ]
