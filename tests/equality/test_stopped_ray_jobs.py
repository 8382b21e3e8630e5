"""A workflow with RayJobs that is stopped, terminated, retried: real drivers, one at a time, and nothing done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import KubeRay, Kubernetes
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = [pytest.mark.airflow, pytest.mark.ray]

WORKFLOW = "stopped-ray-job-1"

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
            "ray_cluster": {{"kuberay": {{
                "image": "ray:1",
                "volumes": [{{"name": "catalog", "hostPath": {{"path": {catalog!r}}}}}],
                "volume_mounts": [{{"name": "catalog", "mountPath": {catalog!r}}}],
            }}}},
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
        path.write_text(NODE.format(folder=str(tmp_path), retries=retries, catalog=str(argo.catalog)))
        kuberay.kubernetes.put(
            "workflows",
            {"metadata": {"name": WORKFLOW, "uid": "1234"}, "spec": {}, "status": {"phase": "Running"}},
        )
        options = {"resource_handler": kuberay, "env": kuberay.kubernetes.env, **options}
        return argo.run(load_dag(path), path, ray="rayjob", **options)

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


class LosingPods:
    """Argo's side of a RayJob whose first pod is lost while the search goes on; `then` is done at the second."""

    def __init__(self, kuberay: KubeRay, lost: Callable[[], bool], then: Callable[[], object]) -> None:
        self._kuberay, self._lost, self._then = kuberay, lost, then
        self.applied: list[str] = []

    def __call__(self, manifest: dict[str, Any], action: str) -> Any:
        look = self._kuberay(manifest, action)
        self.applied.append(manifest["metadata"]["name"])
        if len(self.applied) > 1:
            self._then()
            return look
        # To the workflow a pod that is gone is as one that cannot find its object any more.
        return lambda: None if self._lost() else look()


def test_a_lost_pod_adopts_and_stop_ends_and_a_retry_goes_on(
    argo: Argo, run: Any, kuberay: KubeRay, tmp_path: Path
) -> None:
    losing = LosingPods(kuberay, lambda: (tmp_path / "waits").exists(), (tmp_path / "adopted").touch)
    stopped = run(
        retries=1,
        resource_handler=losing,
        stop_when=lambda: "Stop" if (tmp_path / "adopted").exists() and saved(tmp_path) else None,
    )
    assert stopped.state == "failed"
    assert len(set(losing.applied)) == 1 and len(losing.applied) == 2
    assert len(kuberay.started) == 1, "the second try found the search at work"
    assert "adopting what an earlier try began" in argo.last.node("search-tune-rayjob").log
    assert argo.last.node("onExit").phase == "Succeeded", argo.last.node("onExit").log
    assert not kuberay.pids(), "stop has ended the driver"
    assert kuberay.kubernetes.names("rayjobs") == []
    assert trials(tmp_path) == ["1"]
    (tmp_path / "go").touch()
    outcome = run(retries=1, retry_of=argo.last)
    assert outcome.state == "success", argo.last.report()
    assert trials(tmp_path) == ["1", "2", "3"], "what had ended was not run again"
    assert len(kuberay.started) == 2


def test_terminate_is_seen_by_the_driver_and_a_retry_goes_on(
    argo: Argo, run: Any, kuberay: KubeRay, tmp_path: Path
) -> None:
    kubernetes = kuberay.kubernetes

    def terminated() -> str | None:
        if not saved(tmp_path):
            return None
        kubernetes.objects["workflows", WORKFLOW]["spec"]["shutdown"] = "Terminate"
        return "Terminate"

    assert run(stop_when=terminated).state == "failed"
    assert "onExit" not in argo.last.nodes
    begin = time.monotonic()
    wait(lambda: not kuberay.pids())
    assert time.monotonic() - begin < 25, "it looks every 10 to 15 s"
    assert f"the workflow argo/{WORKFLOW} was stopped (shutdown: Terminate)" in kuberay.logs[0].read_text()
    (tmp_path / "go").touch()
    outcome = run(retry_of=argo.last)
    assert outcome.state == "success", argo.last.report()
    assert trials(tmp_path) == ["1", "2", "3"]
    assert len(kuberay.started) == 2
