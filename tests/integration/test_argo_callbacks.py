"""The callbacks of a DAG whose workflow has ended."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from airflow_provider_raynode.argo.outcome import EXIT_SUCCESS, EXIT_WRONG_CALL
from airflow_provider_raynode.argo.run_task import TaskCall, run_task
from airflow_provider_raynode.cli import main

pytestmark = pytest.mark.airflow

DAG_FILE = """
import os
from airflow.sdk import DAG, Variable, task

FOLDER = os.path.dirname(os.path.abspath(__file__))

def note(*parts):
    with open(f"{FOLDER}/notes.txt", "a") as file:
        file.write(" ".join(map(str, parts)) + "\\n")

def tells(context):
    ti = context.get("ti")
    note(context["reason"], context["dag"].dag_id, context["run_id"], context["dag_run"].state.value, context["ds"])
    note(ti and (ti.task_id, ti.state.value, ti.try_number, ti.xcom_pull(task_ids="good")), context["params"]["who"])

def breaks(context):
    raise ValueError("the callback is broken")

def reads(context):
    note(Variable.get("channel"))

with DAG(
    "ends", schedule=None, params={"who": "me"}, on_success_callback=tells, on_failure_callback=[breaks, tells, reads]
):
    @task
    def good():
        return 5

    @task(retries=0)
    def bad(x):
        raise ValueError("no")

    bad(good())
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("AIRFLOW_VAR_CHANNEL", "#channel")
    path = tmp_path / "ends.py"
    path.write_text(DAG_FILE)
    return path


def callbacks(file: Path, status: str, *options: str) -> int:
    named = ["--pipeline-file", str(file), "--run-id", "run-1", "--status", status, "--logical-date", "2026-01-31"]
    return main(["argo", "run-callbacks", *named, *options])


def notes(file: Path) -> list[str]:
    return (file.parent / "notes.txt").read_text().splitlines()


def run(file: Path, step: str) -> None:
    run_task(TaskCall(pipeline_file=str(file), step_name=step, run_id="run-1"))


def test_success(file: Path) -> None:
    run(file, "good")
    run_file = file.parent / "run"
    run_file.write_bytes(base64.b64encode(b'{"logical-date": "", "who": "\\"you\\""}'))
    assert callbacks(file, "Succeeded", str(run_file)) == EXIT_SUCCESS
    assert notes(file) == ["success ends run-1 success 2026-01-31", "('good', 'success', 1, 5) you"]


def test_failure_runs_all_though_one_breaks(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(file, "good")
    run(file, "bad")
    assert callbacks(file, "Failed") == EXIT_SUCCESS, "the run is what it was, as in Airflow"
    assert notes(file) == ["task_failure ends run-1 failed 2026-01-31", "('bad', 'failed', 1, 5) me", "#channel"]
    printed = capsys.readouterr().out
    assert "The callback breaks failed" in printed
    assert "ValueError: the callback is broken" in printed


def test_a_run_without_a_failed_task_has_no_task_instance(file: Path) -> None:
    assert callbacks(file, "Error") == EXIT_SUCCESS
    assert notes(file)[1] == "None me"


def test_a_wrong_call(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callbacks(file, "Failed", "--dag-id", "other") == EXIT_WRONG_CALL
    assert "holds no DAG 'other'" in capsys.readouterr().err
