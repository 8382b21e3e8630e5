"""When a training stops by itself: bounds in their direction, the number of reports, the time budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_raynode.config.train import RayTrain
from airflow_provider_raynode.runtime.training.stop import Stop


def stop_of(**section: Any) -> Stop:
    return Stop.of(RayTrain.model_validate(section))


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"loss": 0.5}, None),
        ({"loss": 0.1}, "loss = 0.1 <= 0.1 (stop) at report 3"),
        ({"loss": math.nan}, None),
        ({"loss": -math.inf}, "loss = -inf <= 0.1 (stop) at report 3"),
        ({"loss": "0.05"}, None),
        ({"loss": None}, None),
        ({}, None),
        ({"loss": 0.5, "accuracy": 0.91}, "accuracy = 0.91 >= 0.9 (stop) at report 3"),
        ({"loss": 0.5, "accuracy": True}, "accuracy = 1 >= 0.9 (stop) at report 3"),
    ],
)
def test_bounds(metrics: dict[str, Any], reason: str | None) -> None:
    stop = stop_of(metric="loss", mode="min", stop={"loss": 0.1, "accuracy": 0.9})
    ending = stop.reached(metrics, 3, 1.0)
    assert (ending and ending.reason) == reason
    assert ending is None or ending.kind == "stop_rule"


def test_numpy_scalars() -> None:
    numpy = pytest.importorskip("numpy")
    stop = stop_of(stop={"accuracy": 0.9})
    assert stop.reached({"accuracy": numpy.float32(0.95)}, 1, 0.0)
    assert stop.reached({"accuracy": numpy.int64(1)}, 1, 0.0)
    assert not stop.reached({"accuracy": numpy.float32("nan")}, 1, 0.0)


def test_the_number_of_reports_and_the_budget() -> None:
    stop = stop_of(stop={"training_iteration": 4}, time_budget_s=60)
    assert stop.reached({}, 3, 59.0) is None
    assert stop.reached({}, 4, 59.0) == ("stop_rule", "training_iteration = 4 >= 4 (stop) at report 4")
    assert stop.reached({}, 3, 60.5) == ("time_budget", "time_budget_s (60 s) was spent at report 3")
    assert replace(stop, spent_s=40).reached({}, 3, 20.5) == (
        "time_budget",
        "time_budget_s (60 s) was spent at report 3",
    )


def test_nothing_to_stop_at() -> None:
    assert not stop_of()
    assert stop_of(time_budget_s=5)
    assert stop_of(stop={"loss": 1})
