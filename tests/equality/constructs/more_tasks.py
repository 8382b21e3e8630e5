"""What a task may be: deferrals that fail, skip or retry, templates, params of many kinds, raised exceptions, hooks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.sensors.bash import BashSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, Param, Variable, get_current_context, task
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow.triggers.base import BaseTrigger, TriggerEvent

NOW = timedelta(0)


class Wait(BaseTrigger):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def serialize(self):
        return f"{type(self).__module__}.{type(self).__qualname__}", {"how": self.how}

    async def run(self):
        if self.how == "fails":
            raise ValueError("the trigger failed")
        if self.how == "nothing":
            return
        yield TriggerEvent({"how": self.how, "when": [1, None]})


class Waits(BaseOperator):
    template_fields = ("how",)

    def __init__(self, *, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how

    def execute(self, context):
        context["ti"].xcom_push("before", context["ti"].try_number)
        self.defer(trigger=Wait(self.how), method_name="resume", kwargs=None)

    def resume(self, context, event=None):
        if event and event["how"] == "raises":
            raise AirflowFailException("in the resumed part")
        if event and event["how"] == "skips":
            raise AirflowSkipException
        if event and event["how"] == "retries" and context["ti"].try_number == 1:
            raise ValueError
        return [self.how, event, context["ti"].try_number, context["ti"].xcom_pull(task_ids=self.task_id, key="before")]


class SensorAndDefer(BaseSensorOperator):
    def execute(self, context):
        self.defer(trigger=Wait("ok"), method_name="done")

    def done(self, context, event):
        return event["how"]


@task
def after(value=None):
    return value


with DAG("deferred_ways"):
    for how in ("ok", "raises", "skips"):
        after.override(task_id=f"after_{how}")(Waits(task_id=how, how=how).output)
    after.override(task_id="after_retries")(Waits(task_id="retries", how="retries", retries=1, retry_delay=NOW).output)

with DAG("deferred_sensor"):
    SensorAndDefer(task_id="senses") >> after()

with DAG("trigger_that_fails"):
    Waits(task_id="waits", how="fails") >> after()

with DAG("bash_sensor"):
    BashSensor(task_id="yes", bash_command="exit 0", poke_interval=0.05) >> after()

with DAG("sensor_that_raises"):

    def raises():
        raise ValueError

    PythonSensor(task_id="raises", python_callable=raises, poke_interval=0.05, retries=1, retry_delay=NOW) >> after()
    (
        PythonSensor(task_id="silent", python_callable=raises, poke_interval=0.05, silent_fail=True, timeout=0.15)
        >> after.override(task_id="b")()
    )
    (
        PythonSensor(task_id="soft", python_callable=raises, poke_interval=0.05, never_fail=True, timeout=0.15)
        >> after.override(task_id="c")()
    )

with DAG("reschedule_that_times_out"):
    (
        PythonSensor(task_id="late", python_callable=lambda: False, poke_interval=0.05, timeout=0.3, mode="reschedule")
        >> after()
    )

with DAG("reschedule_with_retries"):

    @task.sensor(poke_interval=0.05, timeout=30, mode="reschedule", retries=2, retry_delay=NOW)
    def sensed():
        context = get_current_context()
        store = context["task_state_store"]
        count = store.get("count", 0) + 1
        store.set("count", count)
        if count == 2:
            raise ValueError
        return count >= 4

    sensed() >> after()

with DAG("raised_exceptions"):
    EXCEPTIONS = {
        each.__name__: each for each in (AirflowException, AirflowSensorTimeout, AirflowTaskTimeout, MemoryError)
    }

    @task(retries=1, retry_delay=NOW)
    def raising(name):
        raise EXCEPTIONS[name]("on purpose")

    for each in EXCEPTIONS:
        raising.override(task_id=f"raises_{each}")(each)

with DAG("timeout_with_a_retry"):

    @task(execution_timeout=timedelta(milliseconds=300), retries=1, retry_delay=NOW)
    def slow_once():
        import time

        if get_current_context()["ti"].try_number == 1:
            time.sleep(20)
        return "in time"

    slow_once() >> after()

with DAG("native_templates", render_template_as_native_obj=True, params={"n": 3, "d": {"a": [1]}}):
    PythonOperator(
        task_id="natives",
        python_callable=lambda *args: [[type(each).__name__, each] for each in args],
        op_args=["{{ params.n }}", "{{ params.d }}", "{{ [1, 2] }}", "{{ None }}", "text", "{{ '5' }}"],
    )

with DAG("macros", user_defined_macros={"shout": lambda s: s.upper()}, user_defined_filters={"rev": lambda s: s[::-1]}):
    BashOperator(
        task_id="bash", bash_command="echo {{ shout('abc') }} {{ 'abc' | rev }} {{ macros.ds_add('2026-01-01', 5) }}"
    )

with DAG("variable_that_is_missing"):

    @task
    def missing():
        return Variable.get("missing")

    missing() >> after()

with DAG("template_that_is_wrong"):
    BashOperator(task_id="undefined", bash_command="echo {{ nobody.knows }}", retries=1, retry_delay=NOW) >> after()

with DAG(
    "params_of_many_kinds",
    params={
        "colour": Param("red", enum=["red", "green"]),
        "maybe": Param(None, type=["null", "string"]),
        "list": Param([1, {"a": "b c"}], type="array"),
        "object": Param({"k": {"deep": True}}, type="object"),
        "flag": False,
        "number": 1.5,
        "text": 'it\'s "quoted" {{ and }} $X ü\nline',
        "date": Param("2026-01-31", type="string", format="date"),
        "empty": "",
    },
):

    @task
    def params():
        return dict(get_current_context()["params"])

    params()

    BashOperator(
        task_id="bash", bash_command="echo {{ params.colour }} {{ params.object.k.deep }} {{ params.list | length }}"
    )

with DAG("params_of_a_task", params={"a": 1, "b": 2}):
    BashOperator(
        task_id="bash", bash_command="echo {{ params.a }} {{ params.b }} {{ params.c }}", params={"b": 20, "c": 30}
    )

with DAG("context_of_a_task"):

    @task
    def context():
        found = get_current_context()
        return [
            found["run_id"] == found["dag_run"].run_id,
            found["task_instance_key_str"].split("__")[:2],
            found["ds"] == found["logical_date"].strftime("%Y-%m-%d"),
            found["ts_nodash"] == found["logical_date"].strftime("%Y%m%dT%H%M%S"),
            found["data_interval_start"] <= found["data_interval_end"],
            found["ti"].max_tries,
            found["prev_data_interval_start_success"] is None,
            sorted(found["outlets"]),
            sorted(k for k in found if k in ("conn", "var", "macros", "params", "inlets", "templates_dict")),
            found["task"].downstream_task_ids == set(),
            len(found["dag"].task_ids),
        ]

    context()

with DAG("returned_kinds"):

    @task
    def tuples():
        return (1, (2, "x"))

    @task
    def sets():
        return frozenset({3})

    @task
    def dates():
        return [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), timedelta(days=1, microseconds=5)]

    @task
    def numbers():
        return {"big": 2**70, "small": 1e-300, "minus": -0.0, "int_key": {"1": True}}

    @task
    def texts():
        return ["", "\x00\u2028", "ünïcode 🎈", "{{ x }}", '"']

    @task
    def false():
        return [False, 0, "", [], {}, None]

    @task
    def types(*values):
        return [repr(each) for each in values]

    types(tuples(), sets(), dates(), numbers(), texts(), false())

with DAG("cannot_be_serialised"):

    @task(retries=1, retry_delay=NOW)
    def odd():
        return object()

    odd() >> after()

with DAG("async_function"):

    @task
    async def waits():
        await asyncio.sleep(0.01)
        return "awaited"

    after(waits())

with DAG("bash_decorated"):

    @task.bash(env={"WHO": "me"}, append_env=True)
    def script(n):
        return f"echo $WHO {n} '{{{{ 1 + 1 }}}}'"

    after(script(4))

with DAG("bash_output"):
    BashOperator(task_id="json", bash_command="echo '[1, 2]'", output_processor=__import__("json").loads) >> after()
    BashOperator(task_id="multi", bash_command="echo a; echo b; echo -n c")
    BashOperator(task_id="quiet", bash_command="true")
    BashOperator(task_id="no_push", bash_command="echo x", do_xcom_push=False)

with DAG("nested_xcoms_in_arguments"):

    @task
    def deep(tree):
        return tree

    one = after.override(task_id="one")(1)
    deep({"list": [one, {"x": one}], "text": "a"})
    PythonOperator(
        task_id="classic", python_callable=lambda t, k: [t, k], op_args=[[one, 5]], op_kwargs={"k": {"o": one}}
    )

with DAG("default_args", default_args={"retries": 1, "retry_delay": NOW, "trigger_rule": "all_done", "owner": "me"}):

    @task
    def uses():
        found = get_current_context()["task"]
        if get_current_context()["ti"].try_number == 1:
            raise ValueError
        return [found.owner, found.retries, str(found.trigger_rule)]

    uses() >> after() >> EmptyOperator(task_id="end")

with DAG("pre_execute_that_skips"):

    def skips(context):
        raise AirflowSkipException

    (
        PythonOperator(task_id="hooked", python_callable=lambda: "r", pre_execute=skips)
        >> after.override(trigger_rule="none_failed")()
    )

with DAG("callback_that_fails"):

    def breaks(context):
        raise ValueError

    (
        after.override(task_id="a", on_success_callback=breaks)()
        >> after.override(task_id="b", on_execute_callback=breaks)()
        >> after.override(task_id="c")()
    )
