"""The plain values of the settings: names as Kubernetes takes them, durations as Argo reads them, and Argo's braces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from airflow_provider_raynode.config._section import Loc, Problem, as_validation_error, problems_of
from airflow_provider_raynode.config._values import Text, as_integer, shown

T = TypeVar("T")

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+")


def collected(title: str, convert: Callable[..., T], parts: Iterable[tuple[Loc, tuple[Any, ...]]]) -> list[T]:
    """Return `convert` of each part, which is a place and arguments; all that is wrong is collected, place in front.

    :raises ValidationError: at least one part is wrong.
    """
    found: list[Problem] = []
    made: list[T] = []
    for loc, arguments in parts:
        try:
            made.append(convert(*arguments))
        except ValidationError as error:
            found += [((*loc, *below), message) for below, message in problems_of(error)]
        except ValueError as error:
            found.append((loc, str(error)))
    if found:
        raise as_validation_error(title, found)
    return made


def mapping(value: Any) -> Mapping[str, Any]:
    """Return `value`.

    :raises ValueError: it is no mapping.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is not a mapping (key: value)")
    return value


def named_entries(value: Any, name: str) -> Iterator[tuple[Loc, str, Any]]:
    """Yield place, name and body of each entry of a mapping by name, or of Kubernetes' list with a `name` in each.

    :raises ValueError: neither; an entry of the list without its name, or a name twice.
    """
    if isinstance(value, Mapping):
        yield from (((key,), key, body) for key, body in value.items())
        return
    if not isinstance(value, list):
        # The value stays out of the message: it may hold a secret.
        raise ValueError(
            f"is of type {type(value).__name__}, neither a mapping (name: …) nor a list with {name} in each"
        )
    seen: set[str] = set()
    for index, entry in enumerate(value):
        if not isinstance(entry, Mapping) or not isinstance(entry.get(name), str):
            raise as_validation_error("entries", [((index,), f"has no {name}: each entry of the list needs one")])
        if entry[name] in seen:
            raise as_validation_error("entries", [((index, name), f"{entry[name]!r} is there twice")])
        seen.add(entry[name])
        yield (index,), entry[name], {key: each for key, each in entry.items() if key != name}


def brace_problems(value: Any, loc: Loc = ()) -> Iterator[Problem]:
    """Yield each text, key or value, whose `{{` is not closed.

    Argo puts its values into the text of the whole template: an open `{{` would swallow what stands behind it.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not _closed(key):
                yield (*loc, key), _open_braces("the key")
            yield from brace_problems(each, (*loc, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from brace_problems(each, (*loc, index))
    elif isinstance(value, str) and not _closed(value):
        yield loc, _open_braces("the text")


def _open_braces(what: str) -> str:
    # The text itself stays out of the message: it may be a secret.
    return f"{what} has a {{{{ without its }}}}: Argo reads {{{{…}}}} as a variable and would fail; close it or drop it"


def _closed(text: str) -> bool:
    start = text.find("{{")
    while start >= 0:
        end = text.find("}}", start + 2)
        if end < 0:
            return False
        start = text.find("{{", end + 2)
    return True


def _matching(pattern: str, longest: int, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(
                f"{shown(value)} is not a name that Kubernetes takes: {rule}, at most {longest} characters"
            )
        return value

    return AfterValidator(check)


_SMALL = "lower-case letters, digits and -, a letter or digit at both ends"
ObjectName = Annotated[Text, _matching(rf"{_LABEL}(\.{_LABEL})*", 253, f"{_SMALL}; . between such parts")]
"""Name of a Secret, ConfigMap, claim, service account or priority class."""
LabelName = Annotated[Text, _matching(_LABEL, 63, _SMALL)]
"""Name of a namespace, volume or container."""
WorkflowName = Annotated[Text, _matching(rf"{_LABEL}(\.{_LABEL})*", 63, f"{_SMALL}; . between such parts")]
DataKey = Annotated[Text, _matching(r"[-._a-zA-Z0-9]+", 253, "letters, digits, -, _ and .")]
"""Key in a Secret or ConfigMap."""


def environment_name(name: str) -> str:
    """Return the name of an environment variable.

    :raises ValueError: Kubernetes refuses it.
    """
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is not a name of an environment variable: letters, digits, _, - and ., no digit first"
        )
    return name


def _key_problem(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    good = re.fullmatch(_QUALIFIED, name) and len(name) <= 63
    if slash:
        good = good and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", prefix) and len(prefix) <= 253
    return None if good else "is not a key that Kubernetes takes: [domain/]name, letters, digits, -, _ and ."


def label(key: str, value: Any) -> str | None:
    """Return the value of a label, null as it is.

    :raises ValueError: Kubernetes refuses key or value.
    """
    annotation(key, value)
    if value and (len(value) > 63 or not re.fullmatch(_QUALIFIED, value)) and "{{" not in value:
        raise ValueError(f"{shown(value)} is not a label's value: at most 63 letters, digits, -, _ and .")
    return None if value is None else str(value)


def annotation(key: str, value: Any) -> str | None:
    """Return the value of an annotation, null as it is.

    :raises ValueError: Kubernetes refuses the key, or the value is no text.
    """
    problem = _key_problem(key)
    if problem:
        raise ValueError(problem)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: put it in quotes")
    return value


def by_name(title: str, value: Any, name: str, convert: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Return name -> `convert(name, body)` of `named_entries`; all that is wrong is collected.

    :raises ValueError: see `named_entries`, or `convert` refused an entry.
    """
    entries = list(named_entries(value, name))
    made = collected(title, convert, [(loc, (key, body)) for loc, key, body in entries])
    return {key: body for (_, key, _), body in zip(entries, made, strict=True)}


def _each(convert: Callable[[str, Any], Any]) -> BeforeValidator:
    def entries(value: Any) -> Any:
        if value is None:
            return None
        given = mapping(value)
        made = collected("entries", convert, [((key,), (key, each)) for key, each in given.items()])
        return dict(zip(given, made, strict=True))

    return BeforeValidator(entries)


Labels = Annotated[dict[str, str | None], _each(label)]
"""Labels; null takes an inherited one away."""
Annotations = Annotated[dict[str, str | None], _each(annotation)]
"""Annotations; null takes an inherited one away."""


def _path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{shown(value)} is not an absolute path (/…)")
    return value if value == "/" else value.rstrip("/")


AbsolutePath = Annotated[Text, AfterValidator(_path)]


def as_seconds(value: Any) -> int:
    """Return whole seconds; `90`, `90s`, `1h30m` are understood.

    :raises ValueError: neither a whole number nor such a text, or not above 0.
    """
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = re.findall(r"([0-9.]+)(ms|[smh])", value)
        total = sum((float(number) * _UNITS[unit] for number, unit in parts), 0.0)
    else:
        try:
            total = float(as_integer(value))
        except ValueError:
            raise ValueError(f"{shown(value)} is neither seconds nor a duration such as 90s or 1h30m") from None
    if total < 1 or not total.is_integer():
        raise ValueError(f"{shown(value)} is not a whole number of seconds above 0")
    return int(total)


def as_duration(value: Any) -> str:
    """Return a duration as Argo reads it: a number of seconds becomes `90s`, a text such as `1h30m` stays.

    :raises ValueError: neither.
    """
    if isinstance(value, str) and ("{{" in value or _DURATION.fullmatch(value)):
        return value
    try:
        seconds = as_integer(value)
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise ValueError(f"{shown(value)} is not a duration: seconds, or a text such as 90s or 1h30m")
    return f"{seconds}s"


Seconds = Annotated[int, Field(ge=1), BeforeValidator(as_seconds)]
Duration = Annotated[str, BeforeValidator(as_duration)]
