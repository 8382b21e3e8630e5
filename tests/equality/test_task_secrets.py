"""Secrets in real pods: a task has what it needs and its neighbours have not; every pod has what the DAG file reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = pytest.mark.airflow

DAG_FILE = """
import os
from airflow.sdk import DAG, Variable, task

# Every pod reads the DAG file.
SHARED = Variable.get("shared")


def seen():
    return sorted(name for name in os.environ if name.startswith("AIRFLOW_VAR_"))


with DAG("task_secrets", schedule=None) as dag:
    @task
    def needs():
        return [Variable.get("own"), SHARED, seen()]

    @task
    def needs_not():
        return [SHARED, seen()]

    @task
    def each(x, y):
        return seen()

    each.expand(x=needs(), y=needs_not())
"""


def test_a_task_has_its_own_secrets_only(tmp_path: Path, argo: Argo) -> None:
    file = tmp_path / "task_secrets.py"
    file.write_text(DAG_FILE)
    with pytest.MonkeyPatch.context() as patch:
        # Who exports reads the DAG file as well.
        patch.setenv("AIRFLOW_VAR_SHARED", "for the parse")
        dag = load_dag(file)
    key = {"name": "variables"}
    settings = {
        "secrets": {
            "AIRFLOW_VAR_OWN": {**key, "key": "own"},
            "AIRFLOW_VAR_SHARED": {**key, "key": "shared", "all_pods": True},
        },
        "tasks": {"needs": {"secrets": ["AIRFLOW_VAR_OWN"]}, "each": {"secrets": ["AIRFLOW_VAR_OWN"]}},
    }
    secrets = {"variables": {"own": "o", "shared": "s"}}
    outcome = argo.run(dag, file, settings=settings, secrets=secrets)
    assert outcome.state == "success"
    both, shared = ["AIRFLOW_VAR_OWN", "AIRFLOW_VAR_SHARED"], ["AIRFLOW_VAR_SHARED"]
    assert outcome.xcoms["needs", -1, "return_value"] == ["o", "s", both]
    assert outcome.xcoms["needs_not", -1, "return_value"] == ["s", shared]
    assert outcome.xcoms["each", 0, "return_value"] == both
