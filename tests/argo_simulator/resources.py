"""Resource templates: the conditions under which their object has succeeded or failed, and outputs from it."""

from __future__ import annotations

import re
from typing import Any

from argo_simulator.documents import any_string
from argo_simulator.errors import TemplateError

_REQUIREMENT = re.compile(r"\s*([\w./\-]+)\s*(?:(==|=|!=|>|<|in|notin)\s*(\([^)]*\)|[^,\s]+))?\s*")


def verdict(body: dict[str, Any], found: dict[str, Any]) -> str:
    """Return Succeeded or Failed, or an empty string where the object is neither yet.

    One matching requirement of `failureCondition` is a failure; `successCondition` needs them all.
    """
    success, failure = body.get("successCondition") or "", body.get("failureCondition") or ""
    if any(_met(each, found) for each in _requirements(failure)):
        return "Failed"
    if all(_met(each, found) for each in _requirements(success)):
        return "Succeeded"
    return ""


def json_path(path: str, found: dict[str, Any]) -> str | None:
    """Read a plain `{.a.b}`; None where it is not there."""
    value = _read(path.strip("{} ").lstrip("."), found)
    return None if value is None else any_string(value)


def _requirements(condition: str) -> list[tuple[str, str, str]]:
    found, at = [], 0
    while at < len(condition):
        match = _REQUIREMENT.match(condition, at)
        if match is None:
            raise TemplateError(f"condition {condition!r} failed to parse")
        found.append((match.group(1), match.group(2) or "exists", match.group(3) or ""))
        at = match.end()
        if at < len(condition):
            if condition[at] != ",":
                raise TemplateError(f"condition {condition!r} failed to parse")
            at += 1
    return found


def _met(requirement: tuple[str, str, str], found: dict[str, Any]) -> bool:
    path, operator, wanted = requirement
    value = _read(path, found)
    text = None if value is None else any_string(value)
    match operator:
        case "==" | "=":
            return text == wanted
        case "!=":
            return text != wanted
        case "in":
            return text in _set(wanted)
        case "notin":
            return text not in _set(wanted)
        case "exists":
            return text is not None
    return text is not None and (float(text) > float(wanted) if operator == ">" else float(text) < float(wanted))


def _set(text: str) -> set[str]:
    return {each.strip() for each in text.strip("()").split(",")}


def _read(path: str, found: Any) -> Any:
    for part in path.split("."):
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            return None
    return found
