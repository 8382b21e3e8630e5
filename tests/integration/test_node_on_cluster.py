"""The composite node on the session's Ray head, through the Jobs API with token authentication."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from airflow.sdk import DAG, task

from airflow_provider_raynode import catalog, context, get_checkpoint, pickled, ray_node, report

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}},
    },
    "default_resources": {"num_cpus": 0.5},
}


def jobs(head: Any) -> dict[str, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=10).json()
    return {job["submission_id"]: job for job in answer if job["submission_id"]}


def test_a_search_on_the_cluster(
    run_dag: Callable[..., Any], ray_head: Any, ray_connection: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def train(data: Any, x: int) -> dict[str, Any]:
        print(f"    indented: x={x} ünïcode")
        return {"score": float(data.sum()) * x, "model": {"weights": data * x}, "node": context().node_id}

    with DAG("on_cluster", schedule=None) as dag_object:

        @task
        def make() -> dict[str, Any]:
            return catalog.put(np.ones(10))

        @task
        def use(tuned: dict[str, Any]) -> float:
            return float(catalog.load(tuned["outputs"]["model"])["weights"].sum())

        node = ray_node(
            "search",
            python_callable=train,
            ray_config=CONFIG,
            op_kwargs={"data": make()},
            returns=[pickled("model")],
            poll_interval_s=0.5,
        )
        use(node.output)

    result = run_dag(dag_object)
    output = capfd.readouterr().out
    assert result.state == "success", (result.states, output[-3000:])
    assert result.xcom("search.fan_in")["best_config"] == {"x": 3}
    assert result.xcom("search.fan_in")["best_metrics"]["node"] == "search"
    assert result.xcom("use") == 30.0
    assert output.count("    indented: x=") == 3, "a line of a trial was lost, or came twice"
    job = result.xcom("search.fan_out")
    assert job["launcher"] == "jobs_api"
    known = jobs(ray_head)[job["submission_id"]]
    assert known["status"] == "SUCCEEDED"
    assert known["metadata"]["dag_id"] == "on_cluster"
    assert known["metadata"]["node_id"] == "search"
    link = result.xcom("search.tune", key="_link_RayJobLink")
    assert link == f"{ray_head.address}/#/jobs/{job['submission_id']}"
    assert ray_head.token not in json.dumps([result.xcom(f"search.{name}") for name in ("fan_out", "tune", "fan_in")])
    assert ray_head.token not in output


def test_a_failing_search_fails_the_task_with_the_jobs_reason(
    run_dag: Callable[..., Any], ray_head: Any, ray_connection: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def train(x: int) -> dict[str, float]:
        raise KeyError(f"column {x} is not there")

    with DAG("cluster_fails", schedule=None) as dag_object:
        ray_node("search", python_callable=train, ray_config=CONFIG, poll_interval_s=0.5)
    result = run_dag(dag_object)
    output = capfd.readouterr().out
    assert result.states["search.tune"] == "failed"
    assert "column 1 is not there" in output
    assert "in train" in output
    assert jobs(ray_head)[result.xcom("search.fan_out")["submission_id"]]["status"] == "FAILED"


def test_the_next_try_runs_the_next_attempt(run_dag: Callable[..., Any], ray_connection: Any, tmp_path: Path) -> None:
    marker = tmp_path / "tried"

    def train(x: int) -> dict[str, float]:
        if not marker.exists():
            marker.touch()
            raise ValueError("the first time fails")
        return {"score": x}

    config = {
        "ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": 1}},
        "default_resources": {"num_cpus": 0.5},
    }
    with DAG("cluster_retry", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=train,
            ray_config=config,
            poll_interval_s=0.5,
            default_args={"retries": 1, "retry_delay": 0},
        )
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    first, second = result.xcom("search.fan_out"), result.xcom("search.tune")
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["submission_id"][:-1] == second["submission_id"][:-1]


def test_a_folder_as_catalog_is_refused_for_a_cluster_elsewhere(
    run_dag: Callable[..., Any], ray_connection: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    from airflow_provider_raynode.hooks.ray import RayHook

    real = RayHook.cluster_info

    def elsewhere(self: RayHook) -> Any:
        # A second machine cannot be had here: all but this field is the real answer.
        return dataclasses.replace(real(self), is_this_host=False)

    monkeypatch.setattr(RayHook, "cluster_info", elsewhere)
    with DAG("elsewhere", schedule=None) as dag_object:
        ray_node("search", python_callable=lambda x: {"score": x}, ray_config=CONFIG)
    result = run_dag(dag_object)
    assert result.states["search.fan_out"] == "failed"
    output = capfd.readouterr().out
    assert "is a folder of this machine" in output
    assert "shared: true" in output
    with DAG("elsewhere_shared", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=lambda x: {"score": x},
            ray_config={**CONFIG, "catalog": {"shared": True}},
            poll_interval_s=0.5,
        )
    assert run_dag(dag_object).state == "success"


def test_a_cluster_that_is_not_there_fails_fan_out_with_the_address(
    run_dag: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with DAG("nobody", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=lambda x: {"score": x},
            ray_config={**CONFIG, "ray_cluster": {"address": "http://127.0.0.1:9"}},
        )
    result = run_dag(dag_object)
    assert result.states["search.fan_out"] == "failed"
    assert "127.0.0.1:9" in capfd.readouterr().out


# -- what Airflow does to a deferred task ------------------------------------------------------------------------------


def submitted(head: Any, root: Path, seconds: float) -> tuple[Any, Any, dict[str, Any]]:
    """A job on the cluster, the execution task that waits for it, and the task's context."""
    from types import SimpleNamespace

    from staged import stage

    from airflow_provider_raynode import RayTuneOperator
    from airflow_provider_raynode.operators._attempt import launcher_for_spec

    def slow(x: int, seconds: float) -> dict[str, float]:
        import time

        time.sleep(seconds)
        print("the trial has ended")
        return {"score": x}

    job, spec, _ = stage(root, slow, {"search_space": {"x": 1}}, op_kwargs={"seconds": seconds})
    update = {"launcher": "jobs_api", "address": head.address, "submission_id": spec.submission_id}
    job = job.model_copy(update=update)
    with launcher_for_spec(job, spec) as launcher:
        launcher.ensure(job)
    operator = RayTuneOperator(task_id="tune", job=job.model_dump(mode="json"), poll_interval_s=0.3)
    context: dict[str, Any] = {"ti": SimpleNamespace(try_number=1)}
    return operator, job, context


def test_a_deferral_that_is_over_stops_the_job(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import TaskDeferralTimeout

    operator, job, context = submitted(ray_head, tmp_path, 120)
    with pytest.raises(TaskDeferralTimeout):
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert jobs(ray_head)[job.submission_id]["status"] in ("STOPPED", "FAILED")


def test_a_trigger_that_failed_costs_nothing(
    ray_head: Any, ray_connection: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    operator, job, context = submitted(ray_head, tmp_path, 1)
    returned = operator.resume_execution("__fail__", {"error": "Trigger failure", "traceback": ["boom"]}, context)
    assert returned == job.model_dump(mode="json")
    assert jobs(ray_head)[job.submission_id]["status"] == "SUCCEEDED"


def test_a_green_job_without_its_result_is_a_failure(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    from airflow_provider_raynode.exceptions import SpecError

    operator, job, context = submitted(ray_head, tmp_path, 0)
    event = {"job": job.model_dump(mode="json"), "state": "SUCCEEDED", "message": "", "offset": 0}
    result = Path(job.node_prefix, "attempt_1", "result.json")
    operator.resume_execution("__fail__", {"error": "Trigger failure"}, context)
    whole = result.read_bytes()
    for damage in (whole[:-9], whole.replace(b"SUCCEEDED", b"FAILED   "), b"", b"{}"):
        result.write_bytes(damage)
        with pytest.raises(SpecError):
            operator.execute_complete(context, event)
    result.unlink()
    with pytest.raises(SpecError, match="left no result"):
        operator.execute_complete(context, event)
    result.write_bytes(whole)
    assert operator.execute_complete(context, event) == event["job"]


def test_what_the_trigger_saw_is_what_the_task_says(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    from airflow_provider_raynode.exceptions import NodeFailedError

    operator, job, context = submitted(ray_head, tmp_path, 0)
    known = {"job": job.model_dump(mode="json"), "message": "why", "offset": 0}
    for state, words in (
        ("FAILED", "ended from outside, not by an error of the function"),
        ("UNKNOWN", "does not know job"),
        ("UNREACHABLE", "may still run: a retry attaches"),
        ("STARTUP_TIMEOUT", "still PENDING after startup_timeout_s"),
    ):
        with pytest.raises(NodeFailedError, match=words):
            operator.execute_complete(context, {**known, "state": state})


def test_parameters_come_from_a_file(run_dag: Callable[..., Any], ray_connection: Any, tmp_path: Path) -> None:
    (tmp_path / "parameters.yaml").write_text("rate: 0.5\ndepth: 3\nx: 99\nothers: [1, 2]\n")

    def train(x: int, rate: float, depth: int, width: int = 7) -> dict[str, Any]:
        others = context().parameters["others"]
        return {"score": x, "seen": [rate, depth, width, others], "x": x}

    with DAG("with_parameters", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=train,
            ray_config=CONFIG,
            op_kwargs={"depth": 4},
            parameters_file=str(tmp_path / "parameters.yaml"),
        )
    result = run_dag(dag_object)
    assert result.state == "success"
    from airflow_provider_raynode.hooks.catalog import catalog_for

    fan_in = result.xcom("search.fan_in")
    assert catalog_for().load(fan_in["outputs"]["seen"]) == [0.5, 4, 7, [1, 2]], "op_kwargs win, the rest has its place"
    assert fan_in["best_config"] == {"x": 3}, "hyperparameters win"


def test_the_textbook_loop_of_population_based_training(run_dag: Callable[..., Any], ray_connection: Any) -> None:
    """A trial that takes over one that has ended has no steps left, and its own last report stands."""

    def train(lr: float) -> None:
        state = get_checkpoint() or {"i": 0, "score": 0.0}
        for i in range(state["i"], 12):
            state = {"i": i + 1, "score": state["score"] + lr}
            report({"score": state["score"], "rate": lr}, checkpoint=state)

    mutations = {"lr": {"type": "uniform", "low": 0.01, "high": 1}}
    # The one change comes with the last step: the worse trial takes over a checkpoint with nothing left to do.
    scheduler = {
        "type": "pbt",
        "perturbation_interval": 12,
        "quantile_fraction": 0.5,
        "synch": True,
        "hyperparam_mutations": mutations,
    }
    space = {"lr": {"type": "grid_search", "values": [0.1, 1.0]}}
    tune = {"metric": "score", "mode": "max", "search_space": space, "scheduler": scheduler}
    with DAG("textbook_pbt", schedule=None) as dag_object:
        config = {"ray_tune": tune, "default_resources": {"num_cpus": 0.5}}
        ray_node("search", python_callable=train, ray_config=config, poll_interval_s=0.5)
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    tuned = result.xcom("search.fan_in")
    assert (tuned["best_config"], tuned["completion"]["failed"]) == ({"lr": 1.0}, 0)
    assert tuned["best_metrics"]["score"] == pytest.approx(12)
    trials = catalog.Catalog(str(Path(tuned["trials"]["uri"]).parent)).load(tuned["trials"])
    assert sorted(trials["rate"]) == [0.1, 1.0]
