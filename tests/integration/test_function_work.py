"""A plain function on a real Ray: what it returns, what it may use, how it fails."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from driven import Ran
from plain_work import Node

from airflow_provider_raynode import catalog, context, get_checkpoint, pickled, report
from airflow_provider_raynode import json as json_return

pytestmark = pytest.mark.ray

Called = Callable[..., Ran]


@pytest.fixture
def called(connected: None, tmp_path: Path) -> Called:
    """Run a function alone."""

    def ran(function: Any, op_kwargs: dict[str, Any] | None = None, **options: Any) -> Ran:
        options.setdefault("resources", {"num_cpus": 0.5})
        return Node(tmp_path, function, {}, op_kwargs, **options).run()

    return ran


def test_a_dict_is_metrics_and_outputs(called: Called) -> None:
    def train(rows: Any, name: str, config: str = "mine") -> dict[str, Any]:
        print("reading", len(rows))
        assert context().run_id.startswith("run_")
        assert get_checkpoint() is None
        catalog.put([1], "side")
        total = np.float64(rows["x"].sum())
        return {"total": total, "name": name, "config": config, "table": rows, "model": {"w": (1, 2)}, "none": None}

    ran = called(train, {"rows": pd.DataFrame({"x": [1, 2, 3]}), "name": "ü"}, returns=[pickled("model")])
    assert ran.code == 0, ran.result.failure
    assert ran.result.metrics == {"total": 6.0, "name": "ü", "config": "mine", "none": None}
    assert ran.result.value is None
    assert {name: ref["kind"] for name, ref in ran.result.outputs.items()} == {"table": "parquet", "model": "pickled"}
    assert ran.output("model") == {"w": (1, 2)}
    assert ran.result.steps is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, None),
        (None, None),
        ("text", None),
        ([1, {"a": None}], None),
        (np.int32(5), None),
        ("x" * 2000, "json"),
        ((1, 2), "pickled"),
        (math.nan, "pickled"),
        ({1: 2}, "pickled"),
        ("\udce9", "json"),
        (b"bytes", "pickled"),
    ],
    ids=str,
)
def test_a_value(called: Called, value: Any, kind: str | None) -> None:
    ran = called(lambda: value)
    assert ran.code == 0, ran.result.failure
    if kind is None:
        assert ran.result.value == value
        assert ran.result.outputs == {}
    else:
        assert ran.result.value is None
        assert ran.result.outputs["value"]["kind"] == kind
        found = ran.output("value")
        assert found == value or (found != found and value != value)
    assert ran.result.metrics == {}


def test_all_in_one_call(called: Called) -> None:
    """References in what is returned, declared kinds, many metrics."""

    def many() -> dict[str, Any]:
        kept = catalog.put([1, 2], "mine")
        return {**{f"metric_{number}": number / 7 for number in range(200)}, "kept": kept, "nan": math.nan}

    ran = called(many)
    assert ran.code == 0, ran.result.failure
    assert ran.output("kept") == [1, 2]
    assert ran.result.metrics is not None
    assert 10 < len(ran.result.metrics) < 200
    assert len(ran.output("metrics")) == 201
    assert any("NaN" in text for text in ran.result.warnings)


def test_reports_make_a_table(called: Called) -> None:
    def train() -> dict[str, Any]:
        for step in range(5):
            report({"loss": 1 / (step + 1)})
        return {"model": [1]}

    ran = called(train)
    assert ran.result.metrics == {"loss": 0.2}
    assert ran.result.steps is not None
    assert ran.node.load(ran.result.steps)["loss"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert ran.output("model") == [1]


def test_what_is_declared_has_to_be_returned(called: Called) -> None:
    assert "'model'" in called(lambda: {"other": 1}, returns=["model"]).failure.message
    told = called(lambda: [1], returns=["model"]).failure.message
    assert "returned a list, and the node declares 'model'" in told
    assert called(lambda: {"a": (1,)}, returns=[json_return("a")]).output("a") == [1]
    assert called(lambda: [1], returns=[pickled("value")]).result.outputs["value"]["kind"] == "pickled"


def test_values_for_a_task(called: Called) -> None:
    ran = called(lambda: {"a": 1, "b": "x" * 5000}, returned="values")
    assert ran.result.value == {"a": 1}
    assert ran.output("b") == "x" * 5000
    ran = called(lambda: {"a": 1}, returned="value")
    assert (ran.result.value, ran.result.metrics) == ({"a": 1}, {})
    assert "multiple outputs" in called(lambda: 5, returned="values").failure.message


def test_arguments_by_position(called: Called) -> None:
    def add(one: int, /, two: int, *rest: int, three: int = 3) -> list[int]:
        return [one, two, *rest, three]

    assert called(add, {"three": 9}, op_args=(1, 2, 5)).result.value == [1, 2, 5, 9]
    assert called(functools.partial(pow, 2), op_args=(3,)).result.value == 8
    assert "missing a required argument: 'two'" in called(add, op_args=(1,)).failure.message


def fail_with(how: str) -> None:
    if how == "raise":
        raise ValueError("no\ud800good")
    if how == "exit":
        raise SystemExit(3)
    if how == "_exit":
        os._exit(4)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("raise", "ValueError", "no\\ud800good"),
        ("exit", "SystemExit", "SystemExit(3)"),
        ("_exit", "ProcessExit", "os._exit(4)"),
        ("kill", "WorkerDied", "the function's process ended: it crashed in native code"),
    ],
)
def test_failures(called: Called, how: str, kind: str, message: str) -> None:
    failure = called(fail_with, {"how": how}).failure
    assert failure.type == kind
    assert message in failure.message
    if how in ("raise", "_exit"):
        assert "fail_with" in failure.traceback


def test_it_is_called_once(called: Called, tmp_path: Path) -> None:
    """A lost worker fails the node: Ray's own retry would call the function again, and nobody would see it."""

    def count(file: str) -> None:
        with Path(file).open("a") as stream:
            stream.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    called(count, {"file": str(tmp_path / "calls")})
    assert (tmp_path / "calls").read_text() == "x"


def test_what_is_no_value(called: Called) -> None:
    async def coroutine() -> int:
        return 1

    assert "async def" in called(lambda: coroutine()).failure.message
    assert "generator" in called(lambda: (each for each in [1])).failure.message
    assert "cannot be stored as pickled" in called(lambda: threading.Lock()).failure.message
    assert "checkpoint" in called(lambda: report({"a": 1}, checkpoint={"x": 1})).failure.message


def test_what_failed_after_reports_keeps_them(called: Called) -> None:
    def train() -> None:
        report({"loss": 1.5})
        raise RuntimeError("after")

    ran = called(train)
    assert ran.failure.message == "after"
    assert ran.result.metrics == {"loss": 1.5}
    assert ran.result.steps is not None
