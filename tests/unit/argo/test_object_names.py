"""What becomes the name of an object of Kubernetes, or a part of one, is small and unique."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG, task, task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_raynode import ray_node
from airflow_provider_raynode.argo.export import export_dag
from airflow_provider_raynode.argo.lint import lint_text
from airflow_provider_raynode.argo.names import argo_names, template_names

SMALL = re.compile(r"[a-z0-9][-a-z0-9]{0,127}")
IDS = st.text(st.sampled_from("aAbB_.-9ßÄ"), min_size=1, max_size=12) | st.text("aA_", min_size=100, max_size=250)
KUBERAY = {
    "ray_cluster": {"kuberay": {"image": "ray:1", "ray_version": "2.60.0", "head": {"num_cpus": 1}}},
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "num_samples": 1,
        "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}},
    },
}


@task
def work(n: int = 1) -> int:
    return n


def fit(x: float) -> dict[str, float]:
    return {"score": x}


def names_of(dag: DAG, **options: Any) -> list[str]:
    options.setdefault("settings", {"catalog": "s3://bucket/raynode"})
    text = export_dag(dag, Path("dags/x.py"), **options).text
    manifest = next(iter(yaml.safe_load_all(text)))
    return [template["name"] for template in manifest["spec"]["templates"]]


@given(st.lists(IDS, unique=True, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_template_names_are_small_unique_and_short_enough(ids: list[str]) -> None:
    with DAG("names", schedule=None) as dag:
        for each in ids:
            work.override(task_id=each)()
    found = template_names(dag)
    assert set(found) == set(argo_names(dag).values())
    ends = [
        f"{prefix}{name}{suffix}" for name in found.values() for prefix, suffix in (("group-", ""), ("", "-rayjob"))
    ]
    assert len(set(ends)) == 2 * len(ids)
    assert all(SMALL.fullmatch(each) for each in ends)


@given(st.lists(IDS, unique=True, min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_every_pod_of_an_export_can_start(ids: list[str]) -> None:
    """A time limit of its own for each task gives each a template of its own."""
    with DAG("names", schedule=None) as dag:
        for number, each in enumerate(ids):
            work.override(task_id=each, execution_timeout=timedelta(hours=1 + number))()
    found = names_of(dag)
    assert len(set(found)) == len(found)
    assert all(SMALL.fullmatch(each) for each in found)


def test_groups_and_ray_jobs_have_small_names_too() -> None:
    with DAG("Names", schedule=None) as dag:

        @task_group(group_id="Group")
        def upper(n: int) -> None:
            work(n)

        @task_group(group_id="group")
        def lower(n: int) -> None:
            work(n)

        upper.expand(n=[1, 2])
        lower.expand(n=[1, 2])
        for name in ("Search", "search", "task"):
            ray_node(name, python_callable=fit, ray_config=KUBERAY)
        # Would have the name of a RayJob's template.
        work.override(task_id="tune-rayjob", retries=1)()
    found = names_of(dag, ray="rayjob")
    assert len(set(found)) == len(found)
    assert all(SMALL.fullmatch(each) for each in found)
    # Its group has the name as it is.
    assert {each[:12] for each in found if each.startswith("group-group")} == {"group-group", "group-group-"}
    assert sum(each.endswith("-rayjob") for each in found) == 3


def test_pools_and_tasks_whose_names_meet_have_semaphores_of_their_own() -> None:
    pools = {"a_b": 1, "a-b": 2, "max_active_runs": 3}
    with DAG("semaphores", schedule=None, max_active_runs=5) as dag:
        for number, name in enumerate(pools):
            work.override(task_id=f"t{number}", pool=name)()
        for number, name in enumerate(("x_y", "x-y"), 6):
            work.override(task_id=name, max_active_tis_per_dag=number)()
    text = export_dag(dag, Path("dags/x.py"), settings={"catalog": "s3://bucket/raynode", "pools": pools}).text
    manifest, config_map = yaml.safe_load_all(text)
    assert sorted(config_map["data"].values()) == ["1", "2", "3", "5", "6", "7"]
    assert config_map["data"]["max-active-runs"] == "5"
    asked = {
        each["configMapKeyRef"]["key"]
        for template in manifest["spec"]["templates"]
        for each in template.get("synchronization", {}).get("semaphores", [])
    }
    assert asked == set(config_map["data"]) - {"max-active-runs"}


@pytest.mark.parametrize(("kind", "count"), [("container: {image: a}", 1), ("suspend: {duration: '0'}", 0)])
def test_the_lint_knows_which_names_pods_cannot_have(kind: str, count: int) -> None:
    text = f"""
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{name: a}}
spec:
  entrypoint: dag
  templates:
    - name: dag
      dag:
        tasks:
          - {{name: Task, template: Load-Daily}}
    - name: Load-Daily
      {kind}
"""
    found = [str(each) for each in lint_text(text, "x.yaml") if "capital letters" in each.message]
    assert len(found) == count
    assert all("no pod ever starts" in each for each in found)
