"""Reading the file: what is no file, no YAML or no mapping, and the traps of YAML 1.1."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError

HEAD = "ray_tune:\n  metric: m\n  mode: max\n  search_space:\n"


def constants(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "f.yaml"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in text.splitlines()), encoding="utf-8")
    return RayConfig.from_file(path).search_space


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", 1000),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1e-4'", "1e-4"),
        ("=", "="),
        ("[1e-4, no, 2020-01-01]", [1e-4, "no", "2020-01-01"]),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    read = constants(tmp_path, f"x: {text}")["x"]
    assert read == value
    assert type(read) is type(value)


def test_names_that_yaml_1_1_would_make_booleans_are_names(tmp_path: Path) -> None:
    assert constants(tmp_path, "y: 1\non: 2\nno: 3") == {"y": 1, "on": 2, "no": 3}


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    space = constants(tmp_path, "a: &a {type: uniform, low: 0, high: 1}\nb: {<<: *a, high: 2}\nc: *a")
    assert space["b"] == {"type": "uniform", "low": 0, "high": 2}
    assert space["c"] == space["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; say what runs (ray_tune, ray_train, ray_map), or {} for the function alone"),
        ("# nothing\n---\n", "the file is empty"),
        ("- a\n", "the top level is a list, not a mapping (name: value)"),
        ("ray_tune\n", "the top level is a text, not a mapping (name: value)"),
        ("5\n", "the top level is of type int, not a mapping"),
        ("a: [1\nb: 2\n", ":2:2: not valid YAML: while parsing a flow sequence: expected ',' or ']'"),
        ("ray_tune:\n\tmetric: a\n", ":2:1: not valid YAML: while scanning for the next token"),
        ("a: 1\nb: 2\na: 3\n", ":3:1: not valid YAML: the key 'a' is there twice, first on line 1"),
        ("x:\n  a: {b: 1, b: 2}\n", ":2:13: not valid YAML: the key 'b' is there twice, first on line 2"),
        ("? [a]\n: 1\n", ":1:3: not valid YAML: a key must be plain text"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "not valid YAML: expected a single document"),
        ("a: &a [*a]\n", "is nested deeper than 64 levels (an alias that contains itself?)"),
        ("5: a\n", "5: unknown key"),
        ("ray_tune: {metric: a, mode: no, search_space: {x: 1}}", "ray_tune.mode: 'no' is not allowed"),
        ("ray_tune: {metric: a, mode: max, search_space: {x: .nan}}", "ray_tune.search_space.x: nan is not a finite"),
    ],
)
def test_what_is_no_config_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        RayConfig.from_file(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_missing_file_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/no.yaml: the file does not exist (looked from")):
        RayConfig.from_file(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="is a folder; a YAML file is needed"):
        RayConfig.from_file(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"ray_tune: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        RayConfig.from_file(tmp_path / "b.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        RayConfig.from_file(path)
