"""`when`, loops, durations: the small languages around a task."""

from __future__ import annotations

import json
import re
from typing import Any

from argo_simulator.documents import any_string
from argo_simulator.errors import ExpressionError, TemplateError
from argo_simulator.expressions import as_text, evaluate

_COMPARISON = re.compile(r"(.*?)(==|!=)(.*)", re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def should_execute(when: str) -> bool:
    """Evaluate a `when` whose tags are replaced.

    The controller uses govaluate, where a bare word is a string. Only true, false, one comparison of two words or
    quoted strings, and what expr makes of the rest are known here.
    """
    text = when.strip()
    if not text or text == "true":
        return True
    if text == "false":
        return False
    if "{{" in text or "}}" in text:
        raise TemplateError(f"Invalid 'when' expression '{when}': a tag is left in it")
    if not re.search(r"&&|\|\||[()<>]", text) and (match := _COMPARISON.fullmatch(text)):
        first, operator, second = (each.strip() for each in match.groups())
        if not first or not second:
            raise TemplateError(f"Invalid 'when' expression '{when}': an empty operand")
        return (_bare(first) == _bare(second)) == (operator == "==")
    try:
        value = evaluate(text, {})
    except ExpressionError as error:
        raise TemplateError(f"Invalid 'when' expression '{when}': {error}") from error
    if not isinstance(value, bool):
        raise TemplateError(f"Expected boolean evaluation for '{when}'. Got {value!r}")
    return value


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def is_loop(task: dict[str, Any]) -> bool:
    """Whether a task expands. An empty `withItems` does not: the task then runs once, as it is."""
    return bool(task.get("withItems") or task.get("withParam") or task.get("withSequence"))


def items_of(task: dict[str, Any]) -> list[Any]:
    """Return a loop's items.

    :raises TemplateError: they are no list; a task that is skipped anyway has none.
    """
    if task.get("withItems"):
        return list(task["withItems"])
    try:
        return _sequence(task["withSequence"]) if task.get("withSequence") else _parameter_items(task["withParam"])
    except TemplateError:
        try:
            if not should_execute(task.get("when") or ""):
                return []
        except TemplateError:
            pass
        raise


def _parameter_items(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise TemplateError(f"withParam value could not be parsed as a JSON list: {text.strip()}: {error}") from error
    if found is None:
        return []
    if not isinstance(found, list):
        raise TemplateError(f"withParam value could not be parsed as a JSON list: {text.strip()}")
    return found


def _sequence(sequence: dict[str, Any]) -> list[Any]:
    try:
        start = int(sequence.get("start", 0))
        end = int(sequence["end"]) if "end" in sequence else start + int(sequence.get("count", 0)) - 1
    except ValueError as error:
        raise TemplateError(f"failed to parse the sequence: {error}") from error
    step = 1 if end >= start or "count" in sequence else -1
    form = sequence.get("format") or "%d"
    return [form % each for each in range(start, end + step, step)]


def item_variables(item: Any) -> dict[str, Any]:
    if isinstance(item, dict):
        return {"item": as_text(item), **{f"item.{key}": any_string(value) for key, value in item.items()}}
    return {"item": item if isinstance(item, str) else as_text(item)}


def item_name(task: str, index: int, item: Any) -> str:
    """Return the name of a loop's item as Argo writes it: `task(0:value)`."""
    if isinstance(item, dict):
        shown = ",".join(f"{key}:{any_string(value)}" for key, value in sorted(item.items()))
    else:
        shown = item if isinstance(item, str) else as_text(item)
    return f"{task}({index}:{shown})"


def seconds(duration: Any) -> float:
    """Parse `300`, `300s` or `1h30m`."""
    text = any_string(duration)
    if re.fullmatch(r"\d+", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise TemplateError(f"unable to parse {text!r} as a duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
