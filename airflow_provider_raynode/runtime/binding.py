"""Binding of hyperparameters and op_kwargs to the function's arguments, by name. Pure: no airflow, no ray."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from airflow_provider_raynode.exceptions import BindingError

# An argument of this name that nobody else fills gets the whole dict of hyperparameters, as Ray's own trainables do.
WHOLE = "config"


def check_binding(
    function: Callable[..., Any],
    hyperparameters: Collection[str],
    op_kwargs: Collection[str],
    *,
    replayed: bool = False,
    searched: bool = True,
) -> None:
    """Check that every argument gets exactly one value and every value has an argument.

    An argument `config` that is neither a hyperparameter nor an op_kwarg gets the dict of all hyperparameters; these
    then need no arguments of their own. `**kwargs` takes every name.

    :param function: the node's function.
    :param hyperparameters: names at the top level of the search space.
    :param op_kwargs: names of the further arguments.
    :param replayed: whether a schedule that is replayed (PopulationBasedTrainingReplay) brings hyperparameters of its
        own, which only its file knows.
    :param searched: whether there is a search; without one no argument `config` is filled.
    :raises BindingError: everything that does not fit, in one message.
    """
    parameters = inspect.signature(function).parameters
    named = {
        name
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }
    takes_rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    whole = searched and _takes_whole(parameters, hyperparameters, op_kwargs)
    problems: list[str] = []
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is inspect.Parameter.empty:
            problems.append(f"argument {name!r} is positional-only; values are bound by name: remove the '/'")
    for name in sorted(set(hyperparameters) & set(op_kwargs)):
        problems.append(
            f"{name!r} is both a hyperparameter (ray_tune.search_space) and in op_kwargs: remove it from one of them"
        )
    for name in hyperparameters:
        if name not in named and not takes_rest and not whole:
            problems.append(f"hyperparameter {name!r} has no argument{_near(name, named)}")
    for name in op_kwargs:
        if name not in named and not takes_rest:
            problems.append(f"op_kwargs has {name!r}, which is no argument{_near(name, named)}")
    given = {*hyperparameters, *op_kwargs, *((WHOLE,) if whole else ())}
    if whole:
        given -= set(hyperparameters) - named
    for name in parameters if not replayed else ():
        if name in named and name not in given and parameters[name].default is inspect.Parameter.empty:
            where = "ray_tune.search_space or op_kwargs" if searched else "op_kwargs"
            problems.append(f"argument {name!r} gets no value: add it to {where}, or give it a default")
    if problems:
        label = getattr(function, "__qualname__", repr(function))
        raise BindingError(f"{label}({', '.join(parameters)}) does not fit the node: " + "; ".join(problems))


def with_parameters(
    function: Callable[..., Any],
    hyperparameters: Collection[str],
    op_kwargs: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return op_kwargs with those of `parameters` that name an argument to which nobody else gives a value.

    A parameters file is shared by several tasks: what this function has no argument for is left to `context()`.
    """
    named = inspect.signature(function).parameters
    free = {name: value for name, value in parameters.items() if name in named and name not in hyperparameters}
    return {**free, **op_kwargs}


def bind(function: Callable[..., Any], config: Mapping[str, Any], op_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of one call; `check_binding` has passed.

    :param config: the trial's hyperparameters.
    :param op_kwargs: the further arguments, references loaded.
    """
    if not config:  # no search: an argument `config` keeps its default
        return dict(op_kwargs)
    parameters = inspect.signature(function).parameters
    if not _takes_whole(parameters, config, op_kwargs):
        return {**config, **op_kwargs}
    takes_rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    own = {name: value for name, value in config.items() if takes_rest or name in parameters}
    return {**own, **op_kwargs, WHOLE: dict(config)}


def _takes_whole(
    parameters: Mapping[str, inspect.Parameter], hyperparameters: Collection[str], op_kwargs: Collection[str]
) -> bool:
    parameter = parameters.get(WHOLE)
    return (
        parameter is not None
        and parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and WHOLE not in hyperparameters
        and WHOLE not in op_kwargs
    )


def _near(name: str, names: Collection[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f"; the arguments are: {', '.join(sorted(names)) or 'none'}"
