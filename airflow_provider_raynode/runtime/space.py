"""The search space as Ray Tune takes it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.meaning import Meaning
from airflow_provider_raynode.config.space_tree import (
    Fork,
    Grid,
    Leaf,
    Literal,
    Node,
    Part,
    Point,
    SpaceTree,
    Variable,
    config_of,
    take_value,
)

# Numpy draws integers of 64 bits; larger ranges are put together from two draws.
_DRAWN_AT_ONCE = 2**62


class Drawn(Domain):
    """A part of the search space that random search draws: a value, or a choice with what it holds.

    Ray's own domains differ from what the config says at the edges: their types, their bounds, their multiples.
    """

    def __init__(self, node: Leaf | Fork) -> None:
        self.node = node

    def sample(self, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """Return one value, or a list of `size` of them."""
        from ray.tune.search.sample import _BackwardsCompatibleNumpyRng

        if not isinstance(random_state, _BackwardsCompatibleNumpyRng):
            random_state = _BackwardsCompatibleNumpyRng(random_state)
        values = [config_of(self.node, lambda variable: _drawn(variable, random_state)) for _ in range(size)]
        return values if size > 1 else values[0]

    def is_valid(self, value: Any) -> bool:
        """Whether a value lies in this part of the space."""
        point = Point()
        take_value(self.node, value, (), point)
        return not point.problems and not point.missing

    @property
    def domain_str(self) -> str:
        """The domain, as Ray's messages show it."""
        return repr(self.node)


def build_search_space(config: RayConfig) -> dict[str, Any]:
    """Return the search space with Ray's domains in it: what a `Tuner` takes as `param_space`.

    A hyperparameter that only the scheduler's mutations name is in it too: its first value is sampled from there.
    """
    return build_space(config.search_space)


def build_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a normalised search space, or a part of one, with Ray's domains in it."""
    return space_of(SpaceTree(space), {})


def space_of(tree: SpaceTree, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree with Ray's domains in it, and the variables' values where they are given."""
    space: dict[str, Any] = _build(tree.root, given)
    return space


def _build(node: Node, given: Mapping[str, Any]) -> Any:
    match node:
        case Literal(value):
            return copy.deepcopy(value)
        case Part(entries):
            return {name: _build(each, given) for name, each in entries.items()}
        case Grid(name=name, meaning=meaning) if name not in given:
            return tune.grid_search(list(meaning.values))
        case Leaf(name=name) | Fork(name=name) if name not in given:
            return Drawn(node)
        case Leaf(name=name) | Grid(name=name):
            return copy.deepcopy(given[name])
        case Fork(name=name, options=options):
            return _build(options[given[name]], given)


def _drawn(variable: Variable, rng: Any) -> Any:
    """Draw a variable's value, or a fork's index."""
    if isinstance(variable, Fork):
        return int(rng.integers(0, len(variable.options)))
    return drawn(variable.meaning, rng)


def drawn(meaning: Meaning, rng: Any) -> Any:
    """Draw a value with a generator of numpy."""
    if not meaning.even or meaning.size is None:
        return meaning.at(float(rng.uniform(0.0, 1.0)))
    if meaning.size <= _DRAWN_AT_ONCE:
        return meaning.nth(int(rng.integers(0, meaning.size)))
    bits = int(rng.integers(0, 2**62)) << 62 | int(rng.integers(0, 2**62))
    return meaning.nth(bits * meaning.size >> 124)
