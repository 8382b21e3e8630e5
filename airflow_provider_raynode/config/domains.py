"""The domains of a search space, one class per primitive of Ray: what may stand behind `type:` in the search space."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from airflow_provider_raynode.config._section import Problem, Section, folded
from airflow_provider_raynode.config._values import Int64, Number, PositiveInteger, PositiveNumber
from airflow_provider_raynode.config.meaning import Meaning, Multiples, Options, Span, digits, multiples, normal

_LOW = Field(description="lower bound, inclusive")
_HIGH = Field(description="upper bound, inclusive")
_INT_HIGH = Field(description="upper bound, exclusive as in Ray")
_Q_LOW = Field(description="lower bound, inclusive; where it is no multiple of q, the next multiple above it counts")
_Q_HIGH = Field(description="upper bound, inclusive; where it is no multiple of q, the next multiple below it counts")
_Q_INT_HIGH = Field(
    description="upper bound, inclusive (exclusive where q is 1, as in Ray); where it is no multiple of q, the next "
    "multiple below it counts"
)
_Q = Field(description="the values are its multiples between the bounds")
_BASE = Field(default=None, description="accepted, without effect: Ray has dropped it, sampling is uniform in the log")


class Domain(Section):
    """A value that differs from trial to trial."""

    type: str

    def meaning(self) -> Meaning:
        """Return the legal values and their distribution.

        :raises ValueError: there are none.
        """
        raise NotImplementedError

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between the bounds."""
        low, high, q = (getattr(self, name, None) for name in ("low", "high", "q"))
        wrong = False
        if low is not None and high is not None:
            excluded = "int" in self.type and q in (None, 1)
            if "log" in self.type and low <= 0:
                wrong = True
                yield ("low",), f"{digits(low)} is not above 0, which a logarithmic domain needs"
            if low > high or (excluded and low == high):
                wrong = True
                hint = ", which is exclusive" if low == high else ""
                yield ("low",), f"{digits(low)} is not below high ({digits(high)}){hint}"
        if q is not None and not wrong:
            try:
                self.meaning()
            except ValueError as error:
                yield ("q",), str(error)
        base = getattr(self, "base", None)
        if base is not None and (base <= 0 or base == 1):
            yield ("base",), f"{base:g} is no base of a logarithm: above 0 and not 1"


class Uniform(Domain):
    """A float, uniform between the bounds."""

    type: Literal["uniform"]
    low: Number = _LOW
    high: Number = _HIGH

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return Span(self.low, self.high)


class QUniform(Domain):
    """A float that is a multiple of `q`, each as likely."""

    type: Literal["quniform"]
    low: Number = _Q_LOW
    high: Number = _Q_HIGH
    q: PositiveNumber = _Q

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return multiples(self.low, self.high, self.q)


class LogUniform(Domain):
    """A float, uniform in its logarithm."""

    type: Literal["loguniform"]
    low: Number = _LOW
    high: Number = _HIGH
    base: Number | None = _BASE

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return Span(self.low, self.high, log=True)


class QLogUniform(Domain):
    """A float that is a multiple of `q`, uniform in the logarithm."""

    type: Literal["qloguniform"]
    low: Number = _Q_LOW
    high: Number = _Q_HIGH
    q: PositiveNumber = _Q
    base: Number | None = _BASE

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return multiples(self.low, self.high, self.q, log=True)


class RandN(Domain):
    """A float, normally distributed."""

    type: Literal["randn"]
    mean: Number = Field(default=0.0, description="mean")
    sd: PositiveNumber = Field(default=1.0, description="standard deviation")

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return normal(self.mean, self.sd)


class QRandN(Domain):
    """A float, normally distributed, rounded to a multiple of `q`."""

    type: Literal["qrandn"]
    mean: Number = Field(default=0.0, description="mean")
    sd: PositiveNumber = Field(default=1.0, description="standard deviation")
    q: PositiveNumber = _Q

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return normal(self.mean, self.sd, self.q)


class RandInt(Domain):
    """An integer, uniform; `high` is exclusive."""

    type: Literal["randint"]
    low: Int64 = _LOW
    high: Int64 = _INT_HIGH

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return Multiples(self.low, self.high - 1)


class QRandInt(Domain):
    """An integer that is a multiple of `q`, each as likely."""

    type: Literal["qrandint"]
    low: Int64 = _Q_LOW
    high: Int64 = _Q_INT_HIGH
    q: PositiveInteger = Field(default=1, description="the values are its multiples between the bounds")

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return multiples(self.low, self.high - (self.q == 1), self.q)


class LogRandInt(Domain):
    """An integer, uniform in its logarithm; `high` is exclusive."""

    type: Literal["lograndint"]
    low: Int64 = _LOW
    high: Int64 = _INT_HIGH
    base: Number | None = _BASE

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return Multiples(self.low, self.high - 1, log=True)


class QLogRandInt(Domain):
    """An integer that is a multiple of `q`, uniform in the logarithm."""

    type: Literal["qlograndint"]
    low: Int64 = _Q_LOW
    high: Int64 = _Q_INT_HIGH
    q: PositiveInteger = _Q
    base: Number | None = _BASE

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return multiples(self.low, self.high - (self.q == 1), self.q, log=True)


class Choice(Domain):
    """One of a list of values, each as likely.

    A value may hold domains of its own: in `{name: sgd, momentum: {type: uniform, low: 0, high: 1}}` the momentum is
    sampled only in the trials that choose it.
    """

    renamed: ClassVar[Mapping[str, str]] = {"categories": "choices"}

    type: Literal["choice"]
    choices: list[Any] = Field(
        min_length=1,
        description="the values: text, numbers, booleans, null, lists, mappings (with domains in them, which count "
        "only where the mapping is chosen) or domains",
    )


class GridSearch(Domain):
    """Every value of a list in turn: the trials are all combinations of the grids, times `num_samples`."""

    type: Literal["grid_search"]
    values: list[Any] = Field(min_length=1, description="the values: text, numbers, booleans, null, lists or mappings")

    def meaning(self) -> Meaning:
        """See `Domain`."""
        return Options(tuple(self.values))


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


def within(said: Any, low: float, high: float) -> Meaning:
    """Return what is legal of a value of the search space between two bounds.

    :raises ValueError: nothing is.
    """
    meaning: Meaning = Span(low, high)
    if is_domain(said):
        meaning = DOMAINS[said["type"]].model_validate(said).meaning()
    elif isinstance(said, int):
        meaning = Multiples(-(2**63), 2**63 - 1)
    if isinstance(meaning, Multiples):
        least, most = meaning.nth(0), meaning.nth(meaning.last - meaning.first)
        return multiples(max(low, least), min(high, most), meaning.q)
    if isinstance(meaning, Span):
        low, high = max(low, meaning.low), min(high, meaning.high)
    if low > high:
        raise ValueError(f"{digits(low)} is above {digits(high)}")
    return Span(float(low), float(high))
