"""Replaces tags in the JSON of a template or task, as util/template does.

A tag whose variable is unknown stays as it is (the controller calls this "unresolved is allowed"), unless its first
word is one of the strict ones: Argo 4 waits for those, for ever, so here they are errors.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from argo_simulator.errors import ExpressionError, TemplateError
from argo_simulator.expressions import as_text, evaluate, identifiers

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
# Expressions with one of these are left for later while it has no value: it would be taken for nil.
_LATE = (
    "item",
    "retries",
    "lastRetry.exitCode",
    "lastRetry.status",
    "lastRetry.duration",
    "lastRetry.message",
    "workflow.status",
    "workflow.failures",
)
_GO_ESCAPES = dict(zip('"\\\a\b\f\n\r\t\v', ['\\"', "\\\\", *(f"\\{each}" for each in "abfnrtv")], strict=True))
_NO_END = "cannot find the end tag }} of a {{"


def replace(value: Any, variables: Mapping[str, Any], strict: tuple[str, ...] = ()) -> Any:
    """Return a JSON value with its tags replaced, in keys and values alike.

    :param variables: dotted names; a value of None is an output that is absent (a skipped task's without default).
    :raises TemplateError: a strict variable is missing, an expression fails, the result is no JSON.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "{{" not in text:
        return value
    env = nested(variables)

    def tag(match: re.Match[str]) -> str:
        inner = match.group(1)
        if inner.startswith("="):
            return _expression(inner[1:], variables, env, strict)
        return _simple(inner, variables, strict)

    replaced = _scan(text, tag)
    try:
        return json.loads(replaced)
    except json.JSONDecodeError as error:
        raise TemplateError("cannot finish template replacement because the result was invalid JSON") from error


def tags_of(value: Any) -> list[str]:
    """Return every tag in a JSON value, as written; an expression begins with `=`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    found: list[str] = []

    def keep(match: re.Match[str]) -> str:
        found.append(match.group(1))
        return ""

    _scan(text, keep)
    return found


def nested(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names as mappings of mappings; where a name has both a value and members, the members win."""
    root: dict[str, Any] = {}
    for name in sorted(variables, key=lambda each: each.count(".")):
        *parents, last = name.split(".")
        place = root
        for parent in parents:
            inner = place.get(parent)
            if not isinstance(inner, dict):
                inner = place[parent] = {}
            place = inner
        place[last] = variables[name]
    return root


def _scan(text: str, tag: Callable[[re.Match[str]], str]) -> str:
    parts, at = [], 0
    while (start := text.find("{{", at)) >= 0:
        match = _TAG.match(text, start)
        if match is None:
            raise TemplateError(f"{_NO_END} at {text[start : start + 40]!r}")
        parts += [text[at:start], tag(match)]
        at = match.end()
    return "".join([*parts, text[at:]])


def _simple(tag: str, variables: Mapping[str, Any], strict: tuple[str, ...]) -> str:
    name = tag.strip()
    if name in variables:
        value = variables[name]
        if value is None:
            raise TemplateError(f"failed to resolve {{{{{tag}}}}} to string: the output is absent")
        return _go_quoted(value)
    nested_at = tag.rfind("{{")
    if nested_at > 0 and isinstance(inner := variables.get(tag[nested_at + 2 :]), str):
        return "{{" + tag[:nested_at] + _go_quoted(inner)
    if _is_strict(name, strict):
        raise TemplateError(f"failed to resolve {{{{{tag}}}}} (Argo 4 requeues the workflow for ever)")
    return "{{" + tag + "}}"


def _expression(raw: str, variables: Mapping[str, Any], env: dict[str, Any], strict: tuple[str, ...]) -> str:
    unresolved = "{{=" + raw + "}}"
    try:
        text = json.loads(f'"{raw}"')
    except json.JSONDecodeError as error:
        raise ExpressionError(f"failed to unmarshall JSON expression: {raw}") from error
    names = identifiers(text)
    missing = {name for name in names if not _has(env, name)}
    for name in sorted(missing):
        # Looked for in the whole expression: `a && b` with a missing b is an error even where a is false.
        if _is_strict(name, strict):
            raise ExpressionError(
                f"failed to evaluate expression: {name} is missing (Argo 4 requeues the workflow for ever)"
            )
    if missing & set(_LATE):
        return unresolved
    try:
        value = evaluate(text, env)
        if value is None:
            raise ExpressionError(f"failed to evaluate expression {text!r}: it gives nil")
    except ExpressionError:
        if missing:
            return unresolved
        raise
    return json.dumps(value, ensure_ascii=False)[1:-1] if isinstance(value, str) else _go_quoted(as_text(value))


def _is_strict(name: str, strict: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in strict)


def _has(env: dict[str, Any], name: str) -> bool:
    place: Any = env
    for part in name.split("."):
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True


def _go_quoted(text: str) -> str:
    """Quote as Go's strconv.Quote does. What it writes for some characters (`\\x7f`, `\\U000e0067`) is no JSON."""
    return "".join(map(_go_character, text))


def _go_character(character: str) -> str:
    if found := _GO_ESCAPES.get(character):
        return found
    code = ord(character)
    if character == " " or unicodedata.category(character)[0] in "LMNPS":
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
