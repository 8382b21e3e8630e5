"""The example of gradient boosting: as it is, on the real Airflow with the embedded Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.airflow]


def test_two_workers_find_the_tumours(load_dag: Callable[..., Any], run_dag: Callable[..., Any]) -> None:
    pytest.importorskip("lightgbm")
    result = run_dag(load_dag(Path(__file__).resolve().parents[2] / "dags" / "gradient_boosting.py"))
    assert result.state == "success", result.states
    trained = result.xcom("train_on_two_workers.fan_in")
    assert trained["training"]["world_size"] == 2
    assert trained["training"]["reports"] >= 60
    assert trained["best_metrics"]["auc"] > 0.95
    assert set(trained["outputs"]) == {"model", "checkpoint"}
    examined = result.xcom("examine")
    assert examined["found"] + examined["missed"] == 53
    assert examined["found"] > 40
    assert examined["false_alarms"] < 15
