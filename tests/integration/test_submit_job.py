"""RaySubmitJobOperator: an arbitrary command on the session's Ray head, and on the embedded Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.sdk import DAG
from cluster_jobs import python

from airflow_provider_raynode import RaySubmitJobOperator

pytestmark = [pytest.mark.ray, pytest.mark.airflow]


def job_on(head: Any, submission_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/jobs/{submission_id}", headers=headers, timeout=10)
    return dict(answer.json())


def job_ids(head: Any, dag_id: str) -> list[str]:
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=10).json()
    return sorted(each["submission_id"] for each in answer if (each["metadata"] or {}).get("dag_id") == dag_id)


def test_a_command_on_the_cluster(
    run_dag: Callable[..., Any], ray_head: Any, ray_connection: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code = """
        import os, ray
        ray.init(log_to_driver=False)
        print("    indented:", ray.get(ray.remote(num_cpus=0.5)(lambda: 6 * 7).remote()), os.environ["GREETING"])
    """
    with DAG("submits", schedule=None, params={"word": "grüezi"}) as dag:
        RaySubmitJobOperator(
            task_id="job",
            entrypoint=python("\n".join(line[8:] for line in code.splitlines())) + " # {{ ds_nodash }}",
            runtime_env={"env_vars": {"GREETING": "{{ params.word }}"}},
            entrypoint_num_cpus=0.5,
            metadata={"team": "{{ task.task_id }}s", "job_name": "nightly"},
            poll_interval_s=0.5,
        )
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.state == "success", output[-4000:]
    pushed = result.xcom("job")
    assert pushed["status"] == "SUCCEEDED"
    assert "    indented: 42 grüezi" in output
    assert output.count("indented: 42") == 1
    found = job_on(ray_head, pushed["submission_id"])
    assert found["metadata"] | {"team": "jobs", "job_name": "nightly", "dag_id": "submits"} == found["metadata"]
    assert found["entrypoint"].split("#")[1].strip().isdigit()
    assert found["runtime_env"]["env_vars"] == {"GREETING": "grüezi"}, "a command of the author's is left as it is"
    assert "py_modules" not in found["runtime_env"]
    assert result.xcom("job", key="_link_RayJobLink").endswith(f"/#/jobs/{pushed['submission_id']}")
    assert len(json.dumps(pushed)) < 4096


def test_a_command_that_fails_fails_the_task_and_a_retry_submits_the_next(
    run_dag: Callable[..., Any],
    ray_head: Any,
    ray_connection: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    marker = tmp_path / "tried"
    command = f"if [ -e {marker} ]; then echo second; else touch {marker}; echo the last words; exit 3; fi"
    with DAG("submit_retries", schedule=None) as dag:
        RaySubmitJobOperator(
            task_id="job", entrypoint=command, poll_interval_s=0.5, retries=1, retry_delay=timedelta(0)
        )
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.state == "success", output[-4000:]
    assert "exit code 3" in output
    assert output.count("the last words") >= 2, "in the log, and in the error"
    first, second = job_ids(ray_head, "submit_retries")
    assert (first[-3:], second[-3:]) == ("-a1", "-a2")
    assert result.xcom("job")["submission_id"] == second


def test_a_command_on_the_embedded_ray(
    run_dag: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    (tmp_path / "job.py").write_text(
        "import os, ray, beside\n"
        "ray.init(log_to_driver=False)\n"
        "free = ray.available_resources()['CPU']\n"
        "@ray.remote(num_cpus=0.5)\n"
        "def work():\n    import beside\n    return beside.WORD\n"
        "print('found', ray.get(work.remote()), os.environ['WORD'], 'RAYNODE_SECRETS_KEY' in os.environ, free)\n"
    )
    with DAG("submits_here", schedule=None) as dag:
        RaySubmitJobOperator(
            task_id="job",
            entrypoint="python job.py",
            runtime_env={"working_dir": str(tmp_path), "env_vars": {"WORD": "given"}},
            entrypoint_num_cpus=0.25,
        )
        RaySubmitJobOperator(task_id="fails", entrypoint="echo before; kill -9 $$")
        RaySubmitJobOperator(task_id="too_much", entrypoint="true", entrypoint_num_cpus=1000)
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.states["job"] == "success", output[-4000:]
    assert "found beside given False " in output
    assert ".75" in output, "the command's own CPUs are taken from what its tasks have"
    assert result.states["fails"] == "failed"
    assert "was killed by SIGKILL" in output
    assert result.states["too_much"] == "failed"
    assert "the entrypoint reserves 1000 CPU" in output


def test_secrets_reach_a_command_and_nothing_else(
    run_dag: Callable[..., Any],
    ray_head: Any,
    ray_connection: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://me:open-sesame-71@db/x")
    with DAG("submit_secrets", schedule=None) as dag:
        RaySubmitJobOperator(
            task_id="job",
            entrypoint='echo "uri is $DB_URI"; echo "and is not empty: ${DB_URI:+yes}"',
            secrets=["conn:warehouse as DB_URI"],
            poll_interval_s=0.5,
        )
        RaySubmitJobOperator.partial(task_id="mapped", poll_interval_s=0.5).expand(entrypoint=["true", "exit 3"])
        RaySubmitJobOperator(
            task_id="in_clear",
            entrypoint="true",
            runtime_env={"env_vars": {"DB": "{{ conn.warehouse.password }}"}},
        )
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.states["job"] == "success", output[-4000:]
    assert "uri is ***" in output or "uri is postgres://me:***" in output
    assert "and is not empty: yes" in output
    assert "open-sesame-71" not in output
    found = json.dumps(job_on(ray_head, result.xcom("job")["submission_id"]))
    assert "open-sesame-71" not in found
    assert (result.states["mapped[0]"], result.states["mapped[1]"]) == ("success", "failed")
    assert result.xcom("mapped", 0)["submission_id"].endswith("-a1")
    assert result.states["in_clear"] == "failed"
    assert "runtime_env.env_vars.DB: holds a secret" in output
