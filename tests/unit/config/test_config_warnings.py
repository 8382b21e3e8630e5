"""What a config says and most likely does not mean is told, and taken as it stands."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_cases import GOOD, UNIFORM, tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.command import check
from airflow_provider_raynode.exceptions import ConfigWarning


def space(**values: Any) -> dict[str, Any]:
    return tune(search_space={"lr": UNIFORM, **values})


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"bs": [16, 32]}, ["bs"]),
        ({"model": {"act": ["relu", "tanh"], "depth": 3}}, ["model.act"]),
        ({"a": [1, 2], "b": [None, True]}, ["a", "b"]),
        ({"bs": {"type": "constant", "value": [16, 32]}}, []),
        ({"bs": {"type": "choice", "choices": [16, 32]}}, []),
        ({"layers": [64, 64]}, []),  # no choice has a value twice
        ({"shape": [[1, 2], [3, 4]], "one": [5], "none": []}, []),
    ],
)
def test_constant_list_is_told(values: dict[str, Any], places: list[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = RayConfig.load(space(**values), source="a.yaml")
    texts = [str(each.message) for each in caught if issubclass(each.category, ConfigWarning)]
    assert [text.partition(": ")[2] for text in texts] == list(config.warnings)
    assert [text.split(": ")[:2] for text in texts] == [
        ["a.yaml", f"ray_tune.search_space.{place}"] for place in places
    ]
    assert all("{type: choice, choices: […]}" in text and "{type: constant" in text for text in texts)


@pytest.mark.parametrize("name", GOOD)
def test_good_configs_have_no_warnings(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        assert RayConfig.load(GOOD[name]).warnings == ()


def test_config_check_prints_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(space(bs=[16, 32])))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        assert check(file) == 0
    printed = capsys.readouterr()
    assert printed.err.count("ray_tune.search_space.bs: [16, 32] is a constant") == 1
    assert "warning: " in printed.err
    assert yaml.safe_load(printed.out)["ray_tune"]["search_space"]["bs"] == [16, 32]
