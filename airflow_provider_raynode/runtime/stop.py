"""The bounds of `ray_tune.stop` as Tune takes them."""

from __future__ import annotations

from typing import Any

from ray.tune import Stopper

from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.runtime.bounds import reached
from airflow_provider_raynode.runtime.names import key_of


class Bounds(Stopper):
    """Ends a trial at a bound: each of the search's metrics in its direction, every other value from below.

    A value that is not there, is no number or is NaN reaches no bound.
    """

    def __init__(self, bounds: dict[str, float], falling: frozenset[str]) -> None:
        self._bounds = bounds
        self._falling = falling

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this report reaches a bound."""
        return any(reached(result.get(key), bound, falling=key in self._falling) for key, bound in self._bounds.items())

    def stop_all(self) -> bool:
        """Never: a bound ends a trial, not the search."""
        return False


def build_stop(search: RayTune) -> Bounds | None:
    """Return what ends a trial, or None where the config has no bound."""
    if not search.stop:
        return None
    falling = frozenset(key_of(name) for name, mode in search.objectives.items() if mode == "min")
    return Bounds({key_of(name): bound for name, bound in search.stop.items()}, falling)
