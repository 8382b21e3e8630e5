"""A workflow with RayJobs that is stopped, terminated, retried: real drivers, one at a time, and nothing done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import KubeRay, Kubernetes
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = [pytest.mark.airflow, pytest.mark.ray]

# Each trial writes down that it ran, and waits until the test lets it go on.
NODE = """
import pathlib, time
from airflow.sdk import DAG
from airflow_provider_raynode import ray_node

FOLDER = pathlib.Path({folder!r})

def train(x):
    if x > 1:
        (FOLDER / "waits").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.1)
    with (FOLDER / "ran").open("a") as file:
        file.write(f"{{x}}\\n")
    return {{"score": float(x)}}

with DAG("stopped_ray_job"):
    ray_node(
        "search",
        python_callable=train,
        ray_config={{
            "ray_cluster": {{"kuberay": {{"image": "ray:1"}}}},
            "ray_tune": {{"metric": "score", "mode": "max", "max_concurrent_trials": 1,
                          "search_space": {{"x": {{"type": "grid_search", "values": [1, 2, 3]}}}}}},
            "default_resources": {{"num_cpus": 0.5}},
        }},
        default_args={{"retries": {retries}, "retry_delay": 0}},
    )
"""


@pytest.fixture
def kuberay(tmp_path: Path) -> Iterator[KubeRay]:
    with Kubernetes(tmp_path / "kubernetes") as kubernetes:
        kuberay = KubeRay(kubernetes, {"RAY_AUTH_MODE": "disabled"})
        yield kuberay
        kuberay.close()


@pytest.fixture
def run(argo: Argo, tmp_path: Path, kuberay: KubeRay) -> Any:
    """Run the DAG, or retry its last run."""

    def run(retries: int = 0, **options: Any) -> Any:
        path = tmp_path / "stopped_ray_job.py"
        path.write_text(NODE.format(folder=str(tmp_path), retries=retries))
        kuberay.kubernetes.put(
            "workflows",
            {"metadata": {"name": "stopped-ray-job-1", "uid": "1234"}, "spec": {}, "status": {"phase": "Running"}},
        )
        return argo.run(
            load_dag(path), path, ray="rayjob", resource_handler=kuberay, env=kuberay.kubernetes.env, **options
        )

    return run


def trials(folder: Path) -> list[str]:
    """Return what the trials that ended have written down."""
    return (folder / "ran").read_text().split()


def saved(folder: Path) -> bool:
    """Whether Tune has had the time to write down that the first trial has ended."""
    file = folder / "waits"
    return file.exists() and time.time() - file.stat().st_mtime > 3


def wait(condition: Any, timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_stop_ends_the_search_and_a_retry_goes_on(argo: Argo, run: Any, kuberay: KubeRay, tmp_path: Path) -> None:
    stopped = run(stop_when=lambda: "Stop" if saved(tmp_path) else None)
    assert stopped.state == "failed"
    report = argo.last.report()
    assert argo.last.node("onExit").phase == "Succeeded", argo.last.node("onExit").log
    assert not kuberay.pids(), report
    assert kuberay.kubernetes.names("rayjobs") == []
    assert trials(tmp_path) == ["1"]
    (tmp_path / "go").touch()
    outcome = run(retry_of=argo.last)
    assert outcome.state == "success", argo.last.report()
    assert trials(tmp_path) == ["1", "2", "3"], "what had ended was not run again"
    assert len(kuberay.started) == 2
