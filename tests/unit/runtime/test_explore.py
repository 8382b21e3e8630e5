"""What PBT and PB2 make of a trial's hyperparameters stays in the domains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig

pytest.importorskip("ray.tune")

MUTATIONS: dict[str, Any] = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
    "batch": {"type": "qrandint", "low": 10, "high": 200, "q": 50},
    "layers": {"type": "randint", "low": 1, "high": 4},
    "tenths": {"type": "quniform", "low": 0, "high": 1, "q": 0.1},
    "noise": {"type": "randn"},
    "one": {"type": "randint", "low": 5, "high": 6},
    "shape": [[1], [1, 2], [1, 2, 3]],
    "kind": {"type": "choice", "choices": [1, True, 1.0, "x", None]},
    "nested": {"a/b": {"type": "uniform", "low": 0.3, "high": 0.4}},
}
START: dict[str, Any] = {
    "lr": 0.1, "batch": 50, "layers": 3, "tenths": 0.3, "noise": 1.0, "one": 5, "shape": [1], "kind": "x",
    "nested": {"a/b": 0.4, "kept": {}}, "fixed": {"type": "uniform"},
}  # fmt: skip
LEGAL: dict[str, Any] = {
    "batch": [50, 100, 150, 200],
    "layers": [1, 2, 3],
    "tenths": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    "one": [5],
    "shape": [[1], [1, 2], [1, 2, 3]],
    "kind": [1, True, 1.0, "x", None],
}


def scheduler_of(scheduler: dict[str, Any], space: dict[str, Any] | None = None) -> Any:
    from airflow_provider_raynode.runtime.scheduler import build_scheduler

    config = {"metric": "m", "mode": "max", "seed": 1, "search_space": space or {}, "scheduler": scheduler}
    return build_scheduler(RayConfig.load({"ray_tune": config}))


@pytest.mark.parametrize("resample", [0, 0.3])
def test_pbt_stays_in_its_domains(resample: float) -> None:
    scheduler = scheduler_of({"type": "pbt", "hyperparam_mutations": MUTATIONS, "resample_probability": resample})
    config = START
    seen: dict[str, set[str]] = {name: set() for name in LEGAL}
    for _ in range(300):
        config, _ = scheduler._get_new_config(None, SimpleNamespace(config=config))
        for name, values in LEGAL.items():
            assert repr(config[name]) in map(repr, values), name
            seen[name].add(repr(config[name]))
        assert 1e-4 <= config["lr"] <= 1e-1
        assert 0.3 <= config["nested"]["a/b"] <= 0.4
        assert type(config["lr"]) is type(config["nested"]["a/b"]) is type(config["noise"]) is float
        assert config["nested"]["kept"] == {}
        assert config["fixed"] == {"type": "uniform"}
    assert seen["batch"] == {"50", "100", "150", "200"}, "a factor of 1.2 and the multiples of 50 were a dead end"
    assert len(seen["tenths"]) > (5 if resample else 2)  # no factor leads away from 0


def test_pb2_stays_within_its_bounds_and_the_domains_of_the_space() -> None:
    from airflow_provider_raynode.runtime.explore import bounded

    bounds = {"lr": [0, 0.05], "batch": [60, 500], "n": [1, 9], "free": [0.1, 0.3], "nested": {"k": [0, 1]}}
    space = {**{name: MUTATIONS[name] for name in ("lr", "batch")}, "n": 4, "nested": {"k": MUTATIONS["tenths"]}}
    domains = bounded(bounds, space)
    free = domains["free",]
    assert [free.nearest(value) for value in (0.0, 0.30000001192092896, 0.2)] == [0.1, 0.3, 0.2]
    assert [domains["lr",].nearest(value) for value in (0, 0.06)] == [1e-4, 0.05]
    assert [domains["batch",].nearest(value) for value in (60.0, 160.0, 500.0)] == [100, 150, 200]
    assert [repr(domains["n",].nearest(value)) for value in (0.4, 3.7, 12.0)] == ["1", "4", "9"]
    assert domains["nested", "k"].nearest(0.44) == 0.4


def test_pb2_keeps_the_shape_of_the_config() -> None:
    """Ray takes the whole config apart by its names, and loses empty mappings and slashes."""
    pytest.importorskip("sklearn")
    scheduler = scheduler_of({"type": "PB2", "hyperparam_bounds": {"n": [1, 9], "lr": [0.1, 0.3]}}, {"n": 4})
    scheduler.set_search_properties("m", "max")
    base, old = (SimpleNamespace(config={"n": 4, "lr": 0.3, "none": {}, "a/b": {"c": [1]}}) for _ in range(2))
    import pandas as pd

    rows = [[str(base), time, 4, 0.3, time * 1.5] for time in range(1, 5)]
    scheduler.data = pd.DataFrame(rows, columns=["Trial", "Time", "n", "lr", "Reward"])
    config, _ = scheduler._get_new_config(old, base)
    assert config.keys() == base.config.keys()
    assert (config["none"], config["a/b"]) == ({}, {"c": [1]})
    assert type(config["n"]) is int
    assert 1 <= config["n"] <= 9
    assert 0.1 <= config["lr"] <= 0.3
