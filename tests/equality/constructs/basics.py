"""Chains, XComs, templates, params, operators without a pod, names that meet in Argo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup, chain, get_current_context, task

from airflow_provider_raynode import catalog


@task
def one():
    return 1


@task
def add(*values):
    return sum(values)


@task
def fail():
    raise ValueError("on purpose")


with DAG("chain_of_three"):
    add(add(one(), 1), 1)

with DAG("diamond"):
    top = one()
    add(add.override(task_id="left")(top), add.override(task_id="right")(top))

with DAG("single_task"):
    one()

with DAG("wide_fan_in"):
    add.override(task_id="total")(*[one.override(task_id=f"one_{n}")() for n in range(12)])

with DAG("multiple_outputs"):

    @task(multiple_outputs=True)
    def pair():
        return {"first": [1, 2], "second": {"deep": [3]}}

    @task
    def use(first, second):
        return [first, second]

    both = pair()
    use(both["first"], both["second"])

with DAG("values_of_many_types"):

    @task
    def values():
        return {
            "tuple": (1, 2),
            "set": {1},
            "date": datetime(2026, 1, 31, 12, tzinfo=UTC),
            "delta": timedelta(hours=3),
            "none": None,
            "nested": [[{"ü": "ñ"}]],
            "large": "x" * 100_000,
        }

    @task
    def kinds(found):
        return {name: type(value).__name__ for name, value in found.items()}

    kinds(values())

with DAG("nothing_returned"):

    @task
    def nothing():
        return None

    @task
    def see(value):
        return repr(value)

    see(nothing())

with DAG("not_json"):

    @task
    def not_a_number():
        return float("nan")

    add(not_a_number())

with DAG("no_xcom_push"):
    PythonOperator(task_id="quiet", python_callable=lambda: 1, do_xcom_push=False) >> one()

with DAG("templates", params={"who": Param("world", type="string"), "count": Param(3, type="integer", minimum=1)}):
    bash = BashOperator(task_id="bash", bash_command="echo '{{ params.who }} {{ params.count * 2 }} {{ dag.dag_id }}'")
    bash >> BashOperator(
        task_id="pulled", bash_command="echo \"{{ ti.xcom_pull(task_ids='bash') }} again, {{ '{{ not this }}' }}\""
    )
    BashOperator(task_id="variable", bash_command="echo {{ var.value.get('equality_variable', 'none') }}")

    @task
    def from_context():
        context = get_current_context()
        return [context["params"]["who"], context["ti"].task_id, context["dag_run"].run_type, context["task"].retries]

    from_context()

with DAG("bash_exit_codes"):
    BashOperator(task_id="fails", bash_command="exit 7") >> one()
    BashOperator(task_id="skips", bash_command="exit 99") >> one.override(task_id="after_skip")()

with DAG("failing_leaf"):
    one() >> fail()

with DAG("upstream_failed_chain"):
    chain(fail(), one(), one.override(task_id="two")(), one.override(task_id="three")())

with DAG("empty_operators"):
    start, middle, end = (EmptyOperator(task_id=name) for name in ("start", "middle", "end"))
    start >> [one(), one.override(task_id="other")()] >> middle >> end
    fail() >> EmptyOperator(task_id="after_failure") >> EmptyOperator(task_id="further")

with DAG("only_empty_operators"):
    EmptyOperator(task_id="a") >> EmptyOperator(task_id="b", trigger_rule="one_success") >> EmptyOperator(task_id="c")

with DAG("nested_groups"):
    with TaskGroup("outer", default_args={"retries": 1, "retry_delay": timedelta(0)}) as outer:
        first = one()
        with TaskGroup("inner") as inner:
            add(first, 1)
    with TaskGroup("second", prefix_group_id=False) as second:
        one.override(task_id="unprefixed")()
    outer >> second >> one.override(task_id="last")()

with DAG("names_that_meet"):
    chain(*[one.override(task_id=name)() for name in ("a_b", "a-b", "a.b", "not", "1st", "all_done", "a_b-plan")])

with DAG("data_by_reference"):

    @task
    def put():
        return catalog.put({"rows": list(range(1000))}, "data")

    @task
    def load(ref):
        return [sum(catalog.load(ref)["rows"]), catalog.load(catalog.get_ref("data", task_id="put"))["rows"][-1]]

    load(put())
