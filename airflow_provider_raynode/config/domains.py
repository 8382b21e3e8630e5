"""The domains of a search space, one class per primitive of Ray: what may stand behind `type:` in the search space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from airflow_provider_raynode.config._section import Problem, Section, folded
from airflow_provider_raynode.config._values import Int64, Number, PositiveInteger, PositiveNumber

_LOW = Field(description="lower bound, inclusive")
_HIGH = Field(description="upper bound, inclusive")
_INT_HIGH = Field(description="upper bound, exclusive as in Ray")
_Q_HIGH = Field(description="upper bound, inclusive (exclusive where q is 1, as in Ray)")
_Q = Field(description="the values are multiples of it")
_BASE = Field(default=None, description="accepted, without effect: Ray has dropped it, sampling is uniform in the log")


class Domain(Section):
    """A value that differs from trial to trial."""

    type: str

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between the bounds."""
        low, high, q = (getattr(self, name, None) for name in ("low", "high", "q"))
        if low is not None and high is not None:
            if "log" in self.type and low <= 0:
                yield ("low",), f"{low:g} is not above 0, which a logarithmic domain needs"
            if low >= high:
                yield ("low",), f"{low:g} is not below high ({high:g})"
            elif q is not None:
                yield from _quantum(low, high, q, whole=isinstance(low, int))
        base = getattr(self, "base", None)
        if base is not None and (base <= 0 or base == 1):
            yield ("base",), f"{base:g} is no base of a logarithm: above 0 and not 1"


def _quantum(low: float, high: float, q: float, *, whole: bool) -> Iterator[Problem]:
    if q > high - low:
        yield ("q",), f"{q:g} is larger than the range from low to high ({high - low:g})"
    elif not whole:
        for name, bound in (("low", low), ("high", high)):
            # Ray refuses such a bound when it builds the domain.
            if not math.isclose(bound / q, round(bound / q)):
                yield (name,), f"{bound:g} is not a multiple of q ({q:g})"


class Uniform(Domain):
    """A float, uniform between the bounds."""

    type: Literal["uniform"]
    low: Number = _LOW
    high: Number = _HIGH


class QUniform(Domain):
    """A float, uniform, rounded to a multiple of `q`."""

    type: Literal["quniform"]
    low: Number = _LOW
    high: Number = _HIGH
    q: PositiveNumber = _Q


class LogUniform(Domain):
    """A float, uniform in its logarithm."""

    type: Literal["loguniform"]
    low: Number = _LOW
    high: Number = _HIGH
    base: Number | None = _BASE


class QLogUniform(Domain):
    """A float, uniform in its logarithm, rounded to a multiple of `q`."""

    type: Literal["qloguniform"]
    low: Number = _LOW
    high: Number = _HIGH
    q: PositiveNumber = _Q
    base: Number | None = _BASE


class RandN(Domain):
    """A float, normally distributed."""

    type: Literal["randn"]
    mean: Number = Field(default=0.0, description="mean")
    sd: PositiveNumber = Field(default=1.0, description="standard deviation")


class QRandN(Domain):
    """A float, normally distributed, rounded to a multiple of `q`."""

    type: Literal["qrandn"]
    mean: Number = Field(default=0.0, description="mean")
    sd: PositiveNumber = Field(default=1.0, description="standard deviation")
    q: PositiveNumber = _Q


class RandInt(Domain):
    """An integer, uniform; `high` is exclusive."""

    type: Literal["randint"]
    low: Int64 = _LOW
    high: Int64 = _INT_HIGH


class QRandInt(Domain):
    """An integer, uniform over the multiples of `q`."""

    type: Literal["qrandint"]
    low: Int64 = _LOW
    high: Int64 = _Q_HIGH
    q: PositiveInteger = Field(default=1, description="the values are multiples of it")


class LogRandInt(Domain):
    """An integer, uniform in its logarithm; `high` is exclusive."""

    type: Literal["lograndint"]
    low: Int64 = _LOW
    high: Int64 = _INT_HIGH
    base: Number | None = _BASE


class QLogRandInt(Domain):
    """An integer, uniform in its logarithm over the multiples of `q`."""

    type: Literal["qlograndint"]
    low: Int64 = _LOW
    high: Int64 = _Q_HIGH
    q: PositiveInteger = _Q
    base: Number | None = _BASE


class Choice(Domain):
    """One of a list of values, each as likely."""

    renamed: ClassVar[Mapping[str, str]] = {"categories": "choices"}

    type: Literal["choice"]
    choices: list[Any] = Field(min_length=1, description="the values: text, numbers, booleans, null, lists or mappings")


class GridSearch(Domain):
    """Every value of a list in turn: the trials are all combinations of the grids, times `num_samples`."""

    type: Literal["grid_search"]
    values: list[Any] = Field(min_length=1, description="the values: text, numbers, booleans, null, lists or mappings")


class Constant(Domain):
    """The same value in every trial; needed only for a mapping that would otherwise read as a domain."""

    type: Literal["constant"]
    value: Any = Field(description="the value, taken literally")


AnyDomain = (
    Uniform
    | QUniform
    | LogUniform
    | QLogUniform
    | RandN
    | QRandN
    | RandInt
    | QRandInt
    | LogRandInt
    | QLogRandInt
    | Choice
    | GridSearch
    | Constant
)

DOMAINS: dict[str, type[Domain]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(AnyDomain)
}
"""The domain classes by the name behind `type:`."""

_BY_FOLDED = {folded(name): name for name in DOMAINS}


def domain_name(word: str) -> str | None:
    """Return the name of the domain that `word` spells (case, `_` and `-` aside), or None."""
    return _BY_FOLDED.get(folded(word))


def is_domain(value: Any) -> bool:
    """Whether a value of a normalised search space is a domain, and neither a constant nor a nested part."""
    return isinstance(value, Mapping) and isinstance(word := value.get("type"), str) and word in DOMAINS
