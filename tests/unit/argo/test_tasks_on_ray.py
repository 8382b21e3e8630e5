"""`@task.ray` and RaySubmitJobOperator at the export: pods of their own, with what they need, and no RayJob."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG, task

from airflow_provider_raynode import RaySubmitJobOperator
from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.export import Export, export_dag
from airflow_provider_raynode.argo.needs import needs_of
from airflow_provider_raynode.argo.node_tasks import is_execution, is_one_task

KUBERAY = {"ray_cluster": {"kuberay": {"image": "ours:1"}}}


def dag_of(**options: Any) -> DAG:
    with DAG("a_dag", schedule=None) as dag:

        @task.ray(ray_conn_id="my_ray", secrets=["conn:store"], **options)
        def work(x: int) -> int:
            return x

        work(1) >> work.override(task_id="mapped").expand(x=[1, 2])
        RaySubmitJobOperator(task_id="job", entrypoint="true", ray_conn_id="my_ray", secrets=["var:key as KEY"])
    return dag


def export(dag: DAG, ray: Any = "submit") -> Export:
    return export_dag(dag, Path("dags/x.py"), settings={"catalog": "s3://bucket/raynode"}, ray=ray)


@pytest.mark.parametrize("ray", ["submit", "rayjob"])
def test_each_is_a_pod(ray: str) -> None:
    templates = next(iter(yaml.safe_load_all(export(dag_of(), ray).text)))["spec"]["templates"]
    assert not [each["name"] for each in templates if "resource" in each], "no RayJob is made of them"


def test_a_pod_has_the_connections_and_secrets_that_its_task_names() -> None:
    dag = dag_of()
    work = {"AIRFLOW_CONN_MY_RAY", "AIRFLOW_CONN_STORE"}
    assert set(needs_of(dag, dag.get_task("work"))) == work
    assert set(needs_of(dag, dag.get_task("mapped"))) == work
    assert set(needs_of(dag, dag.get_task("job"))) == {"AIRFLOW_CONN_MY_RAY", "AIRFLOW_VAR_KEY"}


def test_they_are_no_execution_tasks_of_a_node() -> None:
    assert [(is_one_task(each), is_execution(each)) for each in dag_of().tasks] == [(True, False)] * 3


def test_a_cluster_of_its_own_is_refused_by_name() -> None:
    export(dag_of(ray_config=KUBERAY))
    with pytest.raises(RefusedError, match=r"work.*ray_cluster\.kuberay has no effect on it"):
        export(dag_of(ray_config=KUBERAY), "rayjob")
