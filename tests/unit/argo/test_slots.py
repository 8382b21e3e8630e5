"""Waiting tasks that may hold every slot are refused by name, with what helps; no standstill comes unannounced."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, BaseOperator, task, task_group
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.export import export_dag
from airflow_provider_raynode.argo.slots import slot_notes, slot_refusals, waits_elsewhere


def sensor(task_id: str = "wait", **options: Any) -> Any:
    return PythonSensor(task_id=task_id, python_callable=bool, **{"mode": "reschedule", **options})


@task
def make() -> int:
    return 1


@task
def work(x: Any = None) -> Any:
    return x


class Submits(BaseOperator):
    def execute(self, context: Any) -> Any:
        self.defer(trigger=None, method_name="execute")


def refused(dag: DAG, pools: dict[str, int] | None = None, parallelism: int | None = None) -> set[str]:
    return {each.task_id for each in slot_refusals(dag, pools or {}, parallelism)}


WAITERS = {
    "reschedule": lambda: sensor(),
    "deferrable sensor": lambda: FileSensor(task_id="wait", filepath="f", deferrable=True),
    "an operator that defers": lambda: Submits(task_id="wait"),
    "a decorated sensor": lambda: task.sensor(task_id="wait", mode="reschedule")(lambda: True)(),
    "mapped": lambda: PythonSensor.partial(task_id="wait", mode="reschedule").expand(python_callable=[bool]),
}


@pytest.mark.parametrize("kind", WAITERS)
def test_the_only_slot(kind: str) -> None:
    with DAG("one", schedule=None, max_active_tasks=1) as dag:
        WAITERS[kind]()
        make()
    assert refused(dag) == {"wait"}
    assert refused(dag, parallelism=2) == set(), "the settings say it instead"
    dag.max_active_tasks = 2
    assert refused(dag) == set()


def test_a_function_that_reschedules_itself() -> None:
    @task
    def wait() -> None:
        raise AirflowRescheduleException(None)  # type: ignore[arg-type]

    with DAG("one", schedule=None, max_active_tasks=1) as dag:
        wait()
        make()
    assert refused(dag) == {"wait"}


@pytest.mark.parametrize(
    "waiter",
    [
        lambda: sensor(mode="poke"),
        lambda: FileSensor(task_id="wait", filepath="f", deferrable=False),
        lambda: FileSensor.partial(task_id="wait").expand(filepath=["f"]),
        # It waits for the clock, which needs no slot.
        lambda: TimeDeltaSensor(task_id="wait", delta=timedelta(1), mode="reschedule"),
    ],
)
def test_what_waits_as_in_airflow_or_for_no_task(waiter: Any) -> None:
    with DAG("one", schedule=None, max_active_tasks=1) as dag:
        waiter()
        make()
    assert refused(dag) == set()


def test_only_what_can_run_at_the_same_time() -> None:
    with DAG("chain", schedule=None, max_active_tasks=1) as dag:
        make() >> sensor() >> work() >> sensor("again") >> work.override(task_id="last")()
    assert refused(dag) == set()
    with DAG("three", schedule=None, max_active_tasks=2) as dag:
        # Two at a time at most: b waits for a.
        sensor("a") >> sensor("b")
        sensor("c")
        make()
    assert refused(dag) == {"a", "b", "c"}
    dag.max_active_tasks = 3
    assert refused(dag) == set()


def test_what_needs_no_slot_or_makes_nothing() -> None:
    with DAG("others", schedule=None, max_active_tasks=1) as dag:
        sensor()
        EmptyOperator(task_id="nothing")
        sensor("other", mode="poke")
    assert refused(dag) == set()


def test_mapped_waiters_count_as_many() -> None:
    with DAG("mapped", schedule=None, max_active_tasks=3) as dag:
        waiting = PythonSensor.partial(task_id="wait", mode="reschedule").expand(python_callable=[bool] * 3)
        make()
    assert refused(dag) == {"wait"}
    dag.max_active_tasks = 4
    assert refused(dag) == set()
    with DAG("mapped_over_an_output", schedule=None, max_active_tasks=16) as dag:

        @task.sensor(mode="reschedule")
        def wait(x: Any) -> bool:
            return bool(x)

        wait.expand(x=make())
        work()
    assert refused(dag) == {"wait"}
    assert waiting is not None


def test_in_a_mapped_group_other_indexes_run_beside() -> None:
    with DAG("group", schedule=None, max_active_tasks=2) as dag:

        @task_group
        def each(x: Any) -> None:
            sensor() >> work(x)

        each.expand(x=[1, 2])
    assert refused(dag) == {"each.wait"}


def test_a_pool() -> None:
    with DAG("pool", schedule=None) as dag:
        sensor(pool="db")
        make.override(pool="db")()
        work()
    assert refused(dag, {"db": 1}) == {"wait"}
    assert refused(dag, {"db": 2}) == set()
    assert refused(dag, {"other": 1}) == set()
    (refusal,) = slot_refusals(dag, {"db": 1}, None)
    assert refusal.reason.startswith("it reschedules, and on Argo it holds one of the 1 slots of the pool db meanwhile")
    assert refusal.remedy.startswith("give the pool 2 or more slots in the settings (pools: db)")


def test_slots_that_are_held_longer_are_told() -> None:
    with DAG("notes", schedule=None) as dag:
        sensor(pool="db")
        sensor("limited", max_active_tis_per_dag=1)
        for number in range(5):
            make.override(task_id=f"m{number}", pool="db", retries=1)()
        work.override(pool="db")()
        sensor("free")
    assert slot_notes(dag, {"db": 3}) == [
        "task wait: a slot of the pool db is held while the task waits; Airflow gives it back",
        "task limited: a slot of max_active_tis_per_dag is held while the task waits; Airflow gives it back",
        "tasks m0, m1, m2, m3, … (5): a slot of the pool db is held while the task waits for a retry; Airflow gives it "
        "back",
    ]


def test_the_export_refuses_or_warns() -> None:
    with DAG("one", schedule=None, max_active_tasks=1) as dag:
        sensor()
        make()
    with pytest.raises(RefusedError) as caught:
        export_dag(dag, Path("one.py"))
    text = str(caught.value)
    assert "task wait: waiting-slots: it reschedules" in text
    assert "make cannot start, and if that is what it waits for, it waits for ever" in text
    assert "set max_active_tasks, or parallelism in the settings, to 2 or more." in text
    assert export_dag(dag, Path("one.py"), settings={"parallelism": 2}).text
    export = export_dag(dag, Path("one.py"), allow=["waiting-slots"])
    assert "wait: waiting-slots: the task holds its slot while it waits" in export.warnings


def test_a_ray_node_waits_for_its_own_job() -> None:
    from airflow_provider_raynode import ray_node

    def train(config: dict[str, Any]) -> float:
        return 1.0

    with DAG("ray", schedule=None, max_active_tasks=1) as dag:
        space = {"x": {"type": "choice", "categories": [1, 2]}}
        tune = {"search_space": space, "metric": "loss", "mode": "min"}
        ray_node("search", python_callable=train, ray_config={"ray_tune": tune})
        make()
    assert refused(dag) == set()


def test_waits_elsewhere_takes_an_operators_own_word() -> None:
    class Both(Submits):
        def __init__(self, deferrable: bool = False, **options: Any) -> None:
            super().__init__(**options)
            self.deferrable = deferrable

    with DAG("own", schedule=None):
        found = [waits_elsewhere(Both(task_id=str(each), deferrable=each)) for each in (True, False)]
    assert found == [True, False]
