"""What the kind `json` makes of values that JSON does not have."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.StrEnum):
    RED = "red"


class Plain(enum.Enum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int = 1


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"auc": np.float32(0.5), "c": np.array([1, 2]), "n": np.int64(3)}, {"auc": 0.5, "c": [1, 2], "n": 3}),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (np.zeros((0, 2)), []),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a", None], dtype=object), ["a", None]),
        ((1, (2, [np.float64(3)])), [1, [2, [3.0]]]),
        (Pair(1, 2), [1, 2]),
        ([Level.HIGH, Colour.RED, np.str_("text")], [3, "red", "text"]),
        ({1: "a", None: "b", np.int64(7): "d", 2.5: "e"}, {"1": "a", "null": "b", "7": "d", "2.5": "e"}),
        ({True: 1}, {"true": 1}),
        ({"a": "d\udce9"}, {"a": "d\udce9"}),
        (2**80, 2**80),
        (collections.OrderedDict(a=1), {"a": 1}),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_what_has_a_plain_form_is_kept_in_it(tmp_path: Path, value: Any, kept: Any) -> None:
    store = Catalog(str(tmp_path))
    found = store.load(store.put(value, "report", kind="json"))
    assert found == kept
    assert str(found) == str(kept), "of the same types"


def test_tensors_are_kept_as_arrays_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    store = Catalog(str(tmp_path))
    value = {"loss": torch.tensor(0.5), "w": torch.ones(2, requires_grad=True)}
    assert store.load(store.put(value, "report", kind="json")) == {"loss": 0.5, "w": [1.0, 1.0]}


def _itself() -> list[Any]:
    value: list[Any] = [1]
    value.append({"in": value})
    return value


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"auc": [1, 2, 3, {4}]}, r"report\.auc\[3\] is a set"),
        ({"a": {"b": np.array([1, Point()], dtype=object)}}, r"report\.a\.b\[1\] is a .*Point"),
        (np.datetime64("2024-01-01"), r"^report is a numpy\.datetime64"),
        ({"when": datetime.date(2024, 1, 1)}, r"report\.when is a datetime\.date.*isoformat\(\)"),
        ({"price": decimal.Decimal("1.10")}, r"report\.price is a decimal\.Decimal"),
        ([Plain.ONE], r"report\[0\] is a .*Plain.*value"),
        (pd.Series([1]), r"report is a pandas.*Series.*to_dict\(\)"),
        (pd.DataFrame({"a": [1]}), r"report is a pandas.*DataFrame"),
        ([1j], r"report\[0\] is a complex"),
        (b"bytes", r"report is a bytes"),
        ({(1, 2): 3}, r"report has the key \(1, 2\), a tuple"),
        ({1: 2, "1": 3}, r"report has the key '1' twice"),
        (_itself(), r"report\[1\]\.in holds itself"),
        (_deep(), r"nested too deep"),
    ],
    ids=range(14),
)
def test_what_has_none_is_refused_with_its_path(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Catalog(str(tmp_path)).put(value, "report", kind="json")


def test_nan_becomes_null_as_a_metric_does_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = Catalog(str(tmp_path))
    value = {"auc": [0.5, float("nan"), np.float32("inf")]}
    assert store.load(store.put(value, "report", kind="json")) == {"auc": [0.5, None, None]}
    assert ".auc[1], .auc[2]" in caplog.text
