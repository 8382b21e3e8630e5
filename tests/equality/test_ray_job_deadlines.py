"""A RayJob that comes near its deadline: its driver ends by itself, says why, and the next try goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_stand_in import KubeRay, Kubernetes
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = [pytest.mark.airflow, pytest.mark.ray]

# At the first try the second trial has no end.
NODE = """
import os, pathlib, time
from airflow.sdk import DAG
from airflow_provider_raynode import ray_node

FOLDER = pathlib.Path({folder!r})

def train(x):
    with (FOLDER / "ran").open("a") as file:
        file.write(f"{{x}} {{os.environ['TEXT']}} {{os.environ['OTHER']}}\\n")
    while x == 2 and not (FOLDER / "second").exists():
        if (FOLDER / "waits").exists():
            time.sleep(1)
        (FOLDER / "waits").touch()
    return {{"score": float(x)}}

with DAG("in_time"):
    ray_node(
        "search",
        python_callable=train,
        ray_config={{
            "ray_cluster": {{
                "kuberay": {{
                    "image": "ray:1",
                    "active_deadline_seconds": 45,
                    "env": {{"TEXT": "$(HOME) $$"}},
                    "volumes": [{{"name": "catalog", "hostPath": {{"path": {catalog!r}}}}}],
                    "volume_mounts": [{{"name": "catalog", "mountPath": {catalog!r}}}],
                }},
                "runtime_env": {{"env_vars": {{"OTHER": "it's \\"so\\""}}}},
            }},
            "ray_tune": {{"metric": "score", "mode": "max", "max_concurrent_trials": 1,
                          "search_space": {{"x": {{"type": "grid_search", "values": [1, 2]}}}}}},
            "default_resources": {{"num_cpus": 0.5}},
        }},
        default_args={{"retries": 1, "retry_delay": 2}},
    )
"""


@pytest.fixture
def kuberay(tmp_path: Path) -> Iterator[KubeRay]:
    with Kubernetes(tmp_path / "kubernetes") as kubernetes:
        kuberay = KubeRay(kubernetes, {"RAY_AUTH_MODE": "disabled"})
        yield kuberay
        kuberay.close()


def test_the_driver_ends_before_kuberay_ends_it(argo: Argo, kuberay: KubeRay, tmp_path: Path) -> None:
    path = tmp_path / "in_time.py"
    path.write_text(NODE.format(folder=str(tmp_path), catalog=str(argo.catalog)))
    begin = kuberay._begin

    def second(job: dict[str, object]) -> None:
        if kuberay.started:
            (tmp_path / "second").touch()
        begin(job)

    kuberay._begin = second  # type: ignore[method-assign]
    kuberay.kubernetes.put(
        "workflows", {"metadata": {"name": "in-time-1", "uid": "1234"}, "status": {"phase": "Running"}}
    )
    outcome = argo.run(
        load_dag(path), path, ray="rayjob", resource_handler=kuberay, env=kuberay.kubernetes.env, time_scale=0.01
    )
    assert outcome.state == "success", argo.last.report()
    assert len(argo.last.node("search-tune-rayjob").tries) == 2
    assert "the job's deadline (45 s" in kuberay.logs[0].read_text()
    ran = (tmp_path / "ran").read_text().splitlines()
    assert [each[0] for each in ran] == ["1", "2", "2"], "what had ended was not run again"
    assert ran[0] == """1 $(HOME) $$ it's "so\""""
    assert not kuberay.pids()
