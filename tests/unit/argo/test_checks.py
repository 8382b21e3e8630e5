"""What cannot be exported is found all at once, each with its task, reason and remedy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG, Asset, Param, task, task_group

from airflow_provider_raynode.argo.checks import ALLOWABLE, RefusedError, check_allowed, find_refusals, ignored
from airflow_provider_raynode.argo.schedule import schedule_of
from airflow_provider_raynode.exceptions import RayNodeError


def features_of(dag: DAG, **options: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for refusal in find_refusals(dag, schedule_of(dag), **options):
        found.setdefault(refusal.task_id, set()).add(refusal.feature)
    return found


def operator(**options: Any) -> PythonOperator:
    return PythonOperator(task_id="t", python_callable=print, **options)


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"depends_on_past": True}, "depends-on-past"),
        ({"pool": "gpus"}, "pool"),
        ({"pool_slots": 2}, "pool-slots"),
        ({"retries": 1, "retry_exponential_backoff": 1.5}, "backoff-factor"),
        ({"run_as_user": "somebody"}, "run-as-user"),
        ({"outlets": [Asset("a")]}, "asset-outlets"),
        ({"max_active_tis_per_dagrun": 2}, "max-active-tis"),
        ({"executor_config": {"KubernetesExecutor": {}}}, "executor-config"),
    ],
)
def test_of_a_task(options: dict[str, Any], feature: str) -> None:
    with DAG("tasks", schedule=None) as dag:
        operator(**options)
    assert features_of(dag) == {"t": {feature}}


def grouped(rule: str, source: Any) -> DAG:
    @task
    def double(x: Any) -> Any:
        return x

    with DAG("grouped", schedule=None) as dag:

        @task_group
        def group(x: Any) -> None:
            double(x) >> double.override(task_id="inside", trigger_rule=rule)(1)

        group.expand(x=source())
    return dag


def test_of_a_rule_in_a_mapped_group() -> None:
    @task
    def numbers() -> list[int]:
        return [1, 2]

    rule = "all_done_min_one_success"
    assert features_of(grouped(rule, numbers)) == {"group.inside": {"group-trigger-rule"}}
    assert not features_of(grouped(rule, lambda: [1, 2])), "what is mapped over literals is expanded at once"
    assert not features_of(grouped("one_success", numbers))
    (note,) = ignored(grouped("one_success", numbers))
    assert note.startswith("task group.inside: one_success is decided for each map index by itself")
    assert not ignored(grouped("one_success", lambda: [1, 2]))
    assert not ignored(grouped("all_done", numbers))


def test_what_is_told_and_not_refused() -> None:
    with DAG("told", schedule=None) as dag:
        operator(email="somebody@example.org", priority_weight=5, queue="fast", executor="other")
    assert [note.split()[0] for note in ignored(dag)] == ["priority_weight", "queue", "executor", "emails"]


@pytest.mark.parametrize(
    ("make", "feature"),
    [
        (lambda: TriggerDagRunOperator(task_id="t", trigger_dag_id="x"), "trigger-dagrun"),
        (lambda: ExternalTaskSensor(task_id="t", external_dag_id="x"), "external-task"),
        (lambda: ApprovalOperator(task_id="t", subject="ok?"), "human-in-the-loop"),
    ],
)
def test_of_an_operator(make: Any, feature: str) -> None:
    with DAG("operators", schedule=None) as dag:
        make()
    assert features_of(dag) == {"t": {feature}}


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"schedule": "@daily", "catchup": True, "start_date": datetime(2020, 1, 1, tzinfo=UTC)}, "catchup"),
        ({"schedule": "@daily", "start_date": datetime(2030, 1, 1, tzinfo=UTC)}, None),
        ({"schedule": "@daily", "end_date": datetime(2030, 1, 1, tzinfo=UTC)}, None),
        ({"schedule": timedelta(days=1)}, "timetable"),
        ({"fail_fast": True}, "fail-fast"),
        ({"max_consecutive_failed_dag_runs": 2}, "max-consecutive-failed-runs"),
        ({"params": {"a b": 1}}, "param-name"),
        ({"schedule": "@daily", "params": {"x": Param(type=["null", "string"], default=None)}}, None),
    ],
)
def test_of_the_dag(options: dict[str, Any], feature: str | None) -> None:
    with DAG("dags", **{"schedule": None, **options}) as dag:
        operator()
    assert features_of(dag) == ({"": {feature}} if feature else {})


def test_what_stands_behind_a_refusal_is_told_with_it() -> None:
    params = {"a b": 1}
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with DAG("dags", schedule=timedelta(days=1), catchup=True, start_date=start, params=params) as dag:
        operator(end_date=datetime(2026, 1, 1, tzinfo=UTC))
        PythonOperator(task_id="other", python_callable=print)
    assert features_of(dag) == {"": {"timetable", "catchup", "param-name"}, "t": {"end-date"}}
    with DAG("dags", schedule="0 0 L * *", catchup=True, start_date=start, params=params) as dag:
        operator()
    assert features_of(dag) == {"": {"cron-syntax", "catchup", "param-name"}}


def test_dates_of_tasks_that_are_not_the_dags() -> None:
    end, later = datetime(2040, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)
    with DAG("dates", schedule="@daily", default_args={"end_date": end}) as dag:
        operator()
    assert features_of(dag) == {}, "all tasks have it: then it is the DAG's, as in Airflow"
    assert "2040-01-01T23:59:30Z" in schedule_of(dag).when
    with DAG("dates", schedule="@daily", start_date=datetime(2020, 1, 1, tzinfo=UTC)) as dag:
        operator(end_date=end)
        PythonOperator(task_id="new", python_callable=print, start_date=later)
        PythonOperator(task_id="old", python_callable=print, start_date=datetime(2021, 1, 1, tzinfo=UTC))
    assert features_of(dag) == {"t": {"end-date"}, "new": {"start-date"}}


def test_each_thing_is_told_once() -> None:
    with DAG("past", schedule=None) as dag:
        operator(wait_for_downstream=True)
    assert [each.feature for each in find_refusals(dag, schedule_of(dag))] == ["wait-for-downstream"]


def test_every_task_between_two_of_a_group_is_told() -> None:
    @task
    def step(x: Any = None) -> Any:
        return x

    with DAG("between", schedule=None) as dag:
        for name in ("one", "two"):

            @task_group(group_id=name)
            def group(x: Any) -> None:
                step.override(task_id="first")(x)
                step.override(task_id="last")(x)

            group.expand(x=[1, 2])
            for between in ("a", "b"):
                outside = step.override(task_id=f"{name}_{between}")()
                dag.task_dict[f"{name}.first"] >> outside >> dag.task_dict[f"{name}.last"]
    assert features_of(dag) == {each: {"group-cycle"} for each in ("one_a", "one_b", "two_a", "two_b")}


def test_a_pool_whose_size_is_known_is_no_problem() -> None:
    with DAG("pools", schedule=None) as dag:
        operator(pool="gpus")
    assert features_of(dag, pools=["gpus"]) == {}
    (refusal,) = find_refusals(dag, schedule_of(dag), pools=["gpu"])
    assert refusal.remedy == "did you mean 'gpu'? Else give it in the settings: pools: {gpus: 4}"


def test_one_report_names_everything() -> None:
    with DAG("report", schedule=[Asset("a")]) as dag:
        operator(depends_on_past=True, pool="gpus")

        @task(run_as_user="x")
        def other() -> None: ...

        other()
    refusals = find_refusals(dag, schedule_of(dag))
    text = str(RefusedError("report", refusals))
    assert text.startswith("report cannot run on Argo as it is, nothing was written. 4 things to change:")
    for part in ("DAG: asset-schedule", "task t: depends-on-past", "task t: pool", "task other: run-as-user"):
        assert part in text
    assert "Or --allow pool: the task runs without the pool's limit." in text
    assert "--allow depends-on-past" not in text


def test_only_what_is_safe_may_be_allowed() -> None:
    assert check_allowed(["pool"]) == {"pool"}
    with pytest.raises(RayNodeError) as caught:
        check_allowed(["depends-on-past", "pol"])
    first, second = str(caught.value).splitlines()
    assert first.startswith("--allow depends-on-past: allowed are: asset-outlets, ")
    assert second.startswith("--allow pol: did you mean 'pool'? allowed are: asset-outlets, ")
    assert "depends-on-past" not in ALLOWABLE
