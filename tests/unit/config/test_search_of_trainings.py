"""Both sections: what a search of trainings may say, and what each of its trials reserves."""

from __future__ import annotations

from typing import Any

import pytest
from config_cases import SPACE

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import ConfigError

SEARCH = {"search_space": SPACE, "metric": "score", "mode": "max"}


def config(tune: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **rest: Any) -> RayConfig:
    return RayConfig.load({"ray_tune": {**SEARCH, **(tune or {})}, "ray_train": train or {}, **rest})


@pytest.mark.parametrize(
    ("tune", "train", "message"),
    [
        (
            {},
            {"scaling": {"num_workers": [1, 3]}},
            r"ray_train.scaling.num_workers: \[1, 3\] cannot be beside ray_tune",
        ),
        ({"reuse_actors": True}, {}, "ray_tune.reuse_actors: true cannot be beside ray_train"),
        (
            {"scheduler": "resource_changing", "reuse_actors": False},
            {},
            "ResourceChangingScheduler changes what a trial",
        ),
        ({"checkpoint": {"num_to_keep": 2}}, {}, "ray_tune.checkpoint: beside ray_train"),
        ({}, {"stop": {"loss": 0.1}}, "ray_train.stop: beside ray_tune"),
        ({}, {"time_budget_s": 9}, "ray_train.time_budget_s: beside ray_tune"),
        ({}, {"metric": "loss", "mode": "max"}, "ray_train.metric: 'loss' contradicts ray_tune.metric: score"),
    ],
)
def test_what_cannot_be_said_of_a_trial_that_is_a_training(
    tune: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tune, train)


def test_a_trial_reserves_its_workers_and_its_own_share_as_one_unit() -> None:
    assert unit_of(config(train={"scaling": {"num_workers": 3}})).bundles == [{"CPU": 1.0}] * 3
    own = config({"resources": {"num_cpus": 0.5}}, {"scaling": {"num_workers": 2}}, default_resources={"num_cpus": 2})
    assert unit_of(own).bundles == [{"CPU": 0.5}, {"CPU": 2.0}, {"CPU": 2.0}]
    assert own.ray_tune is not None
    assert not own.ray_tune.reuse_actors
