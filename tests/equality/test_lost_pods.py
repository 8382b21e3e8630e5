"""Pods that Kubernetes takes away: what Argo then does ends as in Airflow, where a lost worker is a failed try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = pytest.mark.airflow

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG, get_current_context, task

with DAG("lost_pods"):
    @task(retries={retries}, retry_delay=timedelta(0))
    def lost():
        return [1, 2]

    @task
    def after(x):
        return x

    @task(trigger_rule="all_done")
    def cleans_up():
        return "clean"

    @task(trigger_rule="one_success")
    def decides():
        return "decided"

    @task(trigger_rule="none_skipped")
    def looks_at_outputs():
        return "looked"

    first = lost()
    mapped = after.expand(x=first)
    first >> [cleans_up(), decides(), looks_at_outputs()]
    mapped >> cleans_up.override(task_id="after_mapped")()
"""


@pytest.fixture
def dag_file(tmp_path: Path) -> Any:
    def write(retries: int) -> Path:
        path = tmp_path / "lost_pods.py"
        path.write_text(DAG_FILE.format(retries=retries))
        return path

    return write


def losing(lost: str, tries: int) -> Any:
    return lambda path, number: "pod deleted" if path == lost and number < tries else None


def test_a_lost_pod_is_tried_again(dag_file: Any, argo: Argo) -> None:
    path = dag_file(2)
    outcome = argo.run(load_dag(path), path, lose_pod=losing("lost", 2))
    assert outcome.state == "success", argo.last.report()
    assert set(outcome.states.values()) == {"success"}
    assert [each.phase for each in argo.last.node("lost").tries] == ["Error", "Error", "Succeeded"]


def test_a_pod_that_stays_lost_is_a_failure_that_nobody_waits_for(dag_file: Any, argo: Argo) -> None:
    path = dag_file(0)
    outcome = argo.run(load_dag(path), path, lose_pod=losing("lost", 1))
    assert outcome.states == {
        ("lost", -1): "failed",
        ("after", -1): "upstream_failed",
        ("cleans_up", -1): "success",
        ("decides", -1): "upstream_failed",
        ("looks_at_outputs", -1): "success",
        ("after_mapped", -1): "success",
    }, argo.last.report()
    assert outcome.state == "failed"


def test_a_lost_instance_of_a_mapped_task(dag_file: Any, argo: Argo) -> None:
    path = dag_file(0)
    outcome = argo.run(load_dag(path), path, lose_pod=losing("after(1)", 1))
    assert outcome.states[("after", 0)] == "success"
    assert outcome.states[("after", 1)] == "failed"
    assert outcome.states[("after_mapped", -1)] == "success"
    assert outcome.state == "success", "the leaf that counts cleaned up, as in Airflow"


def test_a_lost_pod_beside_a_skip_has_no_outputs_to_wait_for(tmp_path: Path, argo: Argo) -> None:
    path = tmp_path / "lost_beside_a_skip.py"
    path.write_text("""
from airflow.sdk import DAG, task

with DAG("lost_beside_a_skip"):
    @task.bash
    def skips():
        return "exit 99"

    @task
    def work(*values):
        return [1]

    one, lost = skips(), work.override(task_id="lost")()
    [one, lost] >> work.override(task_id="join")()
    work.override(task_id="mapped").partial().expand_kwargs(lost) << one
""")
    outcome = argo.run(load_dag(path), path, lose_pod=losing("lost", 9))
    assert outcome.state == "failed"
    assert {argo.last.node(name).phase for name in ("join-order", "mapped-order")} == {"Failed"}
    assert {outcome.states[name, -1] for name in ("join", "mapped")} == {"upstream_failed"}


def test_a_stopped_workflow_ends_its_pods(dag_file: Any, argo: Argo, tmp_path: Path) -> None:
    path = tmp_path / "stopped.py"
    path.write_text(
        "import pathlib, time\nfrom airflow.sdk import DAG, BaseOperator\n\n"
        f"FOLDER = pathlib.Path({str(tmp_path)!r})\n\n"
        "class Sleeper(BaseOperator):\n"
        "    def execute(self, context):\n        (FOLDER / 'began').touch()\n        time.sleep(60)\n"
        "    def on_kill(self):\n        (FOLDER / 'killed').touch()\n\n"
        "with DAG('stopped'):\n    Sleeper(task_id='sleeps') >> Sleeper(task_id='never')\n"
    )
    outcome = argo.run(
        load_dag(path),
        path,
        stop_when=lambda: "Terminate" if (tmp_path / "began").exists() else None,
        kill_after_s=20.0,
    )
    assert (tmp_path / "killed").exists()
    assert outcome.state == "failed"
    assert outcome.states[("sleeps", -1)] == "failed"
