"""What `returns` may declare, checked when the DAG file is parsed."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_raynode import json, metric, pickled
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._resolve import as_returns, check_metric


def config(name: str = "score") -> RayConfig:
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    return RayConfig.load({"ray_tune": {"metric": name, "mode": "max", "search_space": space}}, source="f.yaml")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (pickled("score"), r"'score' is the metric .*pickled: write metric\('score'\)"),
        (json("score"), r"is declared as json.*leave it out"),
        ("training_iteration", "counted by Tune itself"),
        (metric("time_total_s"), "counted by Tune itself"),
    ],
)
def test_the_metric_is_no_output(declared: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_metric(config(), as_returns(["model", declared]))


def test_the_metric_may_be_named_as_one() -> None:
    check_metric(config(), as_returns(["score", pickled("config"), json("done")]))
    check_metric(config(), as_returns([metric("score"), pickled("other")]))


def test_it_is_an_import_error_of_the_dag_file() -> None:
    from airflow.sdk import DAG

    from airflow_provider_raynode import ray_node

    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    with (
        DAG("returns_against_the_metric", schedule=None),
        pytest.raises(ConfigError, match="is the metric of the search"),
    ):
        ray_node(
            "search",
            python_callable=lambda x: x,
            ray_config={"ray_tune": {"metric": "score", "mode": "max", "search_space": space}},
            returns=[pickled("score")],
        )


@pytest.mark.parametrize("name", ["training_iteration", "time_total_s"])
def test_the_metric_is_none_of_tunes_counters(name: str) -> None:
    with pytest.raises(ConfigError, match=r"ray_tune\.metric: .*counted by Tune itself"):
        config(name)
