"""Both example DAGs with a real Ray: on Argo as in Airflow, with the embedded Ray and as RayJobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare import _states
from kubernetes_stand_in import KubeRay, Kubernetes
from oracle import Outcome, airflow_outcome
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = [pytest.mark.airflow, pytest.mark.ray]

DAGS = Path(__file__).resolve().parents[2] / "dags"


def outcomes(name: str, argo: Argo, **options: Any) -> tuple[Outcome, Outcome]:
    """Return what Airflow and Argo make of an example; states and tries are equal."""
    path = DAGS / name
    airflow = airflow_outcome(load_dag(path))
    ours = argo.run(load_dag(path), path, **options)
    assert ours.state == airflow.state == "success", argo.last.report()
    assert _states(ours) == _states(airflow)
    assert {key: airflow.tries[key] for key in ours.tries} == ours.tries
    return airflow, ours


def nodes(outcome: Outcome, task_id: str) -> list[Any]:
    """Return what the fan-in of a node pushed, by map index, without what is another in every run."""
    found = sorted(
        (index, value)
        for (name, index, key), value in outcome.xcoms.items()
        if name == task_id and key == "return_value"
    )
    return [{"config": value["best_config"], "metrics": value["best_metrics"]} for _, value in found]


def scores(found: list[Any]) -> list[Any]:
    return [(each["config"], each["metrics"]["accuracy"]) for each in found]


def test_the_mapped_search_finds_the_same(airflow_db: None, argo: Argo) -> None:
    """A grid search per data set in a mapped task group: best configs and metrics are equal."""
    airflow, ours = outcomes("mapped_search.py", argo)
    assert scores(nodes(ours, "search.tuning.fan_in")) == scores(nodes(airflow, "search.tuning.fan_in"))
    assert len(nodes(ours, "search.tuning.fan_in")) == 3


def test_the_tuning_example_runs_as_it_is(airflow_db: None, argo: Argo) -> None:
    """Its search is parallel, so two runs may find another best trial; the baseline and the shape are equal."""
    airflow, ours = outcomes("hyperparameter_tuning.py", argo)
    theirs, found = (each.xcoms[("evaluate", -1, "return_value")] for each in (airflow, ours))
    assert found["baseline"] == theirs["baseline"]
    assert abs(found["tuned"] - theirs["tuned"]) < 0.03
    tuned = ours.xcoms[("ray_hyperparameter_tuning.fan_in", -1, "return_value")]
    assert set(tuned) == {
        "best_trial",
        "best_config",
        "best_metrics",
        "completion",
        "outputs",
        "run_record",
        "steps",
        "trials",
    }


NODE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task
from airflow_provider_raynode import pickled, ray_node

def train(x, layers, fail=False):
    if fail:
        raise ValueError("the trial fails")
    return {{"score": float(x), "model": [x]}}

with DAG("on_a_ray_job"):
    node = ray_node(
        "search",
        python_callable=train,
        ray_config={{
            "ray_cluster": {{"kuberay": {{
                "image": "ray:1",
                "worker_groups": [{{"name": "small", "replicas": 2}}],
                "volumes": [{{"name": "catalog", "hostPath": {{"path": "{catalog}"}}}}],
                "volume_mounts": [{{"name": "catalog", "mountPath": "{catalog}"}}],
            }}}},
            "ray_tune": {{"metric": "score", "mode": "max",
                          "search_space": {{"x": {{"type": "grid_search", "values": [1, 2, 3]}},
                                           "layers": {{"type": "constant", "value": [8, 4]}}}}}},
            "default_resources": {{"num_cpus": 0.5}},
        }},
        op_kwargs={{"fail": {fail}}},
        returns=[pickled("model")],
    )

    @task
    def use(tuned):
        from airflow_provider_raynode import catalog

        return catalog.load(tuned["outputs"]["model"])

    use(node.output)

    @task
    def part(model, whole, x):
        from airflow_provider_raynode import catalog

        return [catalog.load(model), sorted(whole), x]

    @task
    def one(i, x=None):
        return [i, x]

    part(node.outputs["model"], node, node.best_config["x"])
    one.partial(x=node.best_metrics["score"]).expand(i=node.best_config["layers"])
    node >> BashOperator(task_id="text", bash_command=f"echo {{node.best_config['layers'][1]}}")
"""


@pytest.fixture
def kuberay(tmp_path: Path) -> Iterator[KubeRay]:
    with Kubernetes(tmp_path / "kubernetes") as kubernetes:
        kuberay = KubeRay(kubernetes, {"RAY_AUTH_MODE": "disabled"})
        yield kuberay
        kuberay.close()


@pytest.mark.parametrize("fail", [False, True])
def test_a_search_as_a_ray_job(fail: bool, airflow_db: None, argo: Argo, tmp_path: Path, kuberay: KubeRay) -> None:
    path = tmp_path / "ray_job.py"
    path.write_text(NODE.format(fail=fail, catalog=argo.catalog))
    airflow = airflow_outcome(load_dag(path))
    ours = argo.run(load_dag(path), path, ray="rayjob", resource_handler=kuberay, env=kuberay.kubernetes.env)
    assert _states(ours) == _states(airflow), argo.last.report()
    assert ours.state == airflow.state
    (manifest,) = kuberay.manifests
    assert manifest["kind"] == "RayJob"
    assert manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    if fail:
        assert "the trial fails" in argo.last.node("search-tune").log
    else:
        assert ours.xcoms[("use", -1, "return_value")] == airflow.xcoms[("use", -1, "return_value")] == [3]
        assert ours.xcoms[("part", -1, "return_value")] == airflow.xcoms[("part", -1, "return_value")]
        assert ours.xcoms[("part", -1, "return_value")][0::2] == [[3], 3]
        assert [ours.xcoms[("one", index, "return_value")] for index in (0, 1)] == [[8, 3.0], [4, 3.0]]
        assert ours.xcoms[("text", -1, "return_value")] == "4"
