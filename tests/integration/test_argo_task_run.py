"""One task through the Task SDK over the catalog: waits, tries, callbacks, and all that Airflow's services would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.argo.outcome import EXIT_FAILED, EXIT_FAILED_FOR_GOOD, EXIT_SUCCESS, EXIT_WRONG_CALL
from airflow_provider_raynode.argo.records import RunStore
from airflow_provider_raynode.argo.run_task import TaskCall, TaskOutcome, run_task
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError

pytestmark = pytest.mark.airflow

DAG_FILE = """
import asyncio, os, sys
from datetime import datetime, timedelta, timezone

from airflow.sdk import (
    DAG, Asset, BaseOperator, BaseSensorOperator, PokeReturnValue, Variable, get_current_context, task
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from airflow.triggers.base import StartTriggerArgs

FOLDER = os.path.dirname(os.path.abspath(__file__))

def note(text):
    with open(f"{FOLDER}/notes.txt", "a") as file:
        file.write(text + "\\n")

def noted(name):
    def callback(context):
        error = context.get("exception")
        note(f"{name} {context['ti'].task_id} try {context['ti'].try_number}" + (f" {error}" if error else ""))
    return callback

class Gives(BaseTrigger):
    def __init__(self, kind, value=None):
        super().__init__()
        self.kind, self.value = kind, value

    def serialize(self):
        return f"{__name__}.Gives", {"kind": self.kind, "value": self.value}

    async def run(self):
        if self.kind == "event":
            yield TriggerEvent({"value": self.value, "task": self.task_instance.task_id})
        elif self.kind == "success":
            yield TaskSuccessEvent(xcoms={"return_value": self.value})
        elif self.kind == "failed":
            yield TaskFailedEvent()
        elif self.kind == "skipped":
            yield TaskSkippedEvent()
        elif self.kind == "sleeps":
            await asyncio.sleep(60)
        elif self.kind == "timeout error":
            raise TimeoutError("the trigger's own")
        elif self.kind == "raises":
            raise ValueError("the trigger is broken")

    async def cleanup(self):
        note(f"cleanup {self.kind}")

class Waits(BaseOperator):
    template_fields = ("value",)

    def __init__(self, *, kind, value=None, timeout=None, times=1, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.value, self.timeout, self.times = kind, value, timeout, times

    def execute(self, context):
        self._wait(1)

    def _wait(self, count):
        limit = None if self.timeout is None else timedelta(seconds=self.timeout)
        self.defer(
            trigger=Gives(self.kind, self.value), method_name="resume", kwargs={"count": count}, timeout=limit
        )

    def resume(self, context, event, count):
        if count < self.times:
            self._wait(count + 1)
        return [event, count]

class StartsFromTrigger(BaseOperator):
    start_from_trigger = True
    template_fields = ("value",)

    def __init__(self, *, value="{{ ds_nodash }}", **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{__name__}.Gives", trigger_kwargs={"kind": "event", "value": value}, next_method="resume"
        )

    def execute(self, context):
        raise NotImplementedError

    def resume(self, context, event):
        return event

class Pokes(BaseSensorOperator):
    def __init__(self, *, times, **kwargs):
        super().__init__(mode="reschedule", poke_interval=0.1, **kwargs)
        self.times = times

    def poke(self, context):
        note(f"poke {context['ti'].try_number} {context['task_reschedule_count']}")
        if context["task_reschedule_count"] == self.times:
            return PokeReturnValue(True, xcom_value=context["task_reschedule_count"])
        return False

callbacks = {
    f"on_{kind}_callback": noted(kind) for kind in ("execute", "success", "failure", "retry", "skipped")
}
with DAG("runs", schedule=None, default_args={**callbacks, "retries": 0}):
    Waits(task_id="event", kind="event", value="{{ ds }}")
    Waits(task_id="twice", kind="event", times=2)
    Waits(task_id="success", kind="success", value={"a": 1})
    Waits(task_id="failed", kind="failed", retries=2)
    Waits(task_id="skipped", kind="skipped")
    Waits(task_id="timeout", kind="sleeps", timeout=0.2)
    Waits(task_id="timeout_error", kind="timeout error", timeout=30)
    Waits(task_id="raises", kind="raises", retries=1)
    Waits(task_id="no_event", kind="nothing")
    StartsFromTrigger(task_id="starts")
    Pokes(task_id="pokes", times=2, timeout=30)
    Pokes(task_id="pokes_too_long", times=1000, timeout=0.5, retries=2)

    @task(retries=2)
    def tries():
        context = get_current_context()
        ti, store = context["ti"], context["task_state_store"]
        seen = [store.get("seen"), ti.xcom_pull(task_ids="tries", key="left"), ti.try_number, ti.max_tries]
        store.set("seen", ti.try_number)
        ti.xcom_push("left", "from an earlier try")
        note(repr(seen))
        raise ValueError("again")

    @task(retries=2)
    def gives_up():
        raise AirflowFailException("no use")

    @task
    def skips():
        raise AirflowSkipException

    @task.external_python(python=sys.executable, expect_airflow=False)
    def external():
        from airflow.sdk import Variable
        return Variable.get("x")

    @task
    def too_many():
        return list(range(1025))

    @task
    def each(x):
        return x

    @task(outlets=[Asset("made", uri="s3://bucket/made")])
    def makes(outlet_events=None):
        outlet_events[Asset("made", uri="s3://bucket/made")].extra = {"rows": 3}

    @task
    def threads():
        import threading
        return threading.current_thread() is threading.main_thread()

    @task.branch
    def chooses():
        return "left"

    @task
    def left():
        pass

    @task
    def right():
        pass

    @task(map_index_template="{{ label }}")
    def labelled(x):
        get_current_context()["label"] = f"label {x}"

    @task
    def asks_airflow():
        Variable.set("x", "y")

    asks_airflow()
    labelled.expand(x=[7, 8])
    chooses() >> [left(), right()]
    tries(), gives_up(), skips(), external(), makes(), threads()
    each.expand(x=too_many())
"""
RUN = "run-1"


class Runs:
    """Runs tasks of the DAG file in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "runs.py"
        self.file.write_text(DAG_FILE)
        self.store = RunStore(Catalog(str(folder / "catalog")), "runs", RUN)

    def __call__(self, step: str, **fields: Any) -> TaskOutcome:
        return run_task(TaskCall(pipeline_file=str(self.file), step_name=step, run_id=RUN, **fields))

    def returned(self, step: str) -> Any:
        found, value = self.store.xcom(step, -1, "return_value")
        assert found
        return value

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(tmp_path / "catalog"))
    return Runs(tmp_path)


# -- deferrals -------------------------------------------------------------------------------------------------------


def test_a_deferred_task_resumes_with_the_event_and_its_own_arguments(runs: Runs) -> None:
    assert runs("event", logical_date="2026-01-31").state == "success"
    assert runs.returned("event") == [{"value": "2026-01-31", "task": "event"}, 1]
    assert runs.notes == ["execute event try 1", "cleanup event", "execute event try 1", "success event try 1"]


def test_a_task_may_defer_again(runs: Runs) -> None:
    assert runs("twice").state == "success"
    assert runs.returned("twice")[1] == 2


@pytest.mark.parametrize(
    ("step", "state", "code"),
    [("success", "success", EXIT_SUCCESS), ("failed", "failed", EXIT_FAILED_FOR_GOOD), ("skipped", "skipped", 0)],
)
def test_a_trigger_may_end_its_task(step: str, state: str, code: int, runs: Runs) -> None:
    done = runs(step)
    assert (done.state, done.exit_code) == (state, code)
    assert runs.notes[-1] == f"{'failure' if state == 'failed' else state} {step} try 1"
    if step == "success":
        assert runs.returned(step) == {"a": 1}


@pytest.mark.parametrize(
    ("step", "state", "error"),
    [
        ("timeout", "failed", "TaskDeferralTimeout: Trigger timeout"),
        ("timeout_error", "failed", "TaskDeferralError: Trigger failure"),
        ("raises", "up_for_retry", "TaskDeferralError: Trigger failure"),
        ("no_event", "failed", "TaskDeferralError: Trigger failure"),
    ],
)
def test_a_trigger_that_gives_no_event(
    step: str, state: str, error: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    done = runs(step)
    assert (done.state, done.exit_code) == (state, EXIT_FAILED)
    record = runs.store.record(step)
    assert record is not None
    assert record.error == error
    if step == "raises":
        assert "ValueError: the trigger is broken" in capsys.readouterr().out


def test_an_operator_that_starts_from_its_trigger(runs: Runs) -> None:
    assert runs("starts", logical_date="2026-01-31").state == "success"
    assert runs.returned("starts") == {"value": "20260131", "task": "starts"}


# -- reschedules -----------------------------------------------------------------------------------------------------


def test_a_rescheduled_sensor_pokes_in_the_same_pod_and_try(runs: Runs) -> None:
    assert runs("pokes").try_number == 1
    assert [each for each in runs.notes if each.startswith("poke")] == ["poke 1 0", "poke 1 1", "poke 1 2"]
    assert runs.returned("pokes") == 2


def test_a_rescheduled_sensor_times_out_over_all_of_its_pokes_and_is_not_tried_again(runs: Runs) -> None:
    done = runs("pokes_too_long")
    assert (done.state, done.exit_code) == ("failed", EXIT_FAILED_FOR_GOOD)
    assert 2 <= len([each for each in runs.notes if each.startswith("poke")]) <= 8


# -- tries -----------------------------------------------------------------------------------------------------------


def test_each_try_has_its_number_no_xcoms_of_the_one_before_and_the_task_state_store(runs: Runs) -> None:
    done = [runs("tries", retries=str(number)) for number in range(3)]
    assert [each.state for each in done] == ["up_for_retry", "up_for_retry", "failed"]
    assert [each.exit_code for each in done] == [EXIT_FAILED] * 3
    assert [each for each in runs.notes if each.startswith("[")] == [
        "[None, None, 1, 2]",
        "[1, None, 2, 2]",
        "[2, None, 3, 2]",
    ]
    assert [each for each in runs.notes if each.startswith(("retry", "failure"))] == [
        "retry tries try 1 again",
        "retry tries try 2 again",
        "failure tries try 3 again",
    ]


def test_a_node_that_begins_again_goes_on_counting_as_a_cleared_task(runs: Runs) -> None:
    """After `argo retry` Argo counts its tries from 0 again."""
    for retries in ("0", "1", "2", "0"):
        done = runs("tries", retries=retries)
    assert (done.state, done.try_number) == ("up_for_retry", 4)
    record = runs.store.record("tries")
    assert record is not None
    assert (record.first_try, record.try_number) == (4, 4)
    assert runs.notes[-2] == "[3, None, 4, 5]"


def test_a_lost_pod_without_a_record_counts(runs: Runs) -> None:
    done = runs("tries", retries="2")
    assert (done.state, done.try_number) == ("failed", 3)


def test_fail_exceptions_are_not_tried_again(runs: Runs) -> None:
    done = runs("gives_up")
    assert (done.state, done.exit_code) == ("failed", EXIT_FAILED_FOR_GOOD)


# -- callbacks and the rest ------------------------------------------------------------------------------------------


def test_callbacks_of_a_skipped_task(runs: Runs) -> None:
    assert runs("skips").state == "skipped"
    assert runs.notes == ["execute skips try 1", "skipped skips try 1"]


def test_a_task_in_another_python_asks_the_pod(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_X", "5")
    assert runs("external").state == "success"
    assert runs.returned("external") == "5"


def test_what_airflow_refuses_to_map_over_fails_here(runs: Runs) -> None:
    assert runs("too_many").state == "failed"
    record = runs.store.record("too_many")
    assert record is not None
    assert "max_map_length" in record.error


def test_asset_events_are_in_the_log(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("makes").state == "success"
    printed = capsys.readouterr().out
    assert "The asset made was updated; no scheduler hears of it here" in printed
    assert "'rows': 3" in printed


def test_the_log_is_plain_and_shows_a_traceback_once(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs("tries", tag="nightly")
    printed = capsys.readouterr().out
    assert printed.count("Traceback (most recent call last)") == 1
    assert printed.count("ValueError: again") == 1
    assert "runs.tries, try 1 of 3, run run-1, tag nightly" in printed
    for noise in ("::group::", "::endgroup::", "RuntimeTaskInstance", "\x1b["):
        assert noise not in printed


def test_outputs(runs: Runs, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    runs("chooses", outputs=str(outputs))
    assert {each.name: each.read_text() for each in outputs.iterdir()} == {"state": "success", "skip": ",right,"}
    record = runs.store.record("chooses")
    assert record is not None
    assert record.skipped == (("right", -1),)


def test_a_rendered_map_index_is_on_record(runs: Runs) -> None:
    runs("labelled", map_variable='{"map_index": 1}')
    record = runs.store.record("labelled", 1)
    assert record is not None
    assert record.rendered_map_index == "label 8"


def test_what_needs_airflow_is_not_tried_again(runs: Runs) -> None:
    done = runs("asks_airflow")
    assert (done.state, done.exit_code) == ("failed", EXIT_WRONG_CALL)
    assert runs.notes[-1].startswith("failure asks_airflow try 1 asks_airflow asked Airflow for PutVariable")


def test_calls_leave_the_process_as_it_was(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls with two configuration files: each has its own catalog."""
    import os
    import signal

    monkeypatch.delenv("AIRFLOW__RAYNODE__CATALOG")
    before = signal.getsignal(signal.SIGTERM)
    for name in ("one", "two"):
        configuration = tmp_path / f"{name}.yaml"
        configuration.write_text(json.dumps({"catalog": str(tmp_path / name)}))
        assert runs("threads", configuration_file=str(configuration)).try_number == 1
    assert "AIRFLOW__RAYNODE__CATALOG" not in os.environ
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_the_main_thread_runs_a_task(runs: Runs) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool, pytest.raises(RayNodeError, match="in the main thread of its process only"):
        pool.submit(runs, "threads").result()
    assert runs.store.record("threads") is None
