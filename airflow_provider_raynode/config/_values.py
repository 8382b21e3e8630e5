"""The plain values of a config: numbers, integers, switches and text, as YAML and templates write them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SHOWN = 60


def shown(value: Any) -> str:
    """Return `value` as a message shows it: its repr, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def as_number(value: Any) -> Any:
    """Return an int or float; a text such as `1e-4` (what a template renders, what YAML 1.1 reads) is a number too.

    :raises ValueError: not a number, a boolean, NaN or infinite.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is a boolean, not a number")
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        text = value.strip().replace("_", "")
        value = int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    if not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{shown(value)} is not a finite number")
    return value


def as_integer(value: Any) -> int:
    """Return an int; an integral number such as `4e9` is one too.

    :raises ValueError: not an integer, or a boolean.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is a boolean, not an integer")
    try:
        number = as_number(value)
    except ValueError as error:
        raise ValueError(str(error).replace("a number", "an integer")) from None
    if isinstance(number, float):
        if not number.is_integer():
            raise ValueError(f"{shown(value)} is not an integer")
        return int(number)
    return int(number)


def as_switch(value: Any) -> bool:
    """Return a boolean; the words of YAML 1.1 (`yes`, `on`, …) are accepted where a switch is expected.

    :raises ValueError: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise ValueError(f"{shown(value)} is neither true nor false")


def as_count_or_auto(value: Any) -> Any:
    """Return a positive integer, or the word `auto`.

    :raises ValueError: anything else.
    """
    if value == "auto":
        return value
    try:
        count = as_integer(value)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"{shown(value)} is neither an integer from 1 on nor auto")
    return count


def _empty(value: Any) -> Any:
    return {} if value is None else value


def or_list(schema: dict[str, Any]) -> None:
    """Say in the JSON schema of a metric or a mode that a list may stand there."""
    single = next(each for each in schema["anyOf"] if each.get("type") != "null")
    schema["anyOf"].append({"type": "array", "minItems": 1, "items": dict(single)})


# The limits stand before the validators: behind them the JSON schema would not have them.
Number = Annotated[float, BeforeValidator(as_number)]
PositiveNumber = Annotated[float, Field(gt=0), BeforeValidator(as_number)]
NonNegativeNumber = Annotated[float, Field(ge=0), BeforeValidator(as_number)]
NumberAboveOne = Annotated[float, Field(gt=1), BeforeValidator(as_number)]
IntegerAboveOne = Annotated[int, Field(ge=2), BeforeValidator(as_integer)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(as_count_or_auto)]
Percentage = Annotated[float, Field(ge=0, le=100), BeforeValidator(as_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(as_number)]
AtMostHalf = Annotated[float, Field(ge=0, le=0.5), BeforeValidator(as_number)]
Integer = Annotated[int, BeforeValidator(as_integer)]
PositiveInteger = Annotated[int, Field(ge=1), BeforeValidator(as_integer)]
NonNegativeInteger = Annotated[int, Field(ge=0), BeforeValidator(as_integer)]
LimitOrNone = Annotated[int, Field(ge=-1), BeforeValidator(as_integer)]
"""A count, or -1 for no limit."""
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63), BeforeValidator(as_integer)]
"""What numpy samples integers from."""
Seed = Annotated[int, Field(ge=0, lt=2**32), BeforeValidator(as_integer)]
"""What numpy's generators take as a seed."""
Switch = Annotated[bool, BeforeValidator(as_switch)]
Text = Annotated[str, Field(min_length=1)]
# A section whose key is there with nothing below it, which YAML reads as null.
EmptyIsDefault = BeforeValidator(_empty)
