"""Which pod gets what of the Secrets: what its task is said or seen to need, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_raynode.argo.export import Export, export_dag_file
from airflow_provider_raynode.argo.template_defaults import as_run

DAG_FILE = """
from airflow.sdk import DAG, task, task_group
from airflow.sdk import BaseOperator
from airflow_provider_raynode import ray_node


class Loader(BaseOperator):
    def __init__(self, *, db_conn_id="my_db", **kwargs):
        super().__init__(**kwargs)
        self.db_conn_id = db_conn_id


def train(x):
    return {"score": x}


with DAG("secret", schedule=None, on_failure_callback=print):
    @task
    def plain():
        return [1, 2]

    @task
    def each(x, y):
        return x

    @task_group
    def inner(x):
        @task
        def sends(x):
            return x

        sends(x)

    Loader(task_id="loads") >> Loader(task_id="other", db_conn_id="{{ ds }}")
    Loader.partial(task_id="many").expand(params=[{}])
    Loader.partial(task_id="several").expand(db_conn_id=["a", "b"])
    each.expand(x=plain(), y=plain.override(task_id="second")())
    inner.expand(x=plain.override(task_id="more")())
    ray_node(
        "search", python_callable=train, secrets=["conn:model_store", "var:api_key as KEY"],
        ray_conn_id="my_ray",
        ray_config={"ray_cluster": {"address": "http://head:8265"}, "ray_tune": {
            "metric": "score", "mode": "max", "num_samples": 1,
            "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}},
    )
"""
SECRET = {"name": "s", "key": "k"}
NODE = {"AIRFLOW_CONN_MY_RAY", "AIRFLOW_CONN_MODEL_STORE", "AIRFLOW_VAR_API_KEY"}


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret.py"
    file.write_text(DAG_FILE)
    return file


def exported(dag_file: Path, **settings: Any) -> Export:
    return export_dag_file(dag_file, settings={"catalog": "s3://cat@bucket/raynode", "image": "dags:1", **settings})


def pods(export: Export) -> dict[str, set[str]]:
    """Return what each node's pod has of Secrets: by the node's name, and `on-exit`."""
    spec = next(iter(yaml.safe_load_all(export.text)))["spec"]
    templates = {each["name"]: as_run(each, spec["templateDefaults"]) for each in spec["templates"]}
    found: dict[str, set[str]] = {}
    for template in templates.values():
        for node in template.get("dag", {}).get("tasks", ()):
            found[node["name"]] = _secrets(templates[node["template"]])
    return {**found, "on-exit": _secrets(templates["on-exit"])}


def _secrets(template: dict[str, Any]) -> set[str]:
    container = template.get("container") or template.get("script") or {}
    names = {entry["name"] for entry in container.get("env", ()) if "secretKeyRef" in (entry.get("valueFrom") or {})}
    return names | {entry["secretRef"]["name"] for entry in container.get("envFrom", ()) if "secretRef" in entry}


def declared(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, SECRET)


def test_what_the_dag_shows_is_given_unasked(dag_file: Path) -> None:
    names = (
        *NODE,
        "AIRFLOW_CONN_MY_DB",
        "AIRFLOW_CONN_A",
        "AIRFLOW_CONN_B",
        "AIRFLOW_CONN_CAT",
        "AIRFLOW_CONN_RAY_DEFAULT",
    )
    export = exported(dag_file, secrets=declared(*names))
    found = pods(export)
    # Every pod reads the catalog.
    assert all(
        "AIRFLOW_CONN_CAT" in each
        for name, each in found.items()
        if not name.startswith(("group-", "inner", "all-done"))
    )
    own = {name: each - {"AIRFLOW_CONN_CAT"} for name, each in found.items()}
    assert own["loads"] == own["many"] == {"AIRFLOW_CONN_MY_DB"}
    assert own["several"] == {"AIRFLOW_CONN_A", "AIRFLOW_CONN_B"}
    fan_out, tune, fan_in = (next(each for each in own if each.endswith(end)) for end in ("out", "tune", "in"))
    assert own[fan_out] == own[tune] == NODE
    assert own[fan_in] == own["plain"] == own["other"] == own["on-exit"] == set()
    # No task of this DAG uses that one, and the export says so by name.
    (warning,) = [each for each in export.warnings if "no task is said to need it" in each]
    assert "secrets.AIRFLOW_CONN_RAY_DEFAULT" in warning and "all_pods: true" in warning


def test_a_task_or_a_group_says_what_it_needs(dag_file: Path) -> None:
    export = exported(
        dag_file,
        secrets={**declared("A", "B", "C"), "D": {**SECRET, "all_pods": True}},
        groups={"inner": {"secrets": ["A", "B"]}},
        tasks={
            "plain": {"secrets": ["C"]},
            "inner.sends": {"secrets": {"B": None, "OWN": SECRET}},
            "each": {"secrets": ["A", "B"], "env_from": [{"secret": "all-of-it"}], "env": {"X": {"secret": SECRET}}},
        },
        on_exit={"secrets": ["C"]},
    )
    found = pods(export)
    assert found["plain"] == {"C", "D"}
    assert next(each for name, each in found.items() if "sends" in name) == {"A", "OWN", "D"}
    assert found["each"] == {"A", "B", "X", "all-of-it", "D"}
    # A pod that only counts map indexes runs no task.
    assert found["each-plan"] == {"D"}
    assert found["more"] == found["loads"] == {"D"}
    assert found["on-exit"] == {"C", "D"}
    assert not [each for each in export.warnings if "no task is said" in each]


def test_every_pod_has_what_reaches_the_catalog(dag_file: Path) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS")
    for catalog, expected in (("s3://bucket/c", {names[0]}), ("gs://bucket/c", {names[1]})):
        found = pods(exported(dag_file, secrets=declared(*names), catalog=catalog))
        assert found["plain"] == found["each-plan"] == found["on-exit"] == expected


def test_a_secret_that_is_mounted_in_every_pod_is_told(dag_file: Path) -> None:
    volumes = {"key": {"secret": "gcp"}, "both": {"projected": {"sources": [{"secret": {"name": "s"}}]}}}
    mounts = {"/key": "key", "/both": "both"}
    export = exported(dag_file, volumes=volumes, volume_mounts=mounts)
    told = [each for each in export.warnings if "every pod has the Secret that is mounted" in each]
    assert [each.split(":")[1].strip() for each in told] == ["volume_mounts./key", "volume_mounts./both"]
    entry = {"name": "X", "valueFrom": {"secretKeyRef": SECRET}}
    export = exported(dag_file, sidecars={"proxy": {"image": "p", "env": [entry]}})
    assert any("sidecars: every pod has the Secret" in each for each in export.warnings)
    export = exported(dag_file, tasks={"plain": {"volumes": volumes, "volume_mounts": mounts}})
    assert not [each for each in export.warnings if "mounted there" in each]


def test_pods_that_talk_to_kubernetes_keep_their_token(tmp_path: Path) -> None:
    """Without tokens in the tasks' pods, those that end and clear away RayJobs still have one."""
    file = tmp_path / "job.py"
    cluster = {"image": "ray:1", "head": {"num_cpus": 1, "memory": 1 << 30}}
    config = {
        "ray_cluster": {"kuberay": cluster},
        "ray_tune": {"metric": "m", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}},
    }
    file.write_text(
        "from airflow.sdk import DAG\nfrom airflow_provider_raynode import ray_node\n"
        "def train(x): return {'m': x}\nwith DAG('job', schedule=None):\n"
        f"    ray_node('search', python_callable=train, ray_config={config!r})\n"
    )
    said = {"catalog": "s3://bucket/c", "service_account": "raynode", "executor_service_account": "raynode"}
    text = export_dag_file(file, settings={**said, "automount_service_account_token": False}, ray="rayjob").text
    spec = yaml.safe_load(text)["spec"]
    assert spec["automountServiceAccountToken"] is False
    with_token = {each["name"] for each in spec["templates"] if each.get("automountServiceAccountToken")}
    assert with_token == {"on-exit", *(each["name"] for each in spec["templates"] if "resource" in each)}
