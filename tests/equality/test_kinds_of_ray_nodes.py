"""A training, a function and a map with a real Ray: on Argo as in Airflow, alone and in a mapped task group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compare import _states
from kubernetes_stand_in import KubeRay, Kubernetes
from oracle import Outcome, airflow_outcome
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = [pytest.mark.airflow, pytest.mark.ray]

KINDS = """
from airflow.sdk import DAG, task
from airflow_provider_raynode import catalog, context, pickled, ray_node, report

SMALL = {"num_cpus": 0.5}

def split(text):
    return text.split(".")

def length(part):
    if part == "bad":
        raise ValueError("a bad part")
    return len(part)

def train(lengths):
    for step in range(1, 4):
        report({"loss": abs(step - 2)})
    return {"loss": 5, "weights": [context().world_size, lengths]}

with DAG("kinds"):
    function = ray_node("split", python_callable=split, ray_config={"default_resources": SMALL},
                        op_kwargs={"text": "a.bcd.bad.ef"})
    mapped = ray_node("lengths", python_callable=length,
                      ray_config={"ray_map": {"over": "part", "on_error": "keep"}, "default_resources": SMALL},
                      op_kwargs={"part": function.value})
    trained = ray_node(
        "model",
        python_callable=train,
        ray_config={"ray_train": {"scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.25}},
                                  "metric": "loss", "mode": "min"}},
        op_kwargs={"lengths": mapped.results},
        returns=[pickled("weights")],
    )

    @task
    def use(value, failed, items, best, end, weights):
        return [value, failed, items, best, end, catalog.load(weights)]

    use(function.value, mapped.failed, mapped.items, trained.best_metrics["loss"], trained.training,
        trained.outputs["weights"])
"""

IN_A_GROUP = """
from airflow.sdk import DAG, task, task_group
from airflow_provider_raynode import ray_node

def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2

with DAG("in_a_group"):
    @task
    def numbers():
        return [2, 3]

    @task(trigger_rule="all_done")
    def use(values):
        return values

    @task_group
    def each(number):
        node = ray_node("half", python_callable=half, ray_config={"default_resources": {"num_cpus": 0.5}},
                        op_kwargs={"number": number}, default_args={"retries": 0})
        return node.value

    use(each.expand(number=numbers()))
"""

ON_A_RAY_JOB = """
from airflow.sdk import DAG, task
from airflow_provider_raynode import ray_node, report

def train(fail):
    report({{"loss": 1.0}})
    if fail:
        raise ValueError("the training fails")
    return {{"loss": 0.5}}

with DAG("on_a_ray_job"):
    node = ray_node(
        "node",
        python_callable=train,
        ray_config={{
            "ray_cluster": {{"kuberay": {{
                "image": "ray:1",
                "worker_groups": [{{"name": "small", "replicas": 2}}],
                "volumes": [{{"name": "catalog", "hostPath": {{"path": "{catalog}"}}}}],
                "volume_mounts": [{{"name": "catalog", "mountPath": "{catalog}"}}],
            }}}},
            "ray_train": {{"scaling": {{"num_workers": 2, "resources_per_worker": {{"CPU": 0.25}}}}}},
        }},
        op_kwargs={{"fail": {fail}}},
    )

    @task
    def use(metrics, end):
        return [metrics["loss"], end["world_size"], end["ending"]]

    use(node.metrics, node.training)
"""


@pytest.fixture(autouse=True)
def fast_health_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")


def both(path: Path, argo: Argo, **options: Any) -> tuple[Outcome, Outcome]:
    """Return what Airflow and Argo make of a DAG file; states and tries are equal."""
    airflow = airflow_outcome(load_dag(path))
    ours = argo.run(load_dag(path), path, **options)
    assert _states(ours) == _states(airflow), argo.last.report()
    assert ours.state == airflow.state
    assert {key: airflow.tries[key] for key in ours.tries} == ours.tries
    return airflow, ours


def test_each_kind_takes_what_the_one_before_gives(airflow_db: None, argo: Argo, tmp_path: Path) -> None:
    path = tmp_path / "kinds.py"
    path.write_text(KINDS)
    airflow, ours = both(path, argo)
    assert ours.state == "success", argo.last.report()
    found = ours.xcoms[("use", -1, "return_value")]
    assert found == airflow.xcoms[("use", -1, "return_value")]
    assert found[0] == ["a", "bcd", "bad", "ef"]
    assert found[1] == [2]
    assert found[3] == 0
    assert found[4]["ending"] == "finished"
    assert found[5] == [2, [1, 3, None, 2]]


def test_a_node_in_a_mapped_group_that_fails_at_one_index(airflow_db: None, argo: Argo, tmp_path: Path) -> None:
    path = tmp_path / "in_a_group.py"
    path.write_text(IN_A_GROUP)
    airflow, ours = both(path, argo)
    assert ours.states[("each.half.run", 0)] == "success"
    assert ours.states[("each.half.run", 1)] == "failed"
    assert ours.xcoms[("use", -1, "return_value")] == airflow.xcoms[("use", -1, "return_value")]


@pytest.mark.parametrize("fail", [False, True])
def test_a_training_as_a_ray_job(fail: bool, airflow_db: None, argo: Argo, tmp_path: Path) -> None:
    path = tmp_path / "training_as_ray_job.py"
    path.write_text(ON_A_RAY_JOB.format(fail=fail, catalog=argo.catalog))
    with Kubernetes(tmp_path / "kubernetes") as kubernetes:
        kuberay = KubeRay(kubernetes, {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"})
        try:
            _, ours = both(path, argo, ray="rayjob", resource_handler=kuberay, env=kubernetes.env)
        finally:
            kuberay.close()
    (manifest,) = kuberay.manifests
    assert manifest["metadata"]["annotations"]["raynode/task-id"] == "node.train"
    if fail:
        assert ours.states[("node.train", -1)] == "failed"
        assert "the training fails" in argo.last.node("node-train").log
    else:
        assert ours.xcoms[("use", -1, "return_value")] == [0.5, 2, "finished"]
