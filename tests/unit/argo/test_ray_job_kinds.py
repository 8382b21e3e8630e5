"""Every kind of Ray node in an export: its template, its RayJob, and whether its cluster has room for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG, task, task_group

from airflow_provider_raynode import ray_node
from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.export import Export, export_dag
from airflow_provider_raynode.argo.lint import lint_file

S3 = {"catalog": "s3://bucket/raynode"}
TUNE = {"metric": "m", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}
KINDS: dict[str, dict[str, Any]] = {
    "tune": {"ray_tune": TUNE},
    "train": {"ray_train": {"scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}}}},
    "run": {},
    "map": {"ray_map": {"over": "x"}},
}


def work(x: Any) -> dict[str, Any]:
    return {"m": x}


def export(
    config: dict[str, Any], kuberay: dict[str, Any] | None = None, ray: str = "rayjob", mapped: bool = False
) -> Export:
    ray_config = {
        "ray_cluster": {"kuberay": {"image": "ours:1", **(kuberay or {})}} if ray == "rayjob" else {},
        **config,
    }
    op_kwargs = {} if "ray_tune" in config else {"x": [1, 2]}
    with DAG("a_dag", schedule=None) as dag:

        @task
        def use(output: Any) -> Any:
            return output

        def body() -> None:
            use(ray_node("node", python_callable=work, ray_config=ray_config, op_kwargs=op_kwargs).output)

        if mapped:

            @task_group
            def each(i: int) -> None:
                body()

            each.expand(i=[1, 2])
        else:
            body()
    return export_dag(dag, Path("dags/x.py"), settings=S3, ray=ray)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("ray", ["rayjob", "submit"])
@pytest.mark.parametrize("mapped", [False, True])
def test_each_kind_has_a_template_of_its_own(kind: str, ray: str, mapped: bool, tmp_path: Path) -> None:
    exported = export(KINDS[kind], ray=ray, mapped=mapped)
    file = tmp_path / "workflow.yaml"
    file.write_text(exported.text)
    assert not lint_file(file)
    role = "run" if kind == "map" else kind
    templates = {each["name"]: each for each in next(iter(yaml.safe_load_all(exported.text)))["spec"]["templates"]}
    name = f"each-node-{role}" if mapped else f"node-{role}"
    if ray == "rayjob":
        job = yaml.safe_load(templates[f"{name}-rayjob"]["resource"]["manifest"])
        assert job["metadata"]["annotations"]["raynode/task-id"] == ("each." if mapped else "") + f"node.{role}"
        assert job["spec"]["entrypoint"].startswith("python -m airflow_provider_raynode.runtime")
    assert {each for each in templates if each in ("tune", "train", "run")} == {role}


GROUP = {"name": "workers", "num_cpus": 2, "memory": 4_000_000_000}


def training(num_workers: Any = 2, **scaling: Any) -> dict[str, Any]:
    return {"ray_train": {"scaling": {"num_workers": num_workers, **scaling}}}


@pytest.mark.parametrize(
    ("config", "kuberay", "message"),
    [
        (training(4), {}, r"the training needs 4 CPUs \(4 workers x 1\), the cluster has 1. Lower .* raise num_cpus"),
        (training(2, resources_per_worker={"CPU": 3}), {"worker_groups": [{**GROUP, "replicas": 9}]},
         "a worker needs 3 CPUs on one node, and no node has that: 2 CPUs; .* in ray_cluster.kuberay.worker_groups"),
        (training(2, use_gpu=True), {"worker_groups": [GROUP]},
         "a worker needs 1 GPU, and no node .* has any. Change ray_train.scaling.* give it to a group of ray_cluster"),
        (training(6), {"worker_groups": [{**GROUP, "replicas": 2}]}, "training needs 6 CPUs .*, the cluster has 5"),
        (training(2, resources_per_worker={"CPU": 2}, placement_strategy="STRICT_PACK"),
         {"worker_groups": [{**GROUP, "replicas": 9}]}, r"on one node \(STRICT_PACK\), and no node has that"),
        (training(4, placement_strategy="STRICT_SPREAD"), {"worker_groups": [{**GROUP, "replicas": 2}]},
         r"4 nodes, one for each of its processes \(STRICT_SPREAD\), and 3 of the cluster's 3"),
        (training(2, resources_per_worker={"CPU": 1, "memory": 5_000_000_000}), {"worker_groups": [GROUP]},
         "10,000,000,000 bytes of memory"),
        ({"ray_tune": TUNE, **training(4)}, {"worker_groups": [GROUP]}, "each trial needs 4 CPUs .* cluster has 3"),
        ({"default_resources": {"num_cpus": 9}}, {}, "needs 9 CPUs, the cluster has 1. Lower default_resources"),
        ({"ray_map": {"over": "x"}, "default_resources": {"num_gpus": 1}}, {}, "needs 1 GPU, and no node"),
        ({"ray_map": {"over": "x", "resources": {"num_cpus": 3}}}, {}, "Lower ray_map.resources"),
    ],
)  # fmt: skip
def test_what_no_cluster_has_room_for_is_refused(config: dict[str, Any], kuberay: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        export(config, kuberay)


@pytest.mark.parametrize(
    ("config", "kuberay"),
    [
        (training(5), {"worker_groups": [{**GROUP, "replicas": 2}]}),
        (training(5), {"worker_groups": [{**GROUP, "replicas": 0, "max_replicas": 2}]}),
        (training([2, 50]), {"worker_groups": [GROUP]}),
        (training(2, use_gpu=True), {"worker_groups": [{**GROUP, "num_gpus": 2}]}),
        (training(3, placement_strategy="STRICT_SPREAD"), {"worker_groups": [{**GROUP, "replicas": 2}]}),
        (training(4, resources_per_worker={"CPU": 0.25}), {}),
        ({"ray_tune": TUNE, **training(2)}, {"worker_groups": [GROUP]}),
    ],
)
def test_what_has_room_is_exported(config: dict[str, Any], kuberay: dict[str, Any]) -> None:
    assert export(config, kuberay).text


def test_a_config_that_is_known_later_is_refused_for_a_ray_job() -> None:
    with DAG("later", schedule=None, params={"config": "x.yaml"}) as dag:
        ray_node("node", python_callable=work, ray_config="{{ params.config }}", op_kwargs={"x": 1})
    assert export_dag(dag, Path("dags/x.py"), settings=S3).text
    with pytest.raises(RefusedError, match="ray_config is a template or an XCom: --ray rayjob needs it at export"):
        export_dag(dag, Path("dags/x.py"), settings=S3, ray="rayjob")
