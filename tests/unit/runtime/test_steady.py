"""Every search algorithm goes on after trials that failed: proposals and ends in Tune's own order, without a Ray."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ray.tune.search import ConcurrencyLimiter, Searcher

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.runtime.searcher import build_searcher
from airflow_provider_raynode.runtime.space import build_search_space
from airflow_provider_raynode.runtime.steady import SteadySearcher

ALGORITHMS: list[dict[str, Any]] = [
    {"type": "bayesopt", "random_search_steps": 3},
    {"type": "zoopt", "budget": 30},
    {"type": "optuna"},
    {"type": "hyperopt", "n_initial_points": 3},
    {"type": "nevergrad", "optimizer": "OnePlusOne"},
    {"type": "nevergrad", "optimizer": "NelderMead"},
    {"type": "nevergrad", "optimizer": "TwoPointsDE"},
    {"type": "bohb"},
]
TRIALS = 12


def steady(algorithm: dict[str, Any], at_a_time: int | None) -> Any:
    config = RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "max",
                "seed": 1,
                "num_samples": TRIALS,
                "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}},
                "search_algorithm": algorithm,
                **({"scheduler": {"type": "HyperBandForBOHB"}} if algorithm["type"] == "bohb" else {}),
            }
        }
    )
    built = build_searcher(config)
    assert isinstance(built, Searcher)
    searcher: Any = SteadySearcher(built)
    if at_a_time is not None:
        searcher = ConcurrencyLimiter(searcher, max_concurrent=at_a_time)
    assert searcher.set_search_properties("score", "max", build_search_space(config))
    return searcher


def run(searcher: Any, ends: Any, width: int = 3) -> int:
    """Propose and end trials as Tune does, at most `width` at a time; return how many there were."""
    running: list[tuple[str, float]] = []
    begun = ended = idle = 0
    while ended < TRIALS and idle < 50:
        idle += 1
        if len(running) < width and begun < TRIALS:
            proposed = searcher.suggest(f"t{begun}")
            assert proposed != Searcher.FINISHED
            if proposed is not None:
                running.append((f"t{begun}", proposed["x"]))
                begun += 1
                idle = 0
                continue
        if running:
            trial, x = running.pop(0)
            result = ends(ended, x)
            if result is not None:
                result = {"score": result, "training_iteration": 1, "hyperband_info": {"budget": 1}}
                searcher.on_trial_result(trial, result)
            searcher.on_trial_complete(trial, result=result, error=result is None)
            ended += 1
            idle = 0
    return ended


def parabola(x: float) -> float:
    return -((x - 0.37) ** 2)


@pytest.mark.parametrize("at_a_time", [None, 1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: f"{each['type']}-{each.get('optimizer', '')}")
@pytest.mark.parametrize(
    "ends",
    [
        lambda number, x: None if number in (0, 2, 5) else parabola(x),
        lambda number, x: None if number < 8 else parabola(x),
        lambda number, x: None,
        lambda number, x: math.nan if number < 4 else parabola(x),
        lambda number, x: math.inf if number % 3 == 0 else parabola(x),
    ],
    ids=["some fail", "the first fail", "all fail", "nan", "infinite"],
)
@pytest.mark.filterwarnings("ignore")
def test_no_algorithm_waits_for_a_trial_that_failed(
    algorithm: dict[str, Any], at_a_time: int | None, ends: Any
) -> None:
    assert run(steady(algorithm, at_a_time), ends) == TRIALS


def test_trials_that_it_never_proposed_are_none_of_its_business() -> None:
    for algorithm in ALGORITHMS:
        searcher = steady(algorithm, None)
        searcher.on_trial_result("foreign", {"score": 1.0, "training_iteration": 1})
        searcher.on_trial_complete("foreign", result={"score": 1.0})
        searcher.on_trial_complete("foreign", error=True)
        assert searcher.suggest("own") is not None


def test_what_is_running_is_known_to_a_later_attempt() -> None:
    searcher = steady({"type": "optuna"}, None)
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_complete("a", result={"score": 1.0})
    again = steady({"type": "optuna"}, None)
    again.set_state(searcher.get_state())
    assert again.open_trials == {"b"}
