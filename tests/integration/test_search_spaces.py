"""Search spaces on a real Ray Tune: what the function gets is what the config says, whoever proposes it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from staged import result_of, stage

from airflow_provider_raynode.runtime.driver import Driver, read_spec

pytestmark = pytest.mark.ray

ALGORITHMS = ["random", "optuna", "hyperopt", {"type": "nevergrad", "optimizer": "OnePlusOne"}, "bayesopt"]
LIBRARIES = {"optuna": "optuna", "hyperopt": "hyperopt", "nevergrad": "nevergrad", "bayesopt": "bayes_opt"}
# Cases of a user: a rounded range whose bounds are no multiples, lists as the values of a choice, a branch with a
# hyperparameter of its own, a range with one value.
DECAY = {"type": "choice", "choices": [0, {"rate": {"type": "randint", "low": 1, "high": 9}}]}
SPACE: dict[str, Any] = {
    "batch": {"type": "qrandint", "low": 10, "high": 200, "q": 50},
    "layers": {"type": "choice", "choices": [[300], [200, 100], [1, 2.0, None]]},
    "flag": {"type": "choice", "choices": [1, True, 1.0, "1", {"a": {}}]},
    "seed": {"type": "randint", "low": 7, "high": 8},
    "lr": {"type": "quniform", "low": 0, "high": 1, "q": 0.1},
    "optimizer": {
        "type": "choice",
        "choices": [
            {"name": "sgd", "momentum": {"type": "uniform", "low": 0, "high": 1}},
            {"name": "adam", "betas": [0.9, 0.99], "decay": DECAY},
        ],
    },
}  # fmt: skip


@pytest.fixture
def run(connected: None, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Run a search of a function that reports what it got; return the result and the trials table."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ran(ray_tune: dict[str, Any]) -> Any:
        job, _, node = stage(tmp_path, seen, ray_tune, resources={"num_cpus": 0.5})
        spec, attempt = read_spec(job.spec_uri, job.spec_sha256)
        assert Driver(spec, job.spec_sha256, attempt, embedded=False).run() == 0
        result = result_of(job, node)
        assert result.trials is not None
        return result, node.load(result.trials)

    yield ran
    for number, handler in handlers.items():
        signal.signal(number, handler)


def seen(config: dict[str, Any]) -> dict[str, Any]:
    import json

    return {"score": config.get("batch", 0), "got": json.dumps(config, sort_keys=True)}


def assert_as_configured(config: dict[str, Any]) -> None:
    def said(value: Any, *choices: Any) -> bool:
        return repr(value) in map(repr, choices)

    assert config.keys() == SPACE.keys()
    assert said(config["batch"], 50, 100, 150, 200)
    assert said(config["layers"], [300], [200, 100], [1, 2.0, None])
    assert said(config["flag"], 1, True, 1.0, "1", {"a": {}})
    assert said(config["seed"], 7)
    assert said(config["lr"], 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    optimizer = config["optimizer"]
    if optimizer["name"] == "sgd":
        assert optimizer.keys() == {"name", "momentum"}
        assert type(optimizer["momentum"]) is float
    else:
        assert optimizer.keys() == {"name", "betas", "decay"}
        assert optimizer["betas"] == [0.9, 0.99]
        assert said(optimizer["decay"], 0, *({"rate": number} for number in range(1, 9)))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_the_function_gets_what_the_config_says(algorithm: Any, run: Callable[..., Any]) -> None:
    name = algorithm if isinstance(algorithm, str) else algorithm["type"]
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    point = {
        "batch": 200, "layers": [200, 100], "flag": {"a": {}}, "seed": 7, "lr": 0.3,
        "optimizer": {"name": "adam", "betas": [0.9, 0.99], "decay": {"rate": 8}},
    }  # fmt: skip
    search = {"type": algorithm} if isinstance(algorithm, str) else algorithm
    result, table = run(
        {"search_space": SPACE, "num_samples": 8, "seed": 2, "max_concurrent_trials": 2,
         "search_algorithm": {**search, "points_to_evaluate": [point]}}
    )  # fmt: skip
    got = [json.loads(text) for text in table["got"]]
    assert len(got) == 8
    for config in got:
        assert_as_configured(config)
    assert point in got
    best = result.best.config
    assert_as_configured(best)
    assert best["batch"] == 200
    # The record shows the chosen branch alone.
    for index, config in enumerate(got):
        sgd = config["optimizer"]["name"] == "sgd"
        row = table.iloc[index]
        assert row["config/optimizer/name"] == config["optimizer"]["name"]
        if "config/optimizer/momentum" in table:
            assert (row["config/optimizer/momentum"] == row["config/optimizer/momentum"]) == sgd
        assert row["config/batch"] == config["batch"]


def test_a_grid_beside_a_conditional_choice(run: Callable[..., Any]) -> None:
    space = {"grid": {"type": "grid_search", "values": [[1], {"b": 2}, None]}, "optimizer": SPACE["optimizer"]}
    _, table = run({"search_space": space, "num_samples": 2})
    got = [json.loads(text) for text in table["got"]]
    assert sorted(repr(each["grid"]) for each in got) == sorted(map(repr, [[1], {"b": 2}, None] * 2))
    assert all(each["optimizer"]["name"] in ("sgd", "adam") for each in got)


def test_nothing_but_ranges_of_one_value(run: Callable[..., Any]) -> None:
    space = {"batch": {"type": "qrandint", "low": 60, "high": 149, "q": 50}, "x": {"type": "choice", "choices": [[1]]}}
    for algorithm in ("random", "optuna", "hyperopt"):
        _, table = run({"search_space": space, "num_samples": 2, "search_algorithm": algorithm})
        assert [json.loads(text) for text in table["got"]] == [{"batch": 100, "x": [1]}] * 2
