"""First points: proposed first, as given, by every search algorithm, whatever the values are."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.searchers import SEARCHERS, Searcher

pytest.importorskip("ray.tune")

INNER = {"type": "choice", "choices": ["a", {"b": {"type": "uniform", "low": 0, "high": 1}}]}
SPACE: dict[str, Any] = {
    "lr": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
    "batch": {"type": "qrandint", "low": 10, "high": 200, "q": 50},
    "tenths": {"type": "quniform", "low": 0, "high": 1, "q": 0.1},
    "noise": {"type": "randn", "mean": 0, "sd": 1},
    "layers": {"type": "choice", "choices": [[300], [200, 100], {"auto": True}]},
    "flag": {"type": "choice", "choices": [1, True, 1.0, None]},
    "model": {"depth": {"type": "randint", "low": 1, "high": 9}, "act": "relu"},
    "one": {"type": "randint", "low": 5, "high": 6},
    "optimizer": {
        "type": "choice",
        "choices": [
            {"name": "sgd", "momentum": {"type": "uniform", "low": 0, "high": 1}},
            {"name": "adam", "inner": INNER},
        ],
    },
}  # fmt: skip
SGD: dict[str, Any] = {
    "lr": 0.012345678901234, "batch": 150, "tenths": 0.3, "noise": 12.5, "layers": [200, 100], "flag": True,
    "model": {"depth": 8}, "optimizer": {"name": "sgd", "momentum": 0.123456789012345},
}  # fmt: skip
ADAM: dict[str, Any] = {
    "lr": 1e-5, "batch": 200, "tenths": 1, "noise": -1e-9, "layers": {"auto": True}, "flag": 1.0,
    "model/depth": 1, "optimizer": {"name": "adam", "inner": {"b": 1.0}}, "one": 5,
}  # fmt: skip
EXPECTED: list[dict[str, Any]] = [
    {**SGD, "model": {"depth": 8, "act": "relu"}, "one": 5},
    {
        "lr": 1e-5, "batch": 200, "tenths": 1.0, "noise": -1e-9, "layers": {"auto": True}, "flag": 1.0, "one": 5,
        "model": {"depth": 1, "act": "relu"}, "optimizer": {"name": "adam", "inner": {"b": 1.0}},
    },
]  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {"NevergradSearch": {"optimizer": "OnePlusOne"}, "ZOOptSearch": {"budget": 50}}


def config_of(searcher: type[Searcher], points: Any = None, **section: Any) -> RayConfig:
    name = searcher.class_name()
    algorithm = {"type": name, **ARGUMENTS.get(name, {}), "points_to_evaluate": points}
    scheduler = {"type": "HyperBandForBOHB"} if name == "TuneBOHB" else None
    return RayConfig.load(
        {
            "ray_cluster": {"address": "auto"},
            "ray_tune": {
                "metric": "score", "mode": "min", "seed": 3, "num_samples": 8, "search_space": SPACE,
                "search_algorithm": algorithm, "scheduler": scheduler, **section,
            },
        }
    )  # fmt: skip


def generator_of(config: RayConfig, count: int) -> Any:
    """The searcher as Tune drives it, with an experiment of `count` trials."""
    from ray.tune.experiment import Experiment
    from ray.tune.search import Searcher, SearchGenerator

    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space
    from airflow_provider_raynode.runtime.steady import SteadySearcher

    algorithm: Any = build_searcher(config)
    space = build_search_space(config)
    if isinstance(algorithm, Searcher):
        algorithm = SearchGenerator(SteadySearcher(algorithm))
        assert algorithm.set_search_properties("score", "min", space)
    experiment = Experiment("e", lambda config: None, config=space, num_samples=count, storage_path="/tmp")
    algorithm.add_configurations(experiment)
    return algorithm


def next_configs(algorithm: Any, count: int) -> list[dict[str, Any]]:
    """The next trials' configs; each trial ends before the next is asked for."""
    configs = []
    for _ in range(count):
        # ZOOpt says once that it waits, before it goes on.
        trial = algorithm.next_trial() or algorithm.next_trial()
        if trial is None:
            break
        configs.append(trial.config)
        result = {"score": len(configs), "training_iteration": 1, "hyperband_info": {"budget": 1}}
        algorithm.on_trial_result(trial.trial_id, result)
        algorithm.on_trial_complete(trial.trial_id, result)
    return configs


def require(searcher: type[Searcher]) -> None:
    missing = [module for module in searcher.libraries if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_first_points_come_first_to_the_last_digit(searcher: type[Searcher]) -> None:
    require(searcher)
    configs = next_configs(generator_of(config_of(searcher, [SGD, ADAM]), 5), 5)
    assert [ordered(each) for each in configs[:2]] == [ordered(each) for each in EXPECTED]
    assert len(configs) == 5
    assert all(each not in EXPECTED for each in configs[2:])


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
@pytest.mark.parametrize("points", [[], None])
def test_no_points_are_none(searcher: type[Searcher], points: Any) -> None:
    require(searcher)
    assert len(next_configs(generator_of(config_of(searcher, points), 3), 3)) == 3


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_many_points_with_repetitions(searcher: type[Searcher]) -> None:
    require(searcher)
    points = [{**SGD, "model": {"depth": 1 + number % 3}} for number in range(6)]
    configs = next_configs(generator_of(config_of(searcher, points), 6), 6)
    expected = {1, 2, 3}
    assert {each["model"]["depth"] for each in configs[:3]} == expected


def test_random_search_draws_what_a_point_leaves_out() -> None:
    points = [{"lr": 0.01}, {"optimizer": {"name": "adam"}}, {"layers": [300], "model": {}}, {}]
    configs = next_configs(generator_of(config_of(SEARCHERS[0], points), 6), 6)
    assert len(configs) == 6
    assert configs[0]["lr"] == 0.01
    assert configs[1]["optimizer"]["name"] == "adam"
    assert configs[1]["optimizer"]["inner"] is not None
    assert configs[2]["layers"] == [300]
    assert all(1 <= each["model"]["depth"] <= 8 for each in configs)
    assert len({each["lr"] for each in configs}) == 6


def test_a_point_may_fix_a_grid() -> None:
    from airflow_provider_raynode.runtime.search import total_trials

    space = {"lr": SPACE["lr"], "grid": {"type": "grid_search", "values": [1, [2], {"x": 3}]}}
    points = [{"grid": [2]}, {"lr": 0.01}]
    config = config_of(SEARCHERS[0], points, search_space=space, num_samples=3)
    configs = next_configs(generator_of(config, 3), 99)
    assert total_trials(config) == len(configs) == 7
    assert [each["grid"] for each in configs] == [[2], *([1, [2], {"x": 3}] * 2)]
    assert [each["lr"] == 0.01 for each in configs] == [False, True, True, True, False, False, False]


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_saved_and_restored_search_goes_on_as_if_nothing_had_been(searcher: type[Searcher], tmp_path: Path) -> None:
    """Ray writes the searcher's state to files; a driver after a crash builds a new searcher and reads them."""
    require(searcher)
    from airflow_provider_raynode.runtime._ray_class import seed_globals

    config = config_of(searcher, [SGD, ADAM])
    whole = generator_of(config, 8)
    first = next_configs(whole, 1)
    whole.save_to_dir(str(tmp_path), "0")
    again = generator_of(config, 8)
    again.restore_from_dir(str(tmp_path))
    seed_globals(5)
    rest = next_configs(whole, 4)
    seed_globals(5)
    assert next_configs(again, 4) == rest
    assert ordered(first[0]) == ordered(EXPECTED[0])
    assert ordered(rest[0]) == ordered(EXPECTED[1])


@pytest.mark.parametrize("name", ["OptunaSearch", "HEBOSearch"])
def test_points_with_known_rewards_are_not_run(name: str) -> None:
    searcher = next(each for each in SEARCHERS if each.class_name() == name)
    require(searcher)
    config = config_of(searcher, [SGD, ADAM])
    assert config.ray_tune is not None
    section = copy.deepcopy(config.model_dump(mode="json"))
    section["ray_tune"]["search_algorithm"]["evaluated_rewards"] = [0.5, 0.25]
    configs = next_configs(generator_of(RayConfig.load(section), 3), 3)
    assert len(configs) == 3
    assert all(each not in EXPECTED for each in configs)


def ordered(value: Any) -> Any:
    """A config with sorted names, its values as text that shows their types."""
    return {name: ordered(value[name]) for name in sorted(value)} if isinstance(value, dict) else repr(value)
