"""The YAML of the export: what is written is read back, with its comments in their places."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_raynode.argo.yaml_writer import Commented, write_yaml

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=30)
VALUES = st.recursive(
    SCALARS,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), each, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=5))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    assert yaml.safe_load(write_yaml(value)) == value


@pytest.mark.parametrize(
    "text", ["no", "On", "1e3", "0x10", "1:30", "2026-01-01", "~", "null", "a: b", "- x", "#c", ""]
)
def test_text_stays_text(text: str) -> None:
    assert yaml.safe_load(write_yaml({"key": text})) == {"key": text}


def test_comments_stand_above_what_they_are_about() -> None:
    value = {
        "top": Commented({"inner": 1}, "about top"),
        "items": [Commented({"name": "a", "template": "t"}, "about a"), {"name": "b"}],
    }
    assert write_yaml(value, header="first\nsecond") == (
        "# first\n# second\n# about top\ntop:\n  inner: 1\n"
        "items:\n  # about a\n  - name: a\n    template: t\n  - {name: b}\n"
    )


def test_text_of_several_lines_is_a_block() -> None:
    assert write_yaml({"manifest": "a: 1\nb: 2\n"}) == "manifest: |\n  a: 1\n  b: 2\n"


WORDS = st.lists(st.sampled_from(["a", "&&", "||", "!b", "#c", "- d", "'", "{{=", "x" * 130, "e: f", ""]), max_size=60)


@given(WORDS)
def test_long_text_is_folded_and_read_back(words: list[str]) -> None:
    text = " ".join(words)
    value = {"depends": text, "items": [{"template": "t", "when": text}, text]}
    written = write_yaml(value)
    assert yaml.safe_load(written) == value


def test_a_long_condition_is_broken_before_its_joints() -> None:
    text = " && ".join(f"(task-{number} || !task-{number})" for number in range(6))
    assert write_yaml({"depends": text}) == (
        "depends: >-\n"
        "  (task-0 || !task-0) && (task-1 || !task-1) && (task-2 || !task-2) && (task-3 || !task-3)\n"
        "  && (task-4 || !task-4) && (task-5 || !task-5)\n"
    )
