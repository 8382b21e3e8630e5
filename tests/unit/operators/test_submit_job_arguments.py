"""RaySubmitJobOperator when the DAG file is parsed, and what it asks Ray for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_raynode import RaySubmitJobOperator
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._runtime_env import packaged
from airflow_provider_raynode.launchers.jobs_api import reserves


def job(**options: Any) -> RaySubmitJobOperator:
    with DAG("d", schedule=None):
        return RaySubmitJobOperator(**{"task_id": "job", "entrypoint": "true", **options})


def test_what_is_reserved_in_rays_words() -> None:
    operator = job(
        entrypoint_num_cpus=0.5,
        entrypoint_num_gpus=2,
        entrypoint_memory=1000,
        entrypoint_resources={"disk": 1},
        entrypoint_label_selector={"zone": "a"},
    )
    assert reserves(operator._command(embedded=False)) == {
        "entrypoint_num_cpus": 0.5,
        "entrypoint_num_gpus": 2,
        "entrypoint_memory": 1000,
        "entrypoint_resources": {"disk": 1},
        "entrypoint_label_selector": {"zone": "a"},
    }
    assert reserves(job()._command(embedded=False)) == {}


def test_a_number_of_a_template_is_a_text() -> None:
    operator = job(entrypoint_num_cpus="{{ params.cpus }}")
    operator.entrypoint_num_cpus = "1.5"  # type: ignore[assignment]  # as Airflow renders it
    assert operator._command(embedded=False).num_cpus == 1.5


def test_secrets_need_our_driver_and_nothing_else_does() -> None:
    assert not job()._command(embedded=False).by_driver
    assert job(secrets=["conn:db as DB"])._command(embedded=False).by_driver
    assert job()._command(embedded=True).by_driver


def test_a_command_of_the_authors_ships_nothing_of_ours() -> None:
    assert packaged({"pip": ["polars"]}, with_driver=False) == ({"pip": ["polars"]}, [])
    assert packaged({}, with_driver=False) == ({}, [])
    assert packaged({"image_uri": "x"}, with_driver=False) == ({"image_uri": "x"}, [])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"entrypoint": "  "}, "entrypoint: expected a command"),
    "a list": ({"entrypoint": ["python", "x.py"]}, "entrypoint: expected a command"),
    "zero byte": ({"entrypoint": "a\0b"}, "zero byte"),
    "negative": ({"entrypoint_num_cpus": -1}, "entrypoint_num_cpus: -1 is not allowed"),
    "no number": ({"entrypoint_num_gpus": "many"}, "entrypoint_num_gpus: 'many'"),
    "NaN": ({"entrypoint_num_cpus": float("nan")}, "entrypoint_num_cpus"),
    "a truth": ({"entrypoint_memory": True}, "entrypoint_memory"),
    "half a byte": ({"entrypoint_memory": 0.5}, "whole number of bytes"),
    "one and a half GPUs": ({"entrypoint_num_gpus": 1.5}, "neither below 1 nor whole"),
    "a resource of Ray's": ({"entrypoint_resources": {"CPU": 1}}, "entrypoint_num_cpus"),
    "resources": ({"entrypoint_resources": [1]}, "expected a dict"),
    "labels here": ({"entrypoint_label_selector": {"a": "b"}, "address": "local"}, "has no effect here"),
    "metadata": ({"metadata": {"a": 1}}, r"metadata\.a: expected text"),
    "our metadata": ({"metadata": {"dag_id": "x"}}, "said of every job"),
    "secret without a variable": ({"secrets": ["conn:my-db"]}, "'conn:my-db as MY_DB'"),
    "limit": ({"startup_timeout_s": 0}, "startup_timeout_s"),
    "said twice": ({"address": "http://a:1", "ray_config": {"ray_cluster": {"address": "http://b:1"}}}, "as well"),
    "a search": ({"ray_config": {"default_resources": {"num_cpus": 1}}}, "default_resources has no effect"),
    "runtime_env": ({"runtime_env": {"workingdir": "x"}}, "working_dir"),
    "detach": ({"on_kill": "detach", "address": "local"}, "detach"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_when_the_file_is_parsed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        job(**options)
    assert str(raised.value).count("DAG 'd', task 'job'") == 1
    assert "test_submit_job_arguments.py" in str(raised.value)


def test_a_template_is_left_for_the_run() -> None:
    job(entrypoint="{{ params.command }}", runtime_env={"env_vars": {"A": "{{ ds }}"}}, entrypoint_num_gpus="{{ 1 }}")


def test_only_a_template_can_bring_a_secret() -> None:
    assert job(entrypoint="x {{ conn.db.password }}")._asks_for_secrets
    assert job(runtime_env={"env_vars": {"A": "{{ var.value.key }}"}})._asks_for_secrets
    assert job(metadata={"a": "{% if var.value.a %}b{% endif %}"})._asks_for_secrets
    assert not job(entrypoint="python /opt/airflow/conn.py {{ ds }}")._asks_for_secrets


def test_a_relative_path_is_beside_the_dag_file(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with DAG("d", schedule=None, template_searchpath=str(tmp_path)) as dag:
        operator = RaySubmitJobOperator(task_id="job", entrypoint="true", runtime_env={"working_dir": "jobs"})
    environment = operator._config(dag).ray_cluster.runtime_env
    assert environment is not None
    assert environment.working_dir == str(tmp_path / "jobs")
