"""RayJobs whose clusters never start: what the node says of it, and what ends when their workflow is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import KubeRay, Kubernetes, ray_job
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = pytest.mark.airflow

PULL = "failed to pull and unpack image 'ray:none': not found"
STARTING = {"jobDeploymentStatus": "Initializing"}

DAG_FILE = """
import pathlib
from airflow.sdk import DAG, task, task_group
from airflow_provider_raynode import ray_node

def train(x):
    return {{"score": float(x)}}

def config():
    return {{
        "ray_cluster": {{"kuberay": {{
            "image": "ray:none",
            "volumes": [{{"name": "catalog", "hostPath": {{"path": {catalog!r}}}}}],
            "volume_mounts": [{{"name": "catalog", "mountPath": {catalog!r}}}],
        }}}},
        "ray_tune": {{"metric": "score", "mode": "max",
                      "search_space": {{"x": {{"type": "grid_search", "values": [1, 2]}}}}}},
    }}

def tell(context):
    pathlib.Path({folder!r}, "callback").touch()

with DAG("never_starts", on_failure_callback={callback}):
    @task_group
    def each(i):
        ray_node("Search", python_callable=train, ray_config=config())

    each.expand(i=[0, 1])
    ray_node("search", python_callable=train, ray_config=config(), default_args={{"retries": 1, "retry_delay": 0}})
"""


@pytest.fixture
def kuberay(tmp_path: Path) -> Iterator[KubeRay]:
    with Kubernetes(tmp_path / "kubernetes") as kubernetes:
        yield KubeRay(kubernetes, {})


def run(argo: Argo, kuberay: KubeRay, folder: Path, callback: str = "None", **options: Any) -> Any:
    path = folder / "never_starts.py"
    path.write_text(DAG_FILE.format(folder=str(folder), callback=callback, catalog=str(argo.catalog)))
    return argo.run(
        load_dag(path), path, ray="rayjob", resource_handler=kuberay, env=kuberay.kubernetes.env, max_pods=8, **options
    )


def test_an_image_that_cannot_be_pulled_is_the_failure_of_its_node(
    argo: Argo, kuberay: KubeRay, tmp_path: Path
) -> None:
    def broken(found: dict[str, Any]) -> dict[str, Any]:
        name = found["metadata"]["name"]
        waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": PULL}}}
        labels = {"ray.io/cluster": f"{name}-cluster"}
        pod = {"metadata": {"name": f"{name}-head", "labels": labels}, "status": {"containerStatuses": [waiting]}}
        kuberay.kubernetes.put("pods", pod)
        why = {"reason": "PreRunningDeadlineExceeded", "message": "not running in time"}
        return {"jobDeploymentStatus": "Failed", "jobStatus": "", "rayClusterName": f"{name}-cluster", **why}

    kuberay.broken = broken
    outcome = run(argo, kuberay, tmp_path)
    assert outcome.state == "failed"
    assert outcome.states[("search.tune", -1)] == "failed"
    log = argo.last.node("search-tune").log
    (name,) = {each["metadata"]["name"] for each in kuberay.manifests if each["metadata"]["name"].startswith("never")}
    assert f"RayJob {name}: jobDeploymentStatus Failed" in log
    assert "reason PreRunningDeadlineExceeded: not running in time" in log
    assert f"pod {name}-head: ErrImagePull: {PULL}" in log
    assert "ended from outside" not in log
    # The second try has made another RayJob of the same name: the failed one was cleared away.
    assert len(argo.last.node("search-tune-rayjob").tries) == 2
    assert [each["metadata"]["name"] for each in kuberay.manifests].count(name) == 2
    assert outcome.states[("each.Search.tune", 0)] == outcome.states[("each.Search.tune", 1)] == "failed"


def test_stop_ends_every_ray_job_of_the_run_and_no_other(argo: Argo, kuberay: KubeRay, tmp_path: Path) -> None:
    kubernetes = kuberay.kubernetes
    kuberay.broken = lambda found: STARTING
    kubernetes.put("rayjobs", ray_job("of-another-run", uid="5678"))
    run(
        argo,
        kuberay,
        tmp_path,
        callback="tell",
        stop_when=lambda: "Stop" if len(kubernetes.names("rayjobs")) == 4 else None,
    )
    assert kubernetes.names("rayjobs") == ["of-another-run"], argo.last.node("onExit").log
    assert len({each["metadata"]["name"] for each in kuberay.manifests}) == 3
    assert (tmp_path / "callback").exists(), "and the DAG's callbacks run"
    for each in kuberay.manifests:
        assert each["metadata"]["ownerReferences"][0]["uid"] == "1234"
        assert each["spec"]["jobId"].endswith("-a1")
        container = each["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        assert {"name": "RAYNODE_WORKFLOW", "value": f"argo/{argo.last.name}/1234"} in container["env"]


def test_a_run_that_may_not_end_its_ray_jobs_says_so(argo: Argo, kuberay: KubeRay, tmp_path: Path) -> None:
    kubernetes = kuberay.kubernetes
    kuberay.broken = lambda found: STARTING
    kubernetes.rights = {("get", "rayjobs")}
    run(argo, kuberay, tmp_path, stop_when=lambda: "Stop" if len(kubernetes.names("rayjobs")) == 3 else None)
    node = argo.last.node("onExit")
    assert node.phase == "Failed"
    assert "{apiGroups: ['ray.io'], resources: [rayjobs], verbs: [list]}" in node.log


def test_a_ray_job_that_argo_has_lost_sight_of_is_waited_for(argo: Argo, kuberay: KubeRay, tmp_path: Path) -> None:
    """The pod that waits is lost and there is no try left; the search still runs, so its end is the node's."""
    kubernetes = kuberay.kubernetes
    kuberay.broken = lambda found: {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}

    def handler(manifest: dict[str, Any], action: str) -> Any:
        kuberay(manifest, action)
        name = manifest["metadata"]["name"]
        threading.Thread(target=fail_when_waited_for, args=(name,), daemon=True).start()
        return lambda: None

    def fail_when_waited_for(name: str) -> None:
        while kubernetes.requests.count(("get", "rayjobs", name)) < 5:
            time.sleep(0.05)
        status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "the head is gone"}
        kubernetes.objects["rayjobs", name]["status"] = status

    path = tmp_path / "lost_sight.py"
    text = DAG_FILE.replace("each.expand(i=[0, 1])", "").replace('"retries": 1', '"retries": 0')
    path.write_text(text.format(folder=str(tmp_path), callback="None", catalog=str(argo.catalog)))
    outcome = argo.run(load_dag(path), path, ray="rayjob", resource_handler=handler, env=kubernetes.env)
    assert outcome.states[("search.tune", -1)] == "failed"
    log = argo.last.node("search-tune").log
    assert "Attached to job" in log
    assert "the head is gone" in log
