"""Every search algorithm that installs, as the builders make it from a config, on a real Ray Tune."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.search_space import domains_of
from airflow_provider_raynode.config.searchers import SEARCHERS, Searcher

pytestmark = pytest.mark.ray

TRIALS = 6
# One domain of each kind; a search gets those that its algorithm keeps to.
DOMAINS: dict[str, dict[str, Any]] = {
    "uniform": {"low": -1, "high": 1},
    "quniform": {"low": 0, "high": 1, "q": 0.25},
    "loguniform": {"low": 1e-4, "high": 0.1},
    "qloguniform": {"low": 0.5, "high": 8, "q": 0.5},
    "randn": {"mean": 5, "sd": 2},
    "qrandn": {"mean": 5, "sd": 2, "q": 0.5},
    "randint": {"low": 3, "high": 9},
    "qrandint": {"low": 8, "high": 64, "q": 8},
    "lograndint": {"low": 2, "high": 100},
    "qlograndint": {"low": 4, "high": 64, "q": 4},
    "choice": {"choices": ["a", "b", "c"]},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "NevergradSearch": {"optimizer": "OnePlusOne"},
    "ZOOptSearch": {"budget": TRIALS},
    # With fewer, its model finds the corner at once, proposes it again and again, and ends the search.
    "BayesOptSearch": {"random_search_steps": 5},
    "HyperOptSearch": {"n_initial_points": 3},
}
SCHEDULERS = {"TuneBOHB": {"type": "HyperBandForBOHB", "max_t": 4}}


@pytest.fixture(scope="module")
def embedded_ray() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        # The workers cannot import a test module.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


def config_for(searcher: type[Searcher], **tune: Any) -> RayConfig:
    names = searcher.domains if searcher.domains is not None else set(DOMAINS)
    flat = {name: {"type": name, **DOMAINS[name]} for name in DOMAINS if name in names}
    first = next(iter(flat))
    space = {**flat, "nested": {"deeper": flat[first], "fixed": "f"}, "constant": [1, 2]}
    return RayConfig.load(
        {
            "ray_cluster": {"address": "auto"},  # the library is looked for by require, not by the config
            "ray_tune": {
                "metric": "score",
                "mode": "min",
                "seed": 11,
                "num_samples": TRIALS,
                "search_space": space,
                "search_algorithm": {"type": searcher.class_name(), **ARGUMENTS.get(searcher.class_name(), {})},
                "scheduler": SCHEDULERS.get(searcher.class_name()),
                **tune,
            },
        }
    )


def require(searcher: type[Searcher]) -> None:
    missing = [module for module in searcher.libraries if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


def flat(config: dict[str, Any], front: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    result: dict[tuple[str, ...], Any] = {}
    for name, value in config.items():
        result |= flat(value, (*front, name)) if isinstance(value, dict) else {(*front, name): value}
    return result


def assert_inside(space: dict[str, Any], sampled: dict[str, Any]) -> None:
    """Every value is of its domain: its kind, its bounds, its quantum."""
    values = flat(sampled)
    for loc, domain in domains_of(space):
        value = values[loc]
        name = domain.type
        if name == "choice":
            assert value in domain.choices, loc
            continue
        assert math.isfinite(value)
        if "int" in name:
            assert value == int(value), loc
        if "randn" not in name:
            upper_open = "int" in name and "q" not in name
            assert domain.low <= value <= (domain.high - 1 if upper_open else domain.high), (loc, value)
        if name.startswith("q"):
            assert math.isclose(value / domain.q, round(value / domain.q), abs_tol=1e-6), (loc, value)


def score(config: dict[str, Any]) -> float:
    return sum(value for value in flat(config).values() if isinstance(value, int | float))


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_search_algorithm_runs_and_keeps_to_the_space(
    searcher: type[Searcher], embedded_ray: None, tmp_path: Path
) -> None:
    require(searcher)
    from ray import tune

    from airflow_provider_raynode.runtime.scheduler import build_scheduler
    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = config_for(searcher)

    def trial(sampled: dict[str, Any]) -> None:
        for step in range(2):
            tune.report({"score": score(sampled) + step})

    assert config.ray_tune is not None
    grid = tune.Tuner(
        trial,
        param_space=build_search_space(config),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="min",
            search_alg=build_searcher(config),
            scheduler=build_scheduler(config),
            num_samples=TRIALS,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert grid.num_errors == 0
    assert len(grid) == TRIALS
    for result in grid:
        assert_inside(config.search_space, result.config)
        assert result.config["constant"] == [1, 2]
        assert result.config["nested"]["fixed"] == "f"
    assert grid.get_best_result().metrics["score"] == min(result.metrics["score"] for result in grid)


def proposals(searcher: type[Searcher], seed: int | None, count: int = 12) -> list[dict[str, Any]]:
    """The first proposals of an algorithm that learns, with a score for each, without a cluster."""
    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = config_for(searcher, seed=seed, num_samples=1, time_budget_s=60)
    algorithm = build_searcher(config)
    assert algorithm is not None
    algorithm.set_search_properties("score", "min", build_search_space(config))
    result = []
    for index in range(count):
        proposed = algorithm.suggest(f"t{index}")
        if not isinstance(proposed, dict):
            break
        result.append(proposed)
        outcome = {"score": score(proposed), "training_iteration": 1, "hyperband_info": {"budget": 1}}
        algorithm.on_trial_complete(f"t{index}", outcome)
    return result


@pytest.mark.parametrize("searcher", SEARCHERS[1:], ids=lambda each: each.class_name())
def test_seed_decides_the_proposals(searcher: type[Searcher]) -> None:
    require(searcher)
    first, again, other = (proposals(searcher, seed) for seed in (5, 5, 6))
    assert len(first) >= 3
    assert first == again
    assert first != other


@pytest.mark.parametrize("searcher", SEARCHERS[1:], ids=lambda each: each.class_name())
def test_many_proposals_lie_in_the_space(searcher: type[Searcher]) -> None:
    require(searcher)
    space = config_for(searcher).search_space
    for proposed in proposals(searcher, 3, count=40):
        assert_inside(space, proposed)


def nested_config(searcher: type[Searcher], **arguments: Any) -> RayConfig:
    """A config with one nested hyperparameter, and these arguments of the algorithm."""
    name = searcher.class_name()
    uniform = {"type": "uniform", "low": 0, "high": 1}
    return RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "max",
                "num_samples": 3,
                "seed": 4,
                "search_space": {"lr": uniform, "nested": {"momentum": uniform, "kept": 3}},
                "search_algorithm": {"type": name, **ARGUMENTS.get(name, {}), **arguments},
                "scheduler": SCHEDULERS.get(name),
            }
        }
    )


POINT = {"lr": 0.25, "nested": {"momentum": 0.5}}


@pytest.mark.parametrize("searcher", SEARCHERS[1:], ids=lambda each: each.class_name())
def test_first_points_are_proposed_first(searcher: type[Searcher]) -> None:
    require(searcher)
    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = nested_config(searcher, points_to_evaluate=[POINT])
    algorithm = build_searcher(config)
    algorithm.set_search_properties("score", "max", build_search_space(config))
    proposed = algorithm.suggest("t0")
    assert (proposed["lr"], proposed["nested"]["momentum"]) == (0.25, 0.5)


def test_random_search_takes_points_and_seed(embedded_ray: None, tmp_path: Path) -> None:
    from ray import tune

    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = nested_config(SEARCHERS[0], points_to_evaluate=[POINT])

    def configs(name: str) -> list[dict[str, Any]]:
        grid = tune.Tuner(
            lambda sampled: {"score": sampled["lr"]},
            param_space=build_search_space(config),
            tune_config=tune.TuneConfig(
                metric="score", mode="max", search_alg=build_searcher(config), num_samples=3, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path / name), verbose=0),
        ).fit()
        return [result.config for result in grid]

    first = configs("first")
    assert first == configs("again")
    assert first[0] == {"lr": 0.25, "nested": {"momentum": 0.5, "kept": 3}}
    assert first[1] != first[2]


def test_grid_runs_every_combination_once(embedded_ray: None, tmp_path: Path) -> None:
    from ray import tune

    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "max",
                "max_concurrent_trials": 2,
                "search_space": {
                    "a": {"type": "grid_search", "values": [1, 2, 3]},
                    "b": {"c": {"type": "grid_search", "values": [{"type": "constant", "value": {"x": 1}}, None]}},
                },
            }
        }
    )
    assert config.ray_tune is not None
    searcher = build_searcher(config)
    assert searcher.max_concurrent == 2
    grid = tune.Tuner(
        lambda sampled: {"score": sampled["a"]},
        param_space=build_search_space(config),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=searcher,
            num_samples=config.ray_tune.num_samples,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    seen = [(result.config["a"], result.config["b"]["c"]) for result in grid]
    expected = [(a, c) for a in (1, 2, 3) for c in ({"x": 1}, None)]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)


def test_unknown_nevergrad_optimizer_is_refused_with_the_nearest() -> None:
    pytest.importorskip("nevergrad")
    from airflow_provider_raynode.exceptions import ConfigError
    from airflow_provider_raynode.runtime.searcher import build_searcher

    config = RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "min",
                "search_space": {"lr": {"type": "uniform", "low": 0, "high": 1}},
                "search_algorithm": {"type": "nevergrad", "optimizer": "OnePlusTwo"},
            }
        }
    )
    with pytest.raises(ConfigError, match=r"optimizer: 'OnePlusTwo' is not allowed, did you mean 'OnePlusOne'\?"):
        build_searcher(config)
