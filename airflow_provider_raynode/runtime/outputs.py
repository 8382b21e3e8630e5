"""What a function returns or reports, split into metrics and outputs. Pure: no airflow, no ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.texts import clean

# A longer text is an output: metrics go into XCom.
LONGEST_TEXT = 200
LONGEST_NAME = 250

# Kinds of NumPy's data types: a date, a span of time.
_TIMES = ("M", "m")

Outputs = dict[str, tuple[Any, str | None]]


def split(values: Mapping[Any, Any], returns: Sequence[Return]) -> tuple[dict[str, Any], Outputs]:
    """Return the metrics, and the outputs with the kind that each was declared with (None: by its value).

    Numbers, booleans, None and texts up to 200 characters are metrics, NumPy scalars as plain numbers; the rest is an
    output. `returns` overrides that by name.

    Lone surrogates in names and texts are written out (`\\udce9`).

    :raises RayNodeError: a key is not text, is empty, too long or there twice; or a declared metric is not a number.
    """
    kinds = {declared.name: declared.kind for declared in returns}
    metrics: dict[str, Any] = {}
    outputs: Outputs = {}
    for key, value in values.items():
        name = _checked_name(key)
        if name in metrics or name in outputs:
            raise RayNodeError(f"the function gave the name {name!r} twice, spelt with different surrogates")
        kind = kinds.get(name, "auto")
        scalar = as_scalar(value)
        if kind == "metric":
            if scalar is None or isinstance(scalar, str):
                raise RayNodeError(
                    f"{name!r} is declared as metric({name!r}), but is a {type(value).__name__}: {value!r:.80}"
                )
            metrics[name] = scalar
        elif kind == "auto" and (scalar is not None or value is None):
            metrics[name] = scalar
        else:
            outputs[name] = (value, None if kind == "auto" else kind)
    return metrics, outputs


def _checked_name(key: Any) -> str:
    if not isinstance(key, str):
        raise RayNodeError(f"the function returned a dict with the key {key!r}: names of metrics and outputs are text")
    if not key or len(key) > LONGEST_NAME:
        what = f"of {len(key)} characters, {key[:60]!r}…: at most {LONGEST_NAME}" if key else "that is empty"
        raise RayNodeError(f"the function returned a dict with a key {what}")
    return clean(str(key))


def as_scalar(value: Any) -> bool | int | float | str | None:
    """Return a scalar as a plain Python value, None for everything else."""
    if isinstance(value, bool | int | float):
        # A subclass (an enum, numpy.float64) becomes the plain type, which every process can read.
        plain = bool if isinstance(value, bool) else int if isinstance(value, int) else float
        return plain(value)
    if isinstance(value, str):
        return clean(str(value)) if len(value) <= LONGEST_TEXT else None
    if getattr(getattr(value, "dtype", None), "kind", "") in _TIMES:
        return None  # NumPy would make a bare number of a date
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0 and getattr(value, "size", 1) in (1, None):
        # A NumPy scalar or 0-d array; a 0-d tensor of PyTorch has the same three names, its size being a method.
        return as_scalar(value.item())
    if hasattr(value, "item") and callable(getattr(value, "dim", None)) and value.dim() == 0:
        return as_scalar(value.item())
    return None


def sanitised(value: Any) -> Any:
    """Return `value` as strict JSON: NaN and infinity become None, NumPy scalars plain, unknown objects their text."""
    if isinstance(value, str):
        return clean(str(value))
    if value is None or isinstance(value, bool | int):
        return value if value is None or type(value) in (bool, int) else as_scalar(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(key)): sanitised(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitised(item) for item in value]
    scalar = as_scalar(value)
    return sanitised(scalar) if scalar is not None else clean(str(value))
