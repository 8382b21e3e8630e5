"""The trials table keeps the types of what was tried and reported."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.tables import flat, frame, metric_column


def read_back(tmp_path: Path, values: list[Any]) -> list[Any]:
    """The column of these values, as whoever loads the table from the catalog sees it."""
    import pandas as pd

    catalog = Catalog(str(tmp_path)).at(str(tmp_path))
    table = catalog.load(catalog.put(frame([flat({"x": value}) for value in values]), "trials", kind="parquet"))
    found = [value.tolist() if hasattr(value, "tolist") else value for value in table["x"]]
    return [None if not isinstance(value, list) and pd.isna(value) else value for value in found]


@pytest.mark.parametrize(
    "values",
    [
        [4, None, 8],
        [1, 2],
        [2**62, None],
        [True, None, False],
        [True, False],
        ["a", None, "ü"],
        [0.5, 1.5],
        [[64, 32], [16], None],
        [["relu", "tanh"], []],
        [[0.5, 1.0], [2.0]],
        [None, None],
    ],
    ids=str,
)
def test_types_are_kept(tmp_path: Path, values: list[Any]) -> None:
    found = read_back(tmp_path, values)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 0.5], [1.0, 0.5]),
        ([1, "two", [3], None, True], ["1", '"two"', "[3]", None, "true"]),
        ([True, 2], ["true", "2"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([[1], ["a"]], ["[1]", '["a"]']),
        ([[[1]], [[2]]], ["[[1]]", "[[2]]"]),
        (["\udcff", "b"], ["\\udcff", "b"]),
        ([float("inf"), float("nan"), None], [math.inf, None, None]),
        ([{}, {}], ["{}", "{}"]),
    ],
    ids=lambda value: str(value).encode("ascii", "backslashreplace").decode(),
)
def test_what_no_column_holds_is_json_text(tmp_path: Path, values: list[Any], found: list[Any]) -> None:
    assert read_back(tmp_path, values) == found


def test_a_metric_keeps_clear_of_the_tables_own_columns() -> None:
    assert [metric_column(name) for name in ("score", "error", "status", "trial_id", "config/lr", "metrics/error")] == [
        "score",
        "metrics/error",
        "metrics/status",
        "metrics/trial_id",
        "metrics/config/lr",
        "metrics/metrics/error",
    ]


def test_a_table_of_ten_thousand_trials(tmp_path: Path) -> None:
    rows = [
        flat({"x": number, "layers": [number % 7], "note": None if number % 2 else "odd"}) for number in range(10000)
    ]
    table = frame(rows)
    assert table["x"].sum() == sum(range(10000))
    catalog = Catalog(str(tmp_path)).at(str(tmp_path))
    assert len(catalog.load(catalog.put(table, "trials", kind="parquet"))) == 10000


def test_values_of_numpy_become_plain() -> None:
    import numpy as np

    assert json.dumps(flat({"a": np.float64(0.5), "b": {"c": np.int64(3)}, "d": (1, np.bool_(True))})) == json.dumps(
        {"a": 0.5, "b/c": 3, "d": [1, True]}
    )
