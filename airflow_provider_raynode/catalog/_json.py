"""The kind `json`: what JSON holds, and the numbers and arrays of NumPy and PyTorch as JSON's own."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer, UnfitError

log = logging.getLogger(__name__)


class JsonSerializer(Serializer):
    """JSON, UTF-8. Chosen for values that come back equal and of the same types: no tuples, NaN, or number keys.

    Where it is asked for by name, what has a plain form is kept in it: a tuple and an array as a list, a number of
    NumPy or PyTorch as a number, NaN and infinity as null, with a warning.
    """

    kind = "json"
    suffix = ".json"

    def accepts(self, value: Any) -> bool:
        """Whether JSON holds `value` exactly."""
        return is_exact(value)

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write JSON.

        :raises UnfitError: something in `value` has no plain form; it says where.
        """
        if not is_exact(value):
            value = plain(value)
        # What Python's own text may hold, a lone surrogate, json.loads takes back the same way.
        stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass"))

    def load(self, data: bytearray, name: str) -> Any:
        """Return the value."""
        return json.loads(data)


def is_exact(value: Any) -> bool:
    """Whether `value` comes back from JSON equal and with the same types, in any depth."""
    if value is None or isinstance(value, bool | str):
        return type(value) in (type(None), bool, str)
    if isinstance(value, int):
        return type(value) is int
    if isinstance(value, float):
        return type(value) is float and value - value == 0  # neither NaN nor infinite
    try:
        if type(value) is list:
            return all(map(is_exact, value))
        if type(value) is dict:
            return all(type(key) is str for key in value) and all(map(is_exact, value.values()))
    except RecursionError:
        return False
    return False


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types.

    :raises UnfitError: something in it has no plain form, or it holds itself; it says where.
    """
    lost: list[str] = []
    try:
        result = _plain(value, "", lost, set())
    except RecursionError:
        raise UnfitError("", "is nested too deep for JSON") from None
    if lost:
        rest = f" and {len(lost) - 5} more places" if len(lost) > 5 else ""
        log.warning("JSON has no NaN or infinity: kept as null at %s%s", ", ".join(lost[:5]), rest)
    return result


def _plain(value: Any, path: str, lost: list[str], above: set[int]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value if type(value) in (type(None), bool, int, str) else _base(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            lost.append(path or "the value itself")
            return None
        return float(value)
    if isinstance(value, dict | list | tuple):
        if id(value) in above:
            raise UnfitError(path, "holds itself, which JSON cannot")
        inside = above | {id(value)}
        if isinstance(value, dict):
            return _mapping(value, path, lost, inside)
        return [_plain(item, f"{path}[{index}]", lost, inside) for index, item in enumerate(value)]
    simple = _of_an_array_library(value)
    if simple is not None:
        return _plain(simple(), path, lost, above)
    raise _refusal(value, path)


def _mapping(value: dict[Any, Any], path: str, lost: list[str], above: set[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        simple = _of_an_array_library(key)
        name = key if simple is None else simple()
        if not isinstance(name, str | int | float | bool | None) or name != name:
            raise UnfitError(path, f"has the key {repr(key)[:80]}, a {type(key).__name__}: keys of JSON are text")
        text = name if isinstance(name, str) else json.dumps(name)
        if text in result:
            raise UnfitError(path, f"has the key {text!r} twice, once as {key!r:.80}")
        result[str(text)] = _plain(item, f"{path}.{text}", lost, above)
    return result


def _base(value: Any) -> Any:
    """Return the plain value of a subclass, such as an enum's."""
    return str.__str__(value) if isinstance(value, str) else int.__int__(value)


def _of_an_array_library(value: Any) -> Callable[[], Any] | None:
    """Return what gives an array, a tensor or one number of them in Python's own types; None for anything else."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    # Dates would become bare numbers; a column of pandas would lose its index.
    if kind in ("M", "m", "V") or hasattr(value, "iloc") or not hasattr(value, "shape"):
        return None
    found = getattr(value, "tolist", None)
    return found if callable(found) else None


def _refusal(value: Any, path: str) -> UnfitError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    remedy = "convert it, or keep the whole as a pickle: pickled(name)"
    for method in ("to_dict()", "model_dump()", "isoformat()", "value"):
        if hasattr(value, method.removesuffix("()")):
            remedy = f"convert it with its {method}, or keep the whole as a pickle: pickled(name)"
            break
    return UnfitError(path, f"is a {kind}, which JSON does not have: {remedy}")
