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
class _Field:
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()

    def number(self, text: str) -> int | None:
        word = text.lower()
        if word in self.words:
            return self.words.index(word) + self.least
        return int(text) if text.isascii() and text.isdigit() else None


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
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
    if len(fields) != len(_FIELDS):
        why = " (seconds or years have no place)" if len(fields) > len(_FIELDS) else ""
        return f"{text!r} has {len(fields)} fields, 5 are needed{why}: minute hour day-of-month month day-of-week"
    problems = (_field_problem(given, field) for given, field in zip(fields, _FIELDS, strict=True))
    return next((problem for problem in problems if problem), None)


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


def _field_problem(text: str, field: _Field) -> str | None:
    parts = [part for part in text.split(",") if part]
    if not parts:
        return f"{field.name} {text!r} is empty: write * for every one"
    return next((problem for part in parts if (problem := _part_problem(part, field))), None)


def _part_problem(text: str, field: _Field) -> str | None:
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


def _end_problem(text: str, number: int | None, field: _Field) -> str | None:
    if number is None:
        if _SPECIAL.search(text):
            return f"{field.name} {text!r}: #, L and W are not known to Argo"
        names = f" or a name ({field.words[0]}-{field.words[-1]})" if field.words else ""
        return f"{field.name} {text!r} is no number{names}"
    if field.least <= number <= field.most:
        return None
    remedy = ": write Sunday as 0" if field.words is _DAYS and number == 7 else ""
    return f"{field.name} {number} is out of {field.least}-{field.most}{remedy}"
