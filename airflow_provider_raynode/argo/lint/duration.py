"""Texts that say how long or how much: Go's durations, Argo's, Kubernetes' quantities."""

from __future__ import annotations

import re

_GO = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")
_SECONDS = re.compile(r"[-+]?[0-9]+")
_DAYS = re.compile(r"([0-9]+)d")
_QUANTITY = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?")


def go_duration_problem(text: str) -> str | None:
    """Return why Go does not take a text as a duration, None where it does: `90s`, `1h30m`, `1.5h`, `300ms`."""
    if _GO.fullmatch(text):
        return f"{text!r} is negative: a duration is 0 or more" if text.startswith("-") else None
    if days := _DAYS.fullmatch(text):
        return f"{text!r} is no duration, days are not known: write {int(days[1]) * 24}h"
    return f"{text!r} is no duration: write numbers with units h, m, s or ms, such as 90s or 1h30m"


def argo_duration_problem(text: str) -> str | None:
    """Return why Argo does not take a text as a duration: as Go's, and a whole number counts seconds."""
    if _SECONDS.fullmatch(text):
        return f"{text!r} is negative: a duration is 0 or more" if text.startswith("-") else None
    problem = go_duration_problem(text)
    return problem and problem.replace("write numbers with", "write seconds (30) or numbers with")


def quantity_problem(text: str) -> str | None:
    """Return why Kubernetes does not take a text as a quantity, None where it does: `500m`, `2`, `1.5Gi`."""
    if _QUANTITY.fullmatch(text):
        return None
    return f"{text!r} is no quantity: write a number with an optional unit m, k, M, G, Ki, Mi, Gi, such as 500m or 2Gi"
