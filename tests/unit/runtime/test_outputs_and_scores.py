"""Splitting of what a function gives, scores of trials, the trial's own rules; without Ray running."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_provider_raynode import context, get_checkpoint, json, metric, pickled, report
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY
from airflow_provider_raynode.runtime.observer import Scores
from airflow_provider_raynode.runtime.outputs import as_scalar, sanitised, split
from airflow_provider_raynode.runtime.progress import ProgressWriter, eta
from airflow_provider_raynode.runtime.trial import Trial
from airflow_provider_raynode.spec import NodeProgress, RunContext


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "scalar"),
    [(1, 1), (1.5, 1.5), (True, True), ("short", "short"), (np.float32(0.5), 0.5), (np.int64(3), 3),
     (np.bool_(1), True),
     (np.array(2.5), 2.5), (Level.HIGH, 3), (np.float64(1), 1.0), ("x" * 201, None), ([1], None), (None, None),
     (np.array([1]), None), ({}, None), (1j, None)],
    ids=repr,
)  # fmt: skip
def test_scalars_become_plain(value: Any, scalar: Any) -> None:
    found = as_scalar(value)
    assert found == scalar
    assert type(found) is type(scalar)


def test_split_by_value_and_by_declaration() -> None:
    values = {"a": 1, "b": [1], "c": object(), "d": "x" * 300, "e": None, "f": 2, "g": 3}
    metrics, outputs = split(values, [pickled("f"), json("g"), metric("a")])
    assert metrics == {"a": 1, "e": None}
    assert {name: kind for name, (_, kind) in outputs.items()} == {
        "b": None, "c": None, "d": None, "f": "pickled", "g": "json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "word"),
    [({1: 2}, "are text"), ({"m": [1]}, "declared as metric"), ({"m": "text"}, "declared as metric")],
)
def test_what_cannot_be_split_is_told(values: dict[Any, Any], word: str) -> None:
    with pytest.raises(RayNodeError, match=word):
        split(values, [metric("m")])


def test_sanitised_is_strict_json() -> None:
    value = {1: float("nan"), "b": [np.float32(0.5), math.inf, {"c": {1}}], "d": (np.int64(1), None)}
    assert sanitised(value) == {"1": None, "b": [0.5, None, {"c": "{1}"}], "d": [1, None]}


@pytest.mark.parametrize(
    ("scope", "mode", "best"),
    [("last", "max", "c"), ("last", "min", "b"), ("all", "max", "b"), ("all", "min", "c"),
     ("avg", "max", "b"), ("avg", "min", "c"), ("last-5-avg", "max", "b"), ("last-10-avg", "min", "c")],
)  # fmt: skip
def test_scores(scope: str, mode: str, best: str) -> None:
    scores = Scores("m", mode, scope)
    for trial_id, values in {"b": [9, 5, 1], "c": [0, 0, 3], "nan": [math.nan, math.inf]}.items():
        for step, value in enumerate(values):
            scores.add(trial_id, {"m": value, "step": step})
    assert scores.best() == best
    assert scores.score("nan") is None


def test_equal_scores_take_the_first_and_nothing_gives_nothing() -> None:
    scores = Scores("m", "max", "last")
    assert scores.best() is None
    for trial_id in ("first", "second"):
        scores.add(trial_id, {"m": 1})
    assert scores.best() == "first"
    scores.add("third", {"other": 1})
    assert scores.score("third") is None


def test_the_average_forgets_what_is_old() -> None:
    scores = Scores("m", "max", "last-5-avg")
    for value in [100, 1, 2, 3, 4, 5]:
        scores.add("t", {"m": value})
    assert scores.score("t") == 3


def make_trial(tmp_path: Path, returns: tuple[Return, ...] = ()) -> tuple[Trial, list[Any]]:
    sent: list[Any] = []
    store = Catalog(str(tmp_path))
    trial = Trial(
        trial_id="t",
        run=RunContext(dag_id="d", run_id="r", node_id="n"),
        attempt=1,
        catalog=store,
        store=store,
        returns=returns,
        metric="score",
        send=lambda metrics, checkpoint: sent.append((metrics, checkpoint)),
    )
    return trial, sent


def test_a_trial_reports_metrics_and_carries_references(tmp_path: Path) -> None:
    trial, sent = make_trial(tmp_path, (pickled("model"),))
    trial.report({"score": 1}, checkpoint="c")
    trial.finish({"model": [1]})
    assert sent[0] == ({"score": 1}, "c")
    assert sent[1][0]["score"] == 1, "the last metrics stand beside outputs that are returned alone"
    assert "model.pkl" in sent[1][0][OUTPUTS_KEY]


@pytest.mark.parametrize(
    ("returned", "message"),
    [(None, "returned nothing"), ({"scroe": 1}, "did you mean 'scroe'"), ({"score": None}, "must be a number"),
     ("text", "must be a number"), ({}, "no metrics")],
)  # fmt: skip
def test_a_trial_without_its_metric_is_told(tmp_path: Path, returned: Any, message: str) -> None:
    with pytest.raises(RayNodeError, match=message):
        make_trial(tmp_path)[0].finish(returned)


def test_outside_a_trial(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    report({"score": 1})
    assert "{'score': 1}" in caplog.text
    assert get_checkpoint() is None
    with pytest.raises(RayNodeError, match="only while a Ray node runs"):
        context()


@pytest.mark.parametrize(
    ("elapsed", "done", "total", "expected"), [(10, 5, 10, 10), (10, 0, 10, None), (10, 5, None, None), (10, 12, 10, 0)]
)
def test_eta(elapsed: float, done: int, total: int | None, expected: float | None) -> None:
    assert eta(elapsed, done, total) == expected


class _Failing(Catalog):
    def write_bytes(self, uri: str, data: bytes) -> None:
        raise CatalogError("the storage is full")


class _Slow(Catalog):
    def write_bytes(self, uri: str, data: bytes) -> None:
        time.sleep(1)
        super().write_bytes(uri, data)


@pytest.mark.parametrize("kind", [_Failing, _Slow])
def test_a_bad_catalog_never_holds_the_search_up(
    tmp_path: Path, kind: Callable[..., Catalog], caplog: pytest.LogCaptureFixture
) -> None:
    store = kind(str(tmp_path))
    writer = ProgressWriter(store, f"{store.uri}/progress.json", interval_s=0.01)
    counted = threading.Event()
    state = {"phase": "running", "terminated": 0, "total": 100}

    def snapshot() -> dict[str, Any]:
        counted.set()
        return dict(state)

    writer.start(snapshot)
    start = time.perf_counter()
    assert counted.wait(5)
    for number in range(100):
        state["terminated"] = number
    assert time.perf_counter() - start < 1
    writer.stop(phase="done")
    if kind is _Slow:
        assert NodeProgress.from_bytes(store.read_bytes(f"{store.uri}/progress.json")).phase == "done"
    else:
        assert caplog.text.count("cannot be written") == 1, "said once, not each second"
