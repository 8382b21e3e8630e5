"""The section `ray_map`: its keys, what is refused and in which words, and what a config runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig, RayMap
from airflow_provider_raynode.exceptions import ConfigError


def test_defaults() -> None:
    section = RayConfig.load({"ray_map": {"over": "items"}}).ray_map
    assert isinstance(section, RayMap)
    assert section.model_dump(exclude={"resources"}) == {
        "over": "items", "batch_size": None, "max_concurrent": None, "on_error": "fail", "item_timeout_s": None,
        "max_retries": 1,
    }  # fmt: skip


def test_resources_of_the_section_count_before_the_default() -> None:
    config = RayConfig.load(
        {
            "ray_map": {"over": "items", "resources": {"num_cpus": 0.5}},
            "default_resources": {"num_cpus": 2, "memory": 9},
        }
    )
    assert config.call_resources.bundle() == {"CPU": 0.5, "memory": 9}
    assert RayConfig.load({"default_resources": {"num_cpus": 2}}).call_resources.bundle() == {"CPU": 2}
    with pytest.raises(ConfigError, match=r"ray_map\.resources\.resources\.disk: is nowhere"):
        RayConfig.load(
            {"ray_cluster": {"address": "local"}, "ray_map": {"over": "x", "resources": {"resources": {"disk": 1}}}}
        )


@pytest.mark.parametrize(
    ("config", "work"),
    [
        ({}, "function"),
        ({"default_resources": {"num_cpus": 2}, "catalog": {"uri": "/tmp/x"}}, "function"),
        ({"ray_map": {"over": "items"}}, "map"),
        ({"ray_map": {"over": "items", "batch_size": "100", "max_concurrent": 4.0, "on_error": "keep"}}, "map"),
    ],
)
def test_what_a_config_runs(config: dict[str, Any], work: str) -> None:
    assert RayConfig.load(config).work == work


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "ray_map.over: is missing"),
        ({"over": ""}, "ray_map.over: is empty"),
        ({"over": ["items"]}, "ray_map.over: ['items'] is not text"),
        ({"over": "items", "on_eror": "keep"}, "ray_map.on_eror: unknown key, did you mean 'on_error'?"),
        ({"over": "items", "on_error": "skip"}, "allowed: fail, keep"),
        ({"over": "items", "batch_size": 0}, "ray_map.batch_size: 0 is below 1"),
        ({"over": "items", "batch_size": True}, "ray_map.batch_size: True is a boolean"),
        ({"over": "items", "max_concurrent": -1}, "ray_map.max_concurrent: -1 is below 1"),
        ({"over": "items", "item_timeout_s": 0}, "ray_map.item_timeout_s: 0 is not above 0"),
        ({"over": "items", "max_retries": -1}, "ray_map.max_retries: -1 is below 0"),
        ("items", "ray_map: 'items' is not a mapping"),
    ],
)
def test_what_is_refused(section: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RayConfig.load({"ray_map": section})
    assert message in str(error.value)


@pytest.mark.parametrize("other", ["ray_tune", "ray_train"])
def test_a_map_stands_alone(other: str) -> None:
    sections: dict[str, Any] = {
        "ray_tune": {"metric": "m", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}},
        "ray_train": {},
    }
    with pytest.raises(ConfigError, match=f"ray_map: cannot be beside {other}"):
        RayConfig.load({"ray_map": {"over": "items"}, other: sections[other]})


def test_a_section_with_nothing_below_it_is_no_plain_function(tmp_path: Path) -> None:
    file = tmp_path / "ray.yaml"
    file.write_text("ray_map:\n")
    with pytest.raises(ConfigError, match=r"ray_map\.over: is missing"):
        RayConfig.from_file(file)


def test_a_config_survives_its_own_dump() -> None:
    config = RayConfig.load({"ray_map": {"over": "items", "batch_size": 3}})
    assert RayConfig.model_validate(config.model_dump(mode="json")) == config
    plain = RayConfig.load({})
    assert RayConfig.model_validate(plain.model_dump(mode="json")).work == "function"
