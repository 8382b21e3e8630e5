"""Settings of the config, the connection and the node that would do nothing where the node runs are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_raynode import ray_node
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.operators._resolve import check_attach_timeout, check_on_kill
from airflow_provider_raynode.operators._target import check_target


def config(address: str | None = None, **sections: Any) -> dict[str, Any]:
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    cluster = {} if address is None else {"ray_cluster": {"address": address}}
    return {**cluster, "ray_tune": {"metric": "score", "mode": "max", "search_space": space}, **sections}


def fit(x: float) -> dict[str, float]:
    return {"score": x}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"on_kill": "detach"}, "on_kill: 'detach' has no effect here: the embedded Ray ends with its task"),
        ({"attach_timeout_s": 60}, "attach_timeout_s: 60 has no effect here"),
    ],
)
def test_of_the_node_at_parse_time(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(json.dumps(config("local")))
    for given in (config("local"), str(path), RayConfig.load(config("local"))):
        with pytest.raises(ConfigError, match=message), DAG("d", schedule=None):
            ray_node("search", python_callable=fit, ray_config=given, **setting)
    with DAG("fine", schedule=None):
        ray_node("not_known", python_callable=fit, ray_config=config(), **setting)
        ray_node("cluster", python_callable=fit, ray_config=config("http://head:8265"), **setting)
        ray_node("defaults", python_callable=fit, ray_config=config("local"), attach_timeout_s=None)


def test_of_the_node_where_it_is_known_at_run_time_only() -> None:
    with pytest.raises(ConfigError, match="on_kill: 'detach' has no effect"):
        check_on_kill("detach", "local")
    for address in ("local", "rayjob"):
        with pytest.raises(ConfigError, match="attach_timeout_s: 60 has no effect"):
            check_attach_timeout(60, address, 300)
        check_attach_timeout(300, address, 300)
        check_attach_timeout(None, address, 300)
    check_attach_timeout(60, "http://head:8265", 300)
    check_on_kill("detach", "jobs_api")


def test_of_the_checkpoints() -> None:
    search = {**config()["ray_tune"], "checkpoint": {"num_to_keep": 1, "checkpoint_score_order": "min"}}
    with pytest.raises(ConfigError, match=r"ray_tune\.checkpoint\.checkpoint_score_order: has no effect without"):
        RayConfig.load({"ray_tune": search})


def test_of_the_resources() -> None:
    resources = {"resources": {"licence": 1, "accelerator_type:H100": 0.1, "TPU": 1}}
    with pytest.raises(ConfigError) as raised:
        RayConfig.load(config("local", default_resources=resources), source="x.yaml")
    assert str(raised.value).startswith("x.yaml: default_resources.resources.licence: is nowhere")
    assert len(str(raised.value).splitlines()) == 1
    RayConfig.load(config("http://head:8265", default_resources=resources))
    RayConfig.load(config(default_resources=resources))


@pytest.mark.parametrize(
    ("fields", "address", "message"),
    [
        ({"host": "head", "port": 8265, "extra": {"verify_tls": False}}, None, "extra verify_tls has no effect.*plain"),
        (
            {"host": "head", "extra": {"ca_file": __file__}},
            "http://head:8265",
            "extra ca_file has no effect.*plain HTTP",
        ),
        (
            {"extra": {"secret_headers": {"X-A": "b"}}},
            None,
            "extra secret_headers has no effect: the connection names no",
        ),
        (
            {"host": "local", "extra": {"verify_tls": "no"}},
            None,
            "extra verify_tls has no effect: the connection names",
        ),
    ],
)
def test_of_the_connection(monkeypatch: pytest.MonkeyPatch, fields: Any, address: str | None, message: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray", **fields}))
    loaded = RayConfig.load(config(address))
    with pytest.raises(ConfigError, match=f"^connection ray_default: {message}"):
        check_target(fit, loaded, RayHook(address=address), None)  # type: ignore[arg-type]  # no catalog is needed
