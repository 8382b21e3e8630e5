"""Every search algorithm with every domain at its edges: the values, and their types, are those of random search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.domains import DOMAINS
from airflow_provider_raynode.config.searchers import SEARCHERS, Searcher

pytest.importorskip("ray.tune")


@dataclass(frozen=True)
class Case:
    """A domain with its legal values: all of them where they are few, else their type and bounds."""

    domain: dict[str, Any]
    values: list[Any] = field(default_factory=list)
    kind: type = float
    low: float = -math.inf
    high: float = math.inf
    q: float | None = None


def case(
    kind: str, *values: Any, like: type = float, low: float = -math.inf, high: float = math.inf, **said: Any
) -> Case:
    return Case({"type": kind, **said}, list(values), like, low, high)


def between(kind: str, low: float, high: float, *, like: type = float, **said: Any) -> Case:
    """A domain with many values; the bounds of an integer are given as in Ray, the upper one excluded."""
    last = high - 1 if like is int and "q" not in said else high
    return Case({"type": kind, "low": low, "high": high, **said}, [], like, low, last, said.get("q"))


def few(kind: str, low: float, high: float, *values: Any, **said: Any) -> Case:
    return Case({"type": kind, "low": low, "high": high, **said}, list(values))


def choice(*choices: Any) -> Case:
    return Case({"type": "choice", "choices": list(choices)}, list(choices))


TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
CASES: dict[str, Case] = {
    "unit": between("uniform", 0, 1),
    "below zero": between("uniform", -3.5, -1.25),
    "tiny": between("uniform", -1e-300, 1e-300),
    "widest": between("uniform", -1e308, 1e308),
    "two floats": few("uniform", 1.0, 1.0 + 2**-52, 1.0, 1.0 + 2**-52),
    "one float": few("uniform", 0.1, 0.1, 0.1),
    "log": between("loguniform", 1e-10, 1e10),
    "log tiny": between("loguniform", 1e-300, 1e-290),
    "one log": few("loguniform", 0.3, 0.3, 0.3),
    "tenths": few("quniform", 0, 1, *TENTHS, q=0.1),
    "quarters": few("quniform", 0.1, 1.1, 0.25, 0.5, 0.75, 1.0, q=0.25),
    "below zero by q": few("quniform", -0.7, 0.5, -0.6, -0.3, 0.0, 0.3, q=0.3),
    "one multiple": few("quniform", 0.2, 0.5, 0.3, q=0.3),
    "zero alone": few("quniform", -1, 1, 0.0, q=2),
    "fine": between("quniform", 0, 100, q=1e-6),
    "qlog": few("qloguniform", 0.4, 2.2, 0.5, 1.0, 1.5, 2.0, q=0.5),
    "qlog fine": between("qloguniform", 0.001, 1, q=0.0001),
    "randn": Case({"type": "randn", "mean": 5, "sd": 2}, [], float, -20, 30),
    "randn alone": Case({"type": "randn"}, [], float, -9, 9),
    "qrandn": Case({"type": "qrandn", "mean": 5, "sd": 2, "q": 0.1}, [], float, -20, 30, 0.1),
    "int": few("randint", 3, 9, 3, 4, 5, 6, 7, 8),
    "one int": few("randint", 0, 1, 0),
    "two ints": few("randint", -1, 1, -1, 0),
    "ints below zero": few("randint", -5, -2, -5, -4, -3),
    "many ints": between("randint", 0, 10**6, like=int),
    "more ints than floats": between("randint", 0, 2**53 + 3, like=int),
    "all ints": between("randint", -(2**63), 2**63 - 1, like=int),
    "case 01": few("qrandint", 10, 200, 50, 100, 150, 200, q=50),
    "q below zero": few("qrandint", -7, 7, -6, -3, 0, 3, 6, q=3),
    "q of one": few("qrandint", 1, 4, 1, 2, 3, q=1),
    "eights": few("qrandint", 8, 32, 8, 16, 24, 32, q=8),
    "one by q": few("qrandint", 50, 99, 50, q=50),
    "huge by q": between("qrandint", -(2**62), 2**62, like=int, q=7),
    "log int": few("lograndint", 1, 5, 1, 2, 3, 4),
    "one log int": few("lograndint", 7, 8, 7),
    "log ints": between("lograndint", 2, 10**5, like=int),
    "all log ints": between("lograndint", 1, 2**63 - 1, like=int),
    "qlog int": few("qlograndint", 3, 21, 4, 8, 12, 16, 20, q=4),
    "choice": choice("a", "b", "c"),
    "one choice": choice([1, 2]),
    "types": choice(1, True, 1.0, "1", None),
    "zeros": choice(0, False, 0.0, ""),
    "case 04": choice([300], [200, 100]),
    "mappings": choice({"a": 1}, {}, {"a": {"b": [None]}}, []),
    "twenty": choice(*(f"v{number}" for number in range(20))),
    "a/b": choice("slash", "/"),
    "größe {x}": few("randint", 0, 3, 0, 1, 2),
}
SPACE = {name: each.domain for name, each in CASES.items()}
NESTED = {
    "plain": {"deeper": {"type": "uniform", "low": 0, "high": 1}, "fixed": [1, 2], "type": "resnet"},
    "optimizer": {
        "type": "choice",
        "choices": [
            {"name": "sgd", "momentum": {"type": "quniform", "low": 0, "high": 0.9, "q": 0.1}, "betas": [0.9, 0.99]},
            {
                "name": "adam",
                "beta": {"type": "uniform", "low": 0.8, "high": 0.999},
                "schedule": {
                    "type": "choice",
                    "choices": ["none", {"warmup": {"type": "randint", "low": 1, "high": 4}, "kind": "cosine"}],
                },
            },
            {"type": "randint", "low": 7, "high": 9},
            {"type": "constant", "value": {"type": "uniform", "low": 3}},
            None,
        ],
    },
}
RANDOM_PHASE: dict[str, dict[str, Any]] = {
    "HyperOptSearch": {"n_initial_points": 1000},
    "BayesOptSearch": {"random_search_steps": 1000},
    "NevergradSearch": {"optimizer": "RandomSearch"},
    "TuneBOHB": {"bohb_config": {"min_points_in_model": 1000}},
    "ZOOptSearch": {"budget": 100},
}
LEARNING: dict[str, dict[str, Any]] = {
    "HyperOptSearch": {"n_initial_points": 3},
    "BayesOptSearch": {"random_search_steps": 3},
    "NevergradSearch": {"optimizer": "OnePlusOne"},
    "ZOOptSearch": {"budget": 100},
}
# How many searches of how many trials give the first proposals of each: Optuna and ZOOpt soon begin to learn.
FIRST = {"OptunaSearch": (20, 10), "ZOOptSearch": (20, 10)}


def config_of(searcher: type[Searcher], space: dict[str, Any], seed: int = 1, **arguments: Any) -> RayConfig:
    name = searcher.class_name()
    return RayConfig.load(
        {
            "ray_cluster": {"address": "auto"},
            "ray_tune": {
                "metric": "score",
                "mode": "min",
                "seed": seed,
                "num_samples": -1,
                "time_budget_s": 60,
                "search_space": space,
                "search_algorithm": {"type": name, **arguments},
                "scheduler": {"type": "HyperBandForBOHB"} if name == "TuneBOHB" else None,
            },
        }
    )


def drawn(config: RayConfig, count: int, score: Callable[[int], float] = lambda index: index * 7 % 11) -> list[Any]:
    """The first configs of a search, each scored before the next is proposed."""
    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    algorithm = build_searcher(config)
    space = build_search_space(config)
    if not hasattr(algorithm, "suggest"):
        from ray.tune.search.variant_generator import generate_variants

        rng = algorithm._random_state
        return [
            spec["config"] for _ in range(count) for _, spec in generate_variants({"config": space}, random_state=rng)
        ]
    assert algorithm.set_search_properties("score", "min", space)
    result: list[Any] = []
    running: list[int] = []
    for index in range(count * 3):
        proposed = algorithm.suggest(f"t{index}")
        if isinstance(proposed, dict):
            result.append(proposed)
            running.append(index)
        if len(result) == count:
            break
        # Two trials at a time.
        if len(running) == 2 or (running and not isinstance(proposed, dict)):
            done = running.pop(0)
            outcome = {"score": score(done), "training_iteration": 1, "hyperband_info": {"budget": 1}}
            algorithm.on_trial_result(f"t{done}", outcome)
            algorithm.on_trial_complete(f"t{done}", outcome)
    return result


def require(searcher: type[Searcher]) -> None:
    missing = [module for module in searcher.libraries if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


def plain(value: Any) -> bool:
    """Whether a value is made of Python's own types, and of nothing that only looks like them."""
    if type(value) is dict:
        return all(type(name) is str and plain(each) for name, each in value.items())
    if type(value) is list:
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)


def assert_legal(name: str, value: Any) -> None:
    expected = CASES[name]
    if expected.values:
        assert any(repr(value) == repr(each) for each in expected.values), (name, value)
        return
    assert type(value) is expected.kind, (name, value)
    assert expected.low <= value <= expected.high, (name, value)
    if expected.q is not None:
        whole = expected.kind is int
        assert value % expected.q == 0 if whole else value == float(f"{value:.9g}"), (name, value)


def distance(one: list[Any], other: list[Any]) -> float:
    import numpy as np

    left, right = (np.array([float(each) for each in side]) for side in (one, other))
    places = np.unique(np.concatenate([left, right]))
    ranks = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (left, right)]
    return float(np.max(np.abs(ranks[0] - ranks[1])))


def first_proposals(searcher: type[Searcher], space: dict[str, Any]) -> list[dict[str, Any]]:
    searches, trials = FIRST.get(searcher.class_name(), (1, 200))
    arguments = RANDOM_PHASE.get(searcher.class_name(), {})
    return [
        each for seed in range(searches) for each in drawn(config_of(searcher, space, seed + 1, **arguments), trials)
    ]


@pytest.fixture(scope="module")
def by_random_search() -> list[dict[str, Any]]:
    return drawn(config_of(SEARCHERS[0], SPACE), 800)


def test_every_kind_of_domain_is_there() -> None:
    assert {each.domain["type"] for each in CASES.values()} == set(DOMAINS) - {"grid_search", "constant"}


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_every_domain_means_what_it_does_in_random_search(
    searcher: type[Searcher], by_random_search: list[dict[str, Any]], record_property: Any
) -> None:
    require(searcher)
    proposals = first_proposals(searcher, SPACE)
    assert len(proposals) == 200
    record_property("pairs", len(CASES))
    record_property("draws", len(CASES) * len(proposals))
    for name, expected in CASES.items():
        values = [each[name] for each in proposals]
        for value in values:
            assert plain(value), (name, value)
            assert_legal(name, value)
        if expected.values:
            assert {repr(each) for each in values} == {repr(each) for each in expected.values}, name
            ranks = {repr(each): rank for rank, each in enumerate(expected.values)}
            both = [[ranks[repr(each[name])] for each in side] for side in (proposals, by_random_search)]
        else:
            both = [[each[name] for each in side] for side in (proposals, by_random_search)]
        assert distance(*both) < 0.17, (name, distance(*both))


@pytest.mark.parametrize("searcher", SEARCHERS[1:], ids=lambda each: each.class_name())
def test_what_is_proposed_after_learning_is_legal_too(searcher: type[Searcher], record_property: Any) -> None:
    """The least score is where every number is largest: the proposals go to the bounds."""
    require(searcher)
    # A Gaussian process over all of them takes minutes.
    names = list(CASES)[::9] if searcher.class_name() == "BayesOptSearch" else list(CASES)
    space = {name: SPACE[name] for name in names}
    proposals = drawn(config_of(searcher, space, **LEARNING.get(searcher.class_name(), {})), 12, lambda index: -index)
    assert len(proposals) >= 10
    record_property("draws", len(names) * len(proposals))
    for proposed in proposals:
        assert list(proposed) == names
        for name, value in proposed.items():
            assert plain(value), (name, value)
            assert_legal(name, value)


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda each: each.class_name())
def test_conditional_space_has_the_chosen_branch_only(searcher: type[Searcher]) -> None:
    require(searcher)
    proposals = first_proposals(searcher, NESTED)
    seen = set()
    for proposed in proposals:
        assert plain(proposed)
        assert proposed["plain"].keys() == {"deeper", "fixed", "type"}
        assert proposed["plain"]["fixed"] == [1, 2]
        assert proposed["plain"]["type"] == "resnet"
        chosen = proposed["optimizer"]
        if chosen is None:
            seen.add("none")
        elif isinstance(chosen, int):
            assert chosen in (7, 8)
            seen.add(str(chosen))
        elif chosen.get("name") == "sgd":
            assert chosen.keys() == {"name", "momentum", "betas"}
            assert chosen["momentum"] in TENTHS[:10]
            seen.add("sgd")
        elif chosen.get("name") == "adam":
            assert chosen.keys() == {"name", "beta", "schedule"}
            assert 0.8 <= chosen["beta"] <= 0.999
            schedule = chosen["schedule"]
            assert schedule == "none" or schedule in [{"warmup": number, "kind": "cosine"} for number in (1, 2, 3)]
            seen.add("adam" if schedule == "none" else f"adam {schedule['warmup']}")
        else:
            assert chosen == {"type": "uniform", "low": 3}
            seen.add("literal")
    assert seen == {"none", "7", "8", "sgd", "adam", "adam 1", "adam 2", "adam 3", "literal"}


@pytest.mark.parametrize("sampler", ["RandomSampler", "QMCSampler", "NSGAIISampler", "BruteForceSampler"])
def test_optunas_samplers_keep_to_the_domains_too(sampler: str) -> None:
    pytest.importorskip("optuna")
    if sampler == "QMCSampler":
        pytest.importorskip("scipy")
    few = {name: each.domain for name, each in CASES.items() if 1 < len(each.values) < 5 and name != "two floats"}
    space = few if sampler == "BruteForceSampler" else SPACE
    optuna = next(each for each in SEARCHERS if each.class_name() == "OptunaSearch")
    proposals = drawn(config_of(optuna, space, sampler=sampler), 40)
    assert len(proposals) == 40
    for proposed in proposals:
        for name, value in proposed.items():
            assert_legal(name, value)


def test_brute_force_runs_every_combination_once() -> None:
    pytest.importorskip("optuna")
    optuna = next(each for each in SEARCHERS if each.class_name() == "OptunaSearch")
    names = ["log int", "quarters", "case 04"]
    config = config_of(optuna, {name: SPACE[name] for name in names}, sampler="BruteForceSampler")
    proposals = drawn(config, 4 * 4 * 2)
    assert len({repr(each) for each in proposals}) == len(proposals) == 32
