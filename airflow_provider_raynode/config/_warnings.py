"""What a config may say but most likely does not mean: told, never refused.

A check is a function that takes a config and yields problems; `CHECKS` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._section import Loc, Problem, path_of
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config.domains import is_domain

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_config import RayConfig

Check = Callable[["RayConfig"], Iterator[Problem]]


def warnings_of(config: RayConfig) -> tuple[str, ...]:
    """Return the warnings of a config, one line each: the key's path, the value, what to write instead."""
    found = (problem for check in CHECKS for problem in check(config))
    return tuple(dict.fromkeys(f"{path_of(loc)}: {message}" for loc, message in found))


def _constant_lists(config: RayConfig) -> Iterator[Problem]:
    """Yield lists of different numbers or words that stand where a choice between them was most likely meant."""
    if config.ray_tune is not None:
        yield from _lists_in(config.ray_tune.search_space, ("ray_tune", "search_space"))


def _lists_in(space: Mapping[str, Any], loc: Loc) -> Iterator[Problem]:
    for name, value in space.items():
        if isinstance(value, dict) and not is_domain(value):
            yield from _lists_in(value, (*loc, name))
        elif isinstance(value, list) and _reads_as_choices(value):
            yield (
                (*loc, name),
                f"{shown(value)} is a constant: every trial gets the whole list. To choose one of its values write "
                "{type: choice, choices: […]}; where the list is meant, {type: constant, value: […]}",
            )


def _reads_as_choices(values: list[Any]) -> bool:
    plain = all(value is None or isinstance(value, str | int | float) for value in values)
    return plain and len(values) > 1 and len({repr(value) for value in values}) == len(values)


CHECKS: tuple[Check, ...] = (_constant_lists,)
