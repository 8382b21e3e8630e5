"""What a function returned, as a mapping, or what it is and what to return in its place. Pure: no airflow, no ray."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.outputs import as_scalar


def as_mapping(returned: Any, metric: str | None) -> Mapping[Any, Any]:
    """Return the function's result by name: a number alone is the metric.

    :param metric: None where the config names none.

    :raises RayNodeError: neither a mapping nor a number; the message says what it is and what would be right.
    """
    if isinstance(returned, Mapping):
        return returned
    scalar = as_scalar(returned)
    if scalar is not None and not isinstance(scalar, str) and metric is not None:
        return {metric: scalar}
    raise RayNodeError(f"the function returned {_told(returned, metric or 'loss')}")


def _told(returned: Any, metric: str) -> str:
    kind = type(returned).__name__
    right = f"return {{{metric!r}: value, ...}}, or the metric's number alone"
    if inspect.iscoroutine(returned):
        returned.close()  # Python would warn that nobody awaited it
        return f"a coroutine, since it is `async def`: make it a plain `def`, with asyncio.run(...) inside; {right}"
    if inspect.isasyncgen(returned) or inspect.isgenerator(returned):
        return (
            f"a generator, since it has `yield`: call report({{{metric!r}: value}}) in its place; at the end, {right}"
        )
    if inspect.isawaitable(returned):
        return f"a {kind}, which is to be awaited: wait for it inside the function; {right}"
    if isinstance(returned, type):
        return f"the class {returned.__name__} itself: {right}"
    if dataclasses.is_dataclass(returned):
        return f"a {kind}, a dataclass: return dataclasses.asdict(...) of it; its fields must hold {metric!r}"
    if hasattr(returned, "model_dump") and hasattr(returned, "model_fields_set"):
        return f"a {kind}, a pydantic model: return its model_dump(); its fields must hold {metric!r}"
    if isinstance(returned, tuple) and hasattr(returned, "_asdict"):
        return f"a {kind}, a named tuple: return its _asdict(); its fields must hold {metric!r}"
    if isinstance(returned, list | tuple | set | frozenset):
        items = ", ".join(type(item).__name__ for item in list(returned)[:5])
        ending = ", ..." if len(returned) > 5 else ""
        return f"a {kind} ({items}{ending}), whose values have no names: {right}"
    if isinstance(returned, str | bytes):
        return f"a {kind}, {returned[:60]!r}, but the metric {metric!r} must be a number: {right}"
    if hasattr(returned, "shape"):
        shape = "x".join(map(str, tuple(returned.shape))) or "no size"
        return f"a {kind} of {shape}, not one number: {right}; more than numbers goes under a name of its own"
    if callable(returned) and hasattr(returned, "__qualname__"):
        return f"the function {returned.__qualname__} itself, without calling it: {right}"
    return f"a {type(returned).__module__}.{type(returned).__qualname__}: {right}"
