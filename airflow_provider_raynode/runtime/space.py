"""The search space as Ray Tune takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.domains import DOMAINS
from airflow_provider_raynode.config.search_space import unwrapped

# `base` is not handed on: Ray only warns that it has no effect.
_BUILDERS: dict[str, Callable[..., Any]] = {
    "uniform": lambda low, high: tune.uniform(low, high),
    "quniform": lambda low, high, q: tune.quniform(low, high, q),
    "loguniform": lambda low, high: tune.loguniform(low, high),
    "qloguniform": lambda low, high, q: tune.qloguniform(low, high, q),
    "randn": lambda mean, sd: tune.randn(mean, sd),
    "qrandn": lambda mean, sd, q: tune.qrandn(mean, sd, q),
    "randint": lambda low, high: tune.randint(low, high),
    "qrandint": lambda low, high, q: tune.qrandint(low, high, q),
    "lograndint": lambda low, high: tune.lograndint(low, high),
    "qlograndint": lambda low, high, q: tune.qlograndint(low, high, q),
    "choice": lambda choices: tune.choice(unwrapped(choices)),
    "grid_search": lambda values: tune.grid_search(unwrapped(values)),
    "constant": lambda value: value,
}


def build_search_space(config: RayConfig) -> dict[str, Any]:
    """Return the search space with Ray's domains in it: what a `Tuner` takes as `param_space`.

    A hyperparameter that only the scheduler's mutations name is in it too: its first value is sampled from there.
    """
    return build_space(config.search_space)


def build_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a normalised search space, or a part of one, with Ray's domains in it."""
    return {name: _build(value) for name, value in space.items()}


def _build(value: Any) -> Any:
    if isinstance(value, list):
        return unwrapped(value)
    if not isinstance(value, Mapping):
        return value
    if value.get("type") not in DOMAINS:
        return build_space(value)
    arguments = {name: each for name, each in value.items() if name not in ("type", "base")}
    return _BUILDERS[value["type"]](**arguments)
