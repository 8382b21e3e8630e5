"""Which inputs travel in the spec and which by reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.operators._inputs import INLINE_LIMIT, stage_inputs


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path))


@pytest.mark.parametrize(
    "value", [1, 1.5, "text", "ünïcode ✓", None, True, [1, [2]], {"a": {"b": None}}, "", [], {}], ids=repr
)
def test_small_json_travels_in_the_spec(store: Catalog, value: Any) -> None:
    assert stage_inputs({"x": value}, store) == {"x": value}


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: "a"}, float("nan"), float("inf"), {1, 2}, b"bytes", "x" * INLINE_LIMIT, list(range(10_000))],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_json_would_change_or_is_large_goes_by_reference(store: Catalog, value: Any) -> None:
    staged = stage_inputs({"x": value}, store)["x"]
    assert CatalogRef.is_ref(staged)
    loaded = store.load(staged)
    assert loaded == value or (loaded != loaded and value != value)
    assert type(loaded) is type(value)


def test_an_array_goes_by_reference(store: Catalog) -> None:
    array = np.arange(10.0)
    staged = stage_inputs({"x": array}, store)["x"]
    np.testing.assert_array_equal(store.load(staged), array)


def test_references_stay_visible_in_any_depth(store: Catalog) -> None:
    ref = store.put([1, 2], "part")
    staged = stage_inputs({"x": {"parts": [ref, ref], "big": "y" * INLINE_LIMIT}}, store)
    json.dumps(staged)
    assert staged["x"]["parts"] == [dict(ref), dict(ref)]
    assert CatalogRef.is_ref(staged["x"]["big"])
