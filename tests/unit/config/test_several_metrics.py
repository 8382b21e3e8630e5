"""Several metrics in a config: every way to say them, and what does not go with them."""

from __future__ import annotations

from typing import Any

import pytest
from config_cases import tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError


@pytest.mark.parametrize(
    ("section", "objectives"),
    [
        ({"metric": ["a", "b"], "mode": ["min", "max"]}, {"a": "min", "b": "max"}),
        ({"metric": ["a", "b", "c"], "mode": "min"}, {"a": "min", "b": "min", "c": "min"}),
        ({"metric": ["a"], "mode": ["max"]}, {"a": "max"}),
        ({"metric": "a", "mode": "max", "further_metrics": {"b": "min"}}, {"a": "max", "b": "min"}),
        (
            {
                "metric": None,
                "mode": None,
                "search_algorithm": {"type": "optuna", "metric": ["a", "b"], "mode": ["min", "max"]},
            },
            {"a": "min", "b": "max"},
        ),
        (
            {
                "metric": ["a", "b"],
                "mode": ["min", "max"],
                "search_algorithm": {"type": "optuna", "metric": ["a", "b"]},
            },
            {"a": "min", "b": "max"},
        ),
    ],
)
def test_every_way_to_say_several_metrics(section: dict[str, Any], objectives: dict[str, str]) -> None:
    config = RayConfig.load(tune(**section))
    assert config.ray_tune is not None
    assert config.ray_tune.objectives == objectives
    assert next(iter(config.ray_tune.objectives)) == config.ray_tune.metric
    assert RayConfig.load(config.model_dump(mode="json", exclude_unset=True)) == config


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"metric": ["a", "b"], "mode": ["min", "mx"]}, "ray_tune.mode[1]: 'mx' is not allowed: min or max"),
        ({"metric": ["a", "b"], "mode": None}, "ray_tune.mode: is missing: min or max"),
        ({"metric": ["a", "b"], "mode": ["min"]}, "ray_tune.mode: has 1 entries, metric has 2"),
        ({"metric": ["a", "a"]}, "ray_tune.metric: 'a' is there twice"),
        ({"metric": []}, "ray_tune.metric: [] is not a list of names"),
        ({"metric": ["a", 3]}, "ray_tune.metric: ['a', 3] is not a list of names"),
        ({"mode": ["min", "max"]}, "ray_tune.mode: ['min', 'max'] is a list, but metric is not"),
        (
            {"metric": "m", "search_algorithm": {"type": "optuna", "metric": ["a", "b"]}},
            "ray_tune.search_algorithm.metric: ['a', 'b'] contradicts 'm'",
        ),
        ({"metric": ["a", "b"], "further_metrics": {"c": "min"}}, "ray_tune.further_metrics: cannot be beside a list"),
        ({"metric": "a", "further_metrics": {"a": "min"}}, "ray_tune.further_metrics.a: is ray_tune.metric itself"),
        ({"metric": "a", "further_metrics": {"b": "up"}}, "ray_tune.further_metrics.b: 'up' is not allowed"),
        ({"metric": ["a", "b"], "scheduler": "asha"}, "ray_tune.scheduler.type: ASHAScheduler compares trials by one"),
        ({"metric": ["a", "b"], "scheduler": "MedianPruner"}, "ray_tune.scheduler.type: MedianPruner compares trials"),
        ({"metric": ["a", "b"], "search_algorithm": "hyperopt"}, "search_algorithm.type: HyperOptSearch learns from"),
        (
            {"metric": ["a", "b"], "search_algorithm": {"type": "optuna", "sampler": "cmaes"}},
            "ray_tune.search_algorithm.sampler.type: CmaEsSampler takes one metric",
        ),
        ({"metric": ["a", "b"], "scope": "all"}, "ray_tune.scope: all is for one metric"),
    ],
)
def test_what_does_not_fit_is_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RayConfig.load({"ray_cluster": {"address": "auto"}, **tune(**section)})
    assert message in str(caught.value)
