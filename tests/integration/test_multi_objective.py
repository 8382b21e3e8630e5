"""Searches with several metrics, and searches that begin with an earlier one's trials, on a real Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driven import Ran

from airflow_provider_raynode import catalog, pickled

pytestmark = pytest.mark.ray

# Accuracy grows with x, and so does the cost; `waste` costs and gives nothing.
SPACE = {
    "x": {"type": "grid_search", "values": [1, 2, 3]},
    "waste": {"type": "grid_search", "values": [0, 1]},
}
BOTH = {"metric": ["accuracy", "cost"], "mode": ["max", "min"]}


def train(x: float, waste: float) -> dict[str, Any]:
    return {"accuracy": float(x), "cost": float(x * x + waste), "model": {"x": x, "waste": waste}}


def dominated(one: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    accuracy, cost = one
    return any(a >= accuracy and c <= cost and (a, c) != one for a, c in others)


def test_the_front_of_a_grid(run: Callable[..., Ran]) -> None:
    ran = run(train, {**BOTH, "search_space": SPACE}, returns=[pickled("model")])
    assert ran.code == 0, ran.result.failure
    assert ran.result.front is not None
    front = catalog.Catalog(ran.job.catalog_uri).load(ran.result.front)
    assert [each["config"] for each in front] == [{"x": 3, "waste": 0}, {"x": 2, "waste": 0}, {"x": 1, "waste": 0}]
    # The best trial is the best of the front by the first metric; every trial of the front has its own model.
    assert front[0]["trial_id"] == ran.best.trial_id
    node = ran.node
    assert [node.load(each["outputs"]["model"]) for each in front] == [each["config"] for each in front]
    kept = {uri.rpartition("/")[2] for uri in node.list(f"{ran.job.attempt_prefix}/outputs")}
    assert kept == {each["trial_id"] for each in front}
    assert len(ran.table) == 6


def test_optuna_weighs_several_metrics(run: Callable[..., Ran]) -> None:
    space = {"x": {"type": "uniform", "low": 1, "high": 3}, "waste": {"type": "choice", "choices": [0, 1]}}
    for sampler in ("nsga2", {"type": "tpe", "n_startup_trials": 3}):
        algorithm = {"type": "optuna", "sampler": sampler}
        ran = run(train, {**BOTH, "search_space": space, "num_samples": 8, "seed": 3, "search_algorithm": algorithm})
        assert ran.code == 0, ran.result.failure
        points = list(zip(ran.table["accuracy"], ran.table["cost"], strict=True))
        assert len(points) == 8
        expected = {point for point in points if not dominated(point, points)}
        front = catalog.Catalog(ran.job.catalog_uri).load(ran.result.front)
        assert {(each["metrics"]["accuracy"], each["metrics"]["cost"]) for each in front} == expected


def test_a_metric_that_is_missing_or_not_finite(run: Callable[..., Ran]) -> None:
    def forgets(x: float, waste: float) -> dict[str, Any]:
        return {"accuracy": x, "const": 3}

    failure = run(forgets, {**BOTH, "search_space": SPACE}).result.failure
    assert failure is not None
    assert "the search's metric 'cost' was not reported (did you mean 'const'?)" in failure.message

    def diverges(x: float, waste: float) -> dict[str, Any]:
        return {"accuracy": x, "cost": float("nan") if x == 3 else x}

    ran = run(diverges, {**BOTH, "search_space": SPACE})
    assert ran.code == 0
    front = catalog.Catalog(ran.job.catalog_uri).load(ran.result.front)
    assert {each["config"]["x"] for each in front} == {1, 2}
    assert len(front) == 4, "trials with equal values are all in the front"


def test_optuna_goes_on_after_a_metric_that_is_not_finite(run: Callable[..., Ran]) -> None:
    def diverges(x: float) -> dict[str, Any]:
        return {"accuracy": x, "cost": float("nan") if x > 0.5 else x}

    section = {**BOTH, "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}, "num_samples": 6, "seed": 1}
    ran = run(diverges, {**section, "search_algorithm": "optuna", "max_concurrent_trials": 1})
    assert ran.code == 0, ran.result.failure
    assert len(ran.table) == 6
    assert 0 < ran.table["cost"].isna().sum() < 6
    assert any("NaN or infinite" in warning for warning in ran.result.warnings)


def test_a_bound_on_each_metric_is_reached_in_its_direction(run: Callable[..., Ran]) -> None:
    from airflow_provider_raynode import report

    def steps(x: float, waste: float) -> None:
        for step in range(1, 6):
            report({"accuracy": step * x, "cost": 10.0 - step})

    ran = run(steps, {**BOTH, "search_space": SPACE, "stop": {"cost": 7}})
    assert ran.code == 0
    assert set(ran.table["training_iteration"]) == {3}


WIDE = {
    "rate": {"type": "loguniform", "low": 1e-4, "high": 1},
    "net": {
        "type": "choice",
        "choices": [{"kind": "linear"}, {"kind": "deep", "layers": {"type": "randint", "low": 1, "high": 9}}],
    },
    "sizes": {"type": "choice", "choices": [[8], [16, 16], None]},
    "flag": {"type": "choice", "choices": [True, 1, "1"]},
}


def fit(rate: float, net: dict[str, Any], sizes: Any, flag: Any) -> dict[str, Any]:
    return {"score": rate + net.get("layers", 0), "seen": repr((rate, net, sizes, flag))}


@pytest.mark.parametrize("algorithm", [None, "optuna", "hyperopt"])
def test_a_search_begins_with_an_earlier_one(run: Callable[..., Ran], algorithm: str | None) -> None:
    first = run(fit, {"search_space": WIDE, "num_samples": 6, "seed": 1})
    assert first.code == 0
    ranked = list(first.table.sort_values("score", ascending=False)["seen"])
    warm = {"trials": first.result.trials if algorithm == "hyperopt" else first.result.trials["uri"], "points": 2}
    section = {"search_space": WIDE, "num_samples": 4, "seed": 2, "warm_start": warm, "max_concurrent_trials": 1}
    second = run(fit, {**section, "search_algorithm": algorithm})
    assert second.code == 0, second.result.failure
    seen = list(second.table["seen"])
    assert len(seen) == 4
    if algorithm == "optuna":
        # It is told what they gave: none is run again.
        assert not set(seen) & set(ranked)
    else:
        assert seen[:2] == ranked[:2], "the values, their types and their order are those of the earlier trials"


def test_an_earlier_search_that_does_not_fit_is_refused(run: Callable[..., Ran]) -> None:
    first = run(lambda x: {"score": x}, {"search_space": {"x": {"type": "uniform", "low": 5, "high": 6}}})
    other = {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}
    for trials, message in (
        (first.result.trials, "none of the 10 trials that ended with a finite 'score' lies in ray_tune.search_space"),
        ({**first.result.trials, "sha256": "0" * 64}, "is not what its reference names"),
        (f"{first.job.attempt_prefix}/nothing.parquet", "does not exist"),
        (f"{first.job.attempt_prefix}/spec.json", "ray_tune.warm_start.trials"),
    ):
        failure = run(lambda x: {"score": x}, {**other, "warm_start": {"trials": trials}}).result.failure
        assert failure is not None
        assert message in failure.message, failure.message
    failure = run(lambda x: {"loss": x}, {**other, "metric": "loss", "warm_start": {"trials": first.result.trials}})
    assert "the table has no column 'loss'" in failure.result.failure.message
