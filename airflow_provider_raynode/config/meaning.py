"""What a domain means, the same for every search algorithm: its legal values, and how likely each of them is.

A meaning is the domain's distribution by its quantile function: a number between 0 and 1, drawn evenly, stands for a
value (`at`), and a value for such a number (`position`). So a library needs to know nothing but even numbers between 0
and 1, or indexes, and proposes the very values, of the very types, that random search draws.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._values import as_integer, as_number, shown

if TYPE_CHECKING:
    from fractions import Fraction

_FINEST = 2.0**-53
_LAST_DIGITS = 2.0**-49
# Larger multiples of a float are no longer all different floats.
LARGEST_MULTIPLE = 2**53
# So many values of a domain are told apart by their index; of more, a number from 0 to 1 tells as well.
MOST_VALUES = 10_000
_NEAR = 1e-6
_APART = "its multiples there are not all different floats"


class Meaning(ABC):
    """The legal values of one domain and their distribution."""

    size: int | None = None
    """The number of legal values; None where they are as many as there are floats between the bounds."""

    even: bool = False
    """Whether each of the `size` values is as likely."""

    @abstractmethod
    def at(self, position: float) -> Any:
        """Return the value that stands at a position, 0 to 1: even positions give the domain's distribution."""

    @abstractmethod
    def position(self, value: Any) -> float:
        """Return a position of a legal value."""

    @abstractmethod
    def legal(self, value: Any) -> Any:
        """Return a given value as the legal value that it is, of the domain's type.

        :raises ValueError: it is none.
        """

    @abstractmethod
    def nearest(self, value: Any) -> Any:
        """Return the legal value nearest to a number."""

    def nth(self, index: int) -> Any:
        """Return one of `size` values, in their order; an index beyond is that of the nearest."""
        raise NotImplementedError

    def index(self, value: Any) -> int:
        """Return the index of a legal value."""
        raise NotImplementedError


@dataclass(frozen=True)
class Span(Meaning):
    """The floats from `low` to `high`, both included; even, or even in the logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 if self.low == self.high else None)

    def at(self, position: float) -> float:
        """See `Meaning`."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        width = high - low
        found = low + position * width if math.isfinite(width) else low * (1 - position) + high * position
        return self.nearest(math.exp(found) if self.log else found)

    def position(self, value: float) -> float:
        """See `Meaning`."""
        if self.size == 1:
            return 0.5
        low, high = self._scaled(self.low), self._scaled(self.high)
        # Halved, since the width itself may be beyond the largest float.
        return min(max((self._scaled(value) / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0)

    def legal(self, value: Any) -> float:
        """See `Meaning`."""
        number = float(as_number(value))
        _check_bounds(number, self.low, self.high)
        return number

    def nearest(self, value: float) -> float:
        """See `Meaning`."""
        return min(max(float(value), self.low), self.high)

    def nth(self, index: int) -> float:
        """See `Meaning`."""
        return self.low

    def index(self, value: float) -> int:
        """See `Meaning`."""
        return 0

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclass(frozen=True)
class Multiples(Meaning):
    """The multiples of `q` from `first * q` to `last * q`: each as likely, or even in the logarithm.

    In the logarithm a multiple has the weight from itself to the next one, as in Ray.
    """

    first: int
    last: int
    q: int | float = 1
    log: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.last - self.first + 1)
        object.__setattr__(self, "even", not self.log)

    def at(self, position: float) -> Any:
        """See `Meaning`."""
        if self.log:
            low, high = math.log(self.first), math.log(self.last + 1)
            return self.nth(math.floor(math.exp(low + position * (high - low))) - self.first)
        # In integers: with more values than a float has digits each is within reach of its neighbours.
        return self.nth(int(position * 2**53) * self._size >> 53)

    def position(self, value: Any) -> float:
        """See `Meaning`."""
        index = self.index(value)
        if not self.log:
            return (2 * index + 1) / (2 * self._size)
        low, high = math.log(self.first), math.log(self.last + 1)
        return min((math.log(self.first + index + 0.5) - low) / (high - low), 1.0)

    def legal(self, value: Any) -> Any:
        """See `Meaning`."""
        number = as_integer(value) if isinstance(self.q, int) else as_number(value)
        _check_bounds(number, self.nth(0), self.nth(self._size - 1))
        nearest = self.nearest(number)
        if abs(nearest - number) > self.q * _NEAR:
            raise ValueError(
                f"{shown(value)} is not a multiple of q ({digits(self.q)}); the nearest is {digits(nearest)}"
            )
        return nearest

    def nearest(self, value: float) -> Any:
        """See `Meaning`."""
        return self.nth(self._factor(value) - self.first)

    def nth(self, index: int) -> Any:
        """See `Meaning`."""
        return multiple(min(max(self.first + index, self.first), self.last), self.q)

    def index(self, value: Any) -> int:
        """See `Meaning`."""
        return min(max(self._factor(value) - self.first, 0), self._size - 1)

    def _factor(self, value: float) -> int:
        if isinstance(value, float) and not math.isfinite(value):
            return self.last if value > 0 else self.first
        return round(_exact(value) / _exact(self.q))

    @property
    def _size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Normal(Meaning):
    """Normally distributed floats, or the multiples of `q` nearest to them."""

    mean: float
    sd: float
    q: float | None = None

    def at(self, position: float) -> float:
        """See `Meaning`."""
        inner = min(max(position, _FINEST), 1 - _FINEST)
        return self.nearest(_normal(self.mean, self.sd).inv_cdf(inner))

    def position(self, value: float) -> float:
        """See `Meaning`."""
        return min(max(float(_normal(self.mean, self.sd).cdf(value)), _FINEST), 1 - _FINEST)

    def legal(self, value: Any) -> float:
        """See `Meaning`."""
        number = float(as_number(value))
        nearest = self.nearest(number)
        if self.q is not None and abs(nearest - number) > self.q * _NEAR:
            raise ValueError(
                f"{shown(value)} is not a multiple of q ({digits(self.q)}); the nearest is {digits(nearest)}"
            )
        return nearest

    def nearest(self, value: float) -> float:
        """See `Meaning`."""
        value = min(max(float(value), -sys.float_info.max), sys.float_info.max)
        return value if self.q is None else float(multiple(round(_exact(value) / _exact(self.q)), self.q))


def normal(mean: float, sd: float, q: float | None = None) -> Normal:
    """Return the normal distribution, in multiples of `q` where that is given.

    :raises ValueError: `q` is so small that its multiples are not all different floats.
    """
    farthest = abs(mean) + 10 * sd
    if q is not None and farthest / q > LARGEST_MULTIPLE:
        raise ValueError(f"{digits(q)} is too small for numbers up to {digits(farthest)}: {_APART}")
    return Normal(mean, sd, q)


@dataclass(frozen=True)
class Options(Meaning):
    """The values of a list, each as likely; a value's index stands for it, so that they may be of any type."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", len(self.values))
        object.__setattr__(self, "even", True)

    def at(self, position: float) -> Any:
        """See `Meaning`."""
        return self.nth(int(position * len(self.values)))

    def position(self, value: Any) -> float:
        """See `Meaning`."""
        return (self.index(value) + 0.5) / len(self.values)

    def legal(self, value: Any) -> Any:
        """See `Meaning`."""
        return self.values[self.index(value)]

    def nearest(self, value: Any) -> Any:
        """See `Meaning`."""
        return self.legal(value)

    def nth(self, index: int) -> Any:
        """See `Meaning`."""
        return self.values[min(max(index, 0), len(self.values) - 1)]

    def index(self, value: Any) -> int:
        """Return the index of a value: that of the same type before that of an equal number.

        :raises ValueError: it is none of the values.
        """
        for equal in (same, _same_number):
            for index, each in enumerate(self.values):
                if equal(each, value):
                    return index
        raise ValueError(f"{shown(value)} is none of the choices")


def multiples(low: float, high: float, q: float, *, log: bool = False) -> Multiples:
    """Return the multiples of `q` between two bounds, which need not be multiples themselves.

    A bound that is one but for the last digits of a float counts as one.

    :raises ValueError: there is none, or so many that they are not all different floats.
    """
    first, last = _inward(low, q, up=True), _inward(high, q, up=False)
    if log:
        first = max(first, 1)
    if first > last:
        raise ValueError(f"no multiple of it ({digits(q)}) lies between low ({digits(low)}) and high ({digits(high)})")
    if isinstance(q, float) and max(abs(first), abs(last)) > LARGEST_MULTIPLE:
        raise ValueError(f"{digits(q)} is too small for numbers up to {digits(max(abs(low), abs(high)))}: {_APART}")
    return Multiples(first, last, q, log)


def multiple(factor: int, q: float) -> Any:
    """Return a multiple of `q` as its decimal digits say: 3 times 0.1 is 0.3, not 0.30000000000000004."""
    if isinstance(q, int):
        return factor * q
    from decimal import Decimal

    return float(factor * Decimal(repr(q)))


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same, types included: 1, 1.0 and True are three."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(each, other[key]) for key, each in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _same_number(one: Any, other: Any) -> bool:
    return {type(one), type(other)} == {int, float} and one == other


# Imported where they are needed: a config is read whenever Airflow parses a DAG file, and seldom needs them.
def _exact(value: float) -> Fraction:
    """Return a number as its decimal digits say."""
    from decimal import Decimal
    from fractions import Fraction

    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(float(value))))


def _normal(mean: float, sd: float) -> Any:
    from statistics import NormalDist

    return NormalDist(mean, sd)


def _inward(bound: float, q: float, *, up: bool) -> int:
    """Return the factor of the multiple of `q` at a bound, or of the next above or below it."""
    if isinstance(bound, int) and isinstance(q, int):
        return -(-bound // q) if up else bound // q
    factor = _exact(bound) / _exact(q)
    near = round(factor)
    # A float that was computed, 0.1 + 0.2, misses its multiple by some last digits.
    if isinstance(q, float) and abs(factor - near) <= abs(near) * _LAST_DIGITS:
        return near
    return math.ceil(factor) if up else math.floor(factor)


def _check_bounds(value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{digits(value)} is not between low ({digits(low)}) and high ({digits(high)})")


def digits(value: float) -> str:
    """Return a number as short as it can be said."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
