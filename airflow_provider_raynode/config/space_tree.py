"""A search space as a tree with what varies in it by name: from a proposal to a trial's config, and back.

A choice whose options hold domains of their own is a fork: only what stands in the chosen option is in the config.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.config._section import Loc, Problem, did_you_mean, path_of
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config.domains import DOMAINS, is_domain
from airflow_provider_raynode.config.meaning import Meaning, Options, same


@dataclass(frozen=True)
class Literal:
    """The same value in every trial."""

    value: Any


@dataclass(frozen=True)
class Leaf:
    """A value that varies."""

    name: str
    loc: Loc
    meaning: Meaning


@dataclass(frozen=True)
class Grid:
    """Values that are all run."""

    name: str
    loc: Loc
    meaning: Options


@dataclass(frozen=True)
class Fork:
    """A choice; what stands for its value is the index of the option."""

    name: str
    loc: Loc
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Part:
    """A mapping of names to parts of the space."""

    entries: Mapping[str, Node]


Node = Literal | Leaf | Grid | Fork | Part
Variable = Leaf | Fork


@dataclass
class Point:
    """A given config: for each variable its value or the option's index, and what is wrong or left out."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    missing: list[Loc] = field(default_factory=list)


class SpaceTree:
    """A normalised search space as a tree.

    `variables` are what varies, also in options that are not always chosen, under names without meaning: `x0`, `x1`, …
    A domain with one legal value does not vary and is a literal here; grids are apart from the variables.
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        self.variables: list[Variable] = []
        self.grids: dict[str, Grid] = {}
        self.root = Part({name: self._node(each, (name,)) for name, each in space.items()})

    def config(self, choose: Callable[[Variable], Any]) -> dict[str, Any]:
        """Return a trial's config.

        :param choose: gives a variable's value, a fork's the index of an option; asked for what is chosen only.
        """
        config: dict[str, Any] = config_of(self.root, choose)
        return config

    def combinations(self, fixed: Collection[str] = ()) -> int:
        """Return how many combinations the grids have, but for those that are fixed."""
        return math.prod(len(grid.meaning.values) for name, grid in self.grids.items() if name not in fixed)

    def point(self, given: Mapping[str, Any]) -> Point:
        """Return a given config, whole or in part, as the variables' values."""
        found = Point()
        take_value(self.root, given, (), found)
        return found

    def _node(self, value: Any, loc: Loc) -> Node:
        if not isinstance(value, Mapping):
            return Literal(literal(value))
        if not is_domain(value):
            return Part({name: self._node(each, (*loc, name)) for name, each in value.items()})
        if value["type"] == "constant":
            return Literal(value["value"])
        if value["type"] == "choice":
            return self._fork(value["choices"], loc)
        if value["type"] == "grid_search":
            grid = Grid(f"g{len(self.grids)}", loc, Options(tuple(literal(each) for each in value["values"])))
            self.grids[grid.name] = grid
            return grid
        meaning = DOMAINS[value["type"]].model_validate(value).meaning()
        if meaning.size == 1:
            return Literal(meaning.nth(0))
        leaf = Leaf(f"x{len(self.variables)}", loc, meaning)
        self.variables.append(leaf)
        return leaf

    def _fork(self, choices: list[Any], loc: Loc) -> Node:
        if len(choices) == 1:
            return self._node(choices[0], (*loc, "choices", 0))
        place, name = len(self.variables), f"x{len(self.variables)}"
        self.variables.append(Fork(name, loc, ()))  # its place, before those in its options
        options = tuple(_merged(self._node(each, (*loc, "choices", index))) for index, each in enumerate(choices))
        self.variables[place] = fork = Fork(name, loc, options)
        return fork


def _merged(node: Node) -> Node:
    """Return a part of nothing but literals as one literal."""
    if not isinstance(node, Part):
        return node
    entries = {name: _merged(each) for name, each in node.entries.items()}
    literals = {name: each.value for name, each in entries.items() if isinstance(each, Literal)}
    return Literal(literals) if len(literals) == len(entries) else Part(entries)


def literal(value: Any) -> Any:
    """Return a literal value with `{type: constant, value: …}` in it replaced by its value."""
    if isinstance(value, list):
        return [literal(each) for each in value]
    if isinstance(value, Mapping):
        if value.get("type") == "constant" and set(value) == {"type", "value"}:
            return value["value"]
        return {key: literal(each) for key, each in value.items()}
    return value


def config_of(node: Node, choose: Callable[[Variable], Any]) -> Any:
    """Return the value of a part of the tree, see `SpaceTree.config`."""
    match node:
        case Literal(value):
            return copy.deepcopy(value)
        case Part(entries):
            return {name: config_of(each, choose) for name, each in entries.items()}
        case Fork(options=options):
            return config_of(options[choose(node)], choose)
        case Leaf():
            return choose(node)
        case Grid():
            raise ValueError("a grid has no one value")


def take_value(node: Node, given: Any, path: Loc, found: Point) -> None:
    """Read a given value as a part of the tree into `found`; `path` is the value's place."""
    match node:
        case Literal(value):
            if not same(value, given) and not (_is_number(given) and _is_number(value) and given == value):
                found.problems.append((path, f"{shown(given)} is not {shown(value)}, its value in every trial"))
        case Leaf(name, _, meaning) | Grid(name, _, meaning):
            try:
                found.values[name] = meaning.legal(given)
            except ValueError as error:
                found.problems.append((path, str(error)))
        case Fork():
            _match_fork(node, given, path, found)
        case Part(entries):
            if not isinstance(given, Mapping):
                found.problems.append((path, f"{shown(given)} is not a mapping (name: value)"))
                return
            given = _unfolded(given, entries)
            for name, value in given.items():
                if name in entries:
                    take_value(entries[name], value, (*path, name), found)
                else:
                    near = did_you_mean(str(name), entries)
                    message = f"is not in the search space{near} in it: {', '.join(entries)}"
                    found.problems.append(((*path, name), message))
            for name, each in entries.items():
                if name not in given:
                    found.missing += _varying(each, (*path, name))


def _match_fork(fork: Fork, given: Any, path: Loc, found: Point) -> None:
    """Take the first option that the value is, types included; else one that it is but for types, or a part of."""
    tried: list[tuple[int, Point, bool]] = []
    for index, option in enumerate(fork.options):
        point = Point()
        take_value(option, given, path, point)
        point.problems += _literals_left_out(option, given, path)
        exact = not isinstance(option, Literal) or same(option.value, given)
        tried.append((index, point, exact))
    fits = [each for each in tried if not each[1].problems]
    fits.sort(key=lambda each: (bool(each[1].missing), not each[2]))
    if fits:
        index, point, _ = fits[0]
        found.values |= {fork.name: index, **point.values}
        found.missing += point.missing
        return
    near = [point for index, point, _ in tried if _is_meant(fork.options[index], given)]
    if len(near) == 1:
        found.problems += near[0].problems
    else:
        found.problems.append((path, f"{shown(given)} is none of the choices"))


def _literals_left_out(option: Node, given: Any, path: Loc) -> Iterator[Problem]:
    """Yield the literals of an option that a value lacks: without them two options might not be told apart."""
    if isinstance(option, Part) and isinstance(given, Mapping):
        for name, each in option.entries.items():
            if isinstance(each, Literal) and name not in given:
                yield (*path, name), f"is missing: {shown(each.value)}, which belongs to this choice"
            elif name in given:
                yield from _literals_left_out(each, given[name], (*path, name))


def _is_meant(option: Node, given: Any) -> bool:
    """Whether a mapping has the literals of an option, so that what is wrong is in the rest."""
    if not isinstance(option, Part) or not isinstance(given, Mapping):
        return False
    literals = {name: each.value for name, each in option.entries.items() if isinstance(each, Literal)}
    return bool(literals) and all(name in given and same(given[name], each) for name, each in literals.items())


def _unfolded(given: Mapping[str, Any], entries: Mapping[str, Node]) -> dict[str, Any]:
    """Return a mapping with `a/b: 1` as `a: {b: 1}`, where `a/b` is no name of its own."""
    result: dict[str, Any] = {}
    for name, value in given.items():
        front, slash, rest = str(name).partition("/")
        if name in entries or not slash or front not in entries:
            result[name] = value
        else:
            below = result.get(front, {})
            result[front] = {**below, rest: value} if isinstance(below, dict) else {rest: value}
    return result


def _varying(node: Node, path: Loc) -> Iterator[Loc]:
    """Yield the paths of what varies in a part of the tree; below a fork only the fork itself."""
    match node:
        case Part(entries):
            for name, each in entries.items():
                yield from _varying(each, (*path, name))
        case Leaf() | Grid() | Fork():
            yield path


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def problems_of_point(tree: SpaceTree, given: Mapping[str, Any], where: Loc, *, complete: bool) -> Iterator[Problem]:
    """Yield what is wrong with a point.

    :param where: the point's place in the config.
    :param complete: whether it has to name all that varies.
    """
    point = tree.point(given)
    for path, message in point.problems:
        yield (*where, *path), message
    if complete and point.missing:
        names = ", ".join(path_of(path) for path in point.missing)
        yield where, f"{names} is missing: a point names every hyperparameter that varies"
