"""Sensors and deferrable operators, which wait in their pod."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, BaseOperator, PokeReturnValue, get_current_context, task
from airflow.triggers.base import BaseTrigger, TriggerEvent


def _place():
    folder = Path(tempfile.gettempdir()) / f"raynode-sensor-{get_current_context()['run_id'].replace(':', '')}"
    folder.mkdir(exist_ok=True)
    return folder


class Tick(BaseTrigger):
    """Fires once, or fails."""

    def __init__(self, value, fails=False):
        super().__init__()
        self.value = value
        self.fails = fails

    def serialize(self):
        return f"{type(self).__module__}.{type(self).__qualname__}", {"value": self.value, "fails": self.fails}

    async def run(self):
        await asyncio.sleep(0.01)
        if self.fails:
            raise ValueError("the trigger failed")
        yield TriggerEvent({"value": self.value})


class Deferring(BaseOperator):
    """Defers as often as it is told, then returns what the events said."""

    def __init__(self, *, times=1, fails=False, **kwargs):
        super().__init__(**kwargs)
        self.times = times
        self.fails = fails

    def execute(self, context):
        self.defer(trigger=Tick([1], fails=self.fails), method_name="resume")

    def resume(self, context, event):
        seen = event["value"]
        if len(seen) < self.times:
            self.defer(trigger=Tick([*seen, len(seen) + 1]), method_name="resume")
        return seen


@task
def after(value=None):
    return value


with DAG("sensor_that_pokes"):

    @task.sensor(poke_interval=0.05, timeout=10, mode="poke")
    def poke():
        store = get_current_context()["task_state_store"]
        count = store.get("count", 0) + 1
        store.set("count", count)
        return PokeReturnValue(is_done=count >= 3, xcom_value=count)

    after(poke())

with DAG("sensor_that_reschedules"):

    @task.sensor(poke_interval=0.05, timeout=30, mode="reschedule")
    def reschedule():
        store = get_current_context()["task_state_store"]
        count = store.get("count", 0) + 1
        store.set("count", count)
        return PokeReturnValue(is_done=count >= 3, xcom_value=count)

    after(reschedule())

with DAG("sensor_that_gives_up"):
    PythonSensor(task_id="never", python_callable=lambda: False, poke_interval=0.05, timeout=0.2) >> after()

with DAG("sensor_that_gives_up_softly"):
    (
        PythonSensor(task_id="never", python_callable=lambda: False, poke_interval=0.05, timeout=0.2, soft_fail=True)
        >> after.override(trigger_rule="none_failed")()
    )

with DAG("sensor_that_gives_up_with_retries"):
    (
        PythonSensor(
            task_id="never",
            python_callable=lambda: False,
            poke_interval=0.05,
            timeout=0.2,
            retries=2,
            retry_delay=timedelta(0),
        )
        >> after()
    )

with DAG("deferring_once"):
    after(Deferring(task_id="waits").output)

with DAG("deferring_three_times"):
    after(Deferring(task_id="waits", times=3).output)

with DAG("mapped_deferring"):
    Deferring.partial(task_id="waits").expand(times=[1, 2])


# As many slots as can be held by waiters, and one more: with one alone the export refuses it.
with DAG("producer_beside_its_sensor", max_active_tasks=2):

    @task.sensor(mode="reschedule", poke_interval=0.2, timeout=60)
    def sees_it():
        return (_place() / "made").exists()

    @task
    def makes_it():
        (_place() / "made").touch()
        return "made"

    @task
    def after(value):
        (_place() / "made").unlink()
        _place().rmdir()
        return value

    sees_it() >> after(makes_it())
