"""Cron lines as Argo parses them: five fields or a descriptor, by the standard parser of Go's robfig/cron v3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from airflow_provider_raynode.argo.lint.duration import go_duration_problem

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_SPECIAL = re.compile(r"[#LW]|(?<=[0-9])[lw]")


@dataclass(frozen=True)
class CronField:
    """One of the five fields, with the least and the greatest value and the words for them."""

    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()

    def values(self) -> range:
        """Return all values of the field."""
        return range(self.least, self.most + 1)

    def number(self, text: str) -> int | None:
        """Return the number that a text says, None where it says none."""
        word = text.lower()
        if word in self.words:
            return self.words.index(word) + self.least
        return int(text) if text.isascii() and text.isdigit() else None


FIELDS = (
    CronField("minute", 0, 59),
    CronField("hour", 0, 23),
    CronField("day of month", 1, 31),
    CronField("month", 1, 12, _MONTHS),
    CronField("day of week", 0, 6, _DAYS),
)


def cron_problem(text: str) -> str | None:
    """Return why Argo does not take a cron line, None where it does.

    >>> cron_problem("*/5 8-18 * * mon-fri")
    >>> cron_problem("0 0 * * 7")
    'day of week 7 is out of 0-6: write Sunday as 0'
    """
    zone, _, rest = text.partition(" ")
    if zone.startswith(("TZ=", "CRON_TZ=")):
        if problem := timezone_problem(zone.partition("=")[2]):
            return problem
        text = rest.strip()
    if text.startswith("@"):
        return _descriptor_problem(text)
    fields = text.split()
    if len(fields) != len(FIELDS):
        why = " (seconds or years have no place)" if len(fields) > len(FIELDS) else ""
        return f"{text!r} has {len(fields)} fields, 5 are needed{why}: minute hour day-of-month month day-of-week"
    problems = (_field_problem(given, field) for given, field in zip(fields, FIELDS, strict=True))
    return next((problem for problem in problems if problem), None)


def field_values(text: str, field: CronField) -> tuple[frozenset[int], bool] | None:
    """Return the values of a field and whether it counts as a star, None where Argo does not take it.

    As getRange of robfig/cron 3.0.1: `?` is a star, `a/n` goes on to the end, and a star with a step above 1 is none.
    """
    if _field_problem(text, field):
        return None
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step = part.partition("/")
        every = int(step) if slash else 1
        low, dash, high = span.partition("-")
        if low in ("*", "?"):
            values.update(field.values()[::every])
            star = star or every == 1
        elif part:
            first = field.number(low) or 0
            last = (field.number(high) or 0) if dash else field.most if slash else first
            values.update(range(first, last + 1, every))
    return frozenset(values), star


def timezone_problem(name: str) -> str | None:
    """Return why a name is no IANA time zone, None where it is."""
    if name in ("", "Local"):
        return None
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return f"{name!r} is no time zone: write an IANA name such as Europe/Berlin or UTC"
    return None


def _descriptor_problem(text: str) -> str | None:
    if text in _DESCRIPTORS:
        return None
    if text.startswith("@every "):
        return go_duration_problem(text.removeprefix("@every "))
    return f"{text!r} is no descriptor: allowed are {', '.join(_DESCRIPTORS)} and @every with a duration"


def _field_problem(text: str, field: CronField) -> str | None:
    parts = [part for part in text.split(",") if part]
    if not parts:
        return f"{field.name} {text!r} is empty: write * for every one"
    return next((problem for part in parts if (problem := _part_problem(part, field))), None)


def _part_problem(text: str, field: CronField) -> str | None:
    span, slash, step = text.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        return f"{field.name} {text!r}: a step is a whole number above 0, as in */5"
    if span in ("*", "?"):
        return None
    ends = span.split("-")
    if len(ends) > 2:
        return f"{field.name} {text!r} has too many hyphens: write from-to"
    numbers = [field.number(end) for end in ends]
    for end, number in zip(ends, numbers, strict=True):
        if problem := _end_problem(end, number, field):
            return problem
    if len(numbers) == 2 and (numbers[0] or 0) > (numbers[1] or 0):
        remedy = f"{ends[0]}-{field.most},{field.least}-{ends[1]}"
        return f"{field.name} {text!r} ends before it starts: write {remedy}"
    return None


def _end_problem(text: str, number: int | None, field: CronField) -> str | None:
    if number is None:
        if _SPECIAL.search(text):
            return f"{field.name} {text!r}: #, L and W are not known to Argo"
        names = f" or a name ({field.words[0]}-{field.words[-1]})" if field.words else ""
        return f"{field.name} {text!r} is no number{names}"
    if field.least <= number <= field.most:
        return None
    remedy = ": write Sunday as 0" if field.words is _DAYS and number == 7 else ""
    return f"{field.name} {number} is out of {field.least}-{field.most}{remedy}"
