"""PBT and PB2 as of Ray, whose changes of a trial's hyperparameters stay in the domains.

Ray multiplies a value by a factor, or takes it from a model in single precision: past the bounds, between the
multiples, a float for an integer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2

from airflow_provider_raynode.config.domains import DOMAINS, is_domain, within
from airflow_provider_raynode.config.meaning import Meaning, Multiples

Domains = dict[tuple[str, ...], Meaning]
"""What each mutated number must be, by its path in a trial's config."""


class LegalPBT(PopulationBasedTraining):
    """PBT within the domains of its mutations."""

    def __init__(self, *, domains: Domains, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._domains = domains

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        for path, meaning in self._domains.items():
            _set(config, path, legal(meaning, _at(config, path), _at(trial_to_clone.config, path)))
        return config, operations


class LegalPB2(PB2):
    """PB2 within the domains of the search space and its own bounds."""

    def __init__(self, *, domains: Domains, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._domains = domains

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        found, operations = super()._get_new_config(trial, trial_to_clone)
        # Ray takes the config apart by its names and loses empty mappings: all but the changes are the old config's.
        config = copy.deepcopy(trial_to_clone.config)
        for path, meaning in self._domains.items():
            _set(config, path, meaning.nearest(_at(found, path)))
        return config, operations


def legal(meaning: Meaning, changed: Any, old: Any) -> Any:
    """Return the legal value nearest to a changed one; where that is the old one, its neighbour on the changed side."""
    value = meaning.nearest(changed)
    if isinstance(meaning, Multiples) and value == old and changed != old:
        return meaning.nth(meaning.index(value) + (1 if changed > old else -1))
    return value


def mutated(mutations: Mapping[str, Any], front: tuple[str, ...] = ()) -> Domains:
    """Return the domains among PBT's mutations; the values of a list are legal as they are."""
    found: Domains = {}
    for name, value in mutations.items():
        if is_domain(value):
            if value["type"] != "choice":
                found[(*front, name)] = DOMAINS[value["type"]].model_validate(value).meaning()
        elif isinstance(value, Mapping):
            found |= mutated(value, (*front, name))
    return found


def bounded(bounds: Mapping[str, Any], space: Any, front: tuple[str, ...] = ()) -> Domains:
    """Return what PB2 may make of each number: what is legal in the search space between the bounds."""
    found: Domains = {}
    for name, value in bounds.items():
        said = space.get(name) if isinstance(space, Mapping) else None
        if isinstance(value, Mapping):
            found |= bounded(value, said, (*front, name))
        else:
            found[(*front, name)] = within(said, *value)
    return found


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = config[name]
    return config


def _set(config: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    _at(config, path[:-1])[path[-1]] = value
