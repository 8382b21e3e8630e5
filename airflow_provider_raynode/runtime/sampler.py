"""Optuna's samplers and pruners, made from the config."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.runtime._ray_class import ray_class

if TYPE_CHECKING:
    from airflow_provider_raynode.config._kinds import Kind


def build_sampler(sampler: Kind, seed: int | None) -> Any:
    """Return a sampler of Optuna.

    :param sampler: one of the kinds of `config/samplers.py`.
    :param seed: the seed of the search, where the sampler has none of its own.
    """
    arguments = sampler.arguments()
    if arguments["seed"] is None:
        arguments["seed"] = seed
    return _made(sampler, arguments)


def build_pruner(pruner: Kind) -> Any:
    """Return a pruner of Optuna, with the one that it wraps."""
    arguments = {name: value for name, value in pruner.arguments().items() if name != "time_attr"}
    wrapped = arguments.get("wrapped_pruner")
    if wrapped is not None:
        arguments["wrapped_pruner"] = build_pruner(wrapped)
    return _made(pruner, arguments)


def _made(kind: Kind, arguments: dict[str, Any]) -> Any:
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        # Whoever names one in the config has chosen it.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return ray_class(kind)(**arguments)
