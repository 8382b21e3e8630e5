"""The conditions of the other kind: `when` (govaluate), and successCondition of a resource (a label selector)."""

from __future__ import annotations

import re

from airflow_provider_raynode.config._values import shown

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<word>[A-Za-z_][\w.]*|\[[^\]]*\])
    |(?P<sign>=~|!~|==|!=|<=|>=|&&|\|\||\?\?|\*\*|<<|>>|[-+*/%&|^<>!~?:,()])""",
    re.VERBOSE,
)
_COMPARE = frozenset({"==", "!=", "<", ">", "<=", ">=", "=~", "!~", "in"})
_LOGIC = frozenset({"&&", "||"})
_ARITHMETIC = frozenset({"-", "+", "*", "/", "%", "**", "&", "|", "^", "<<", ">>"})
_OTHER = frozenset({"?", ":", "??", ","})
_PREFIX = frozenset({"!", "-", "~"})
_BOOLEANS = frozenset({"true", "false"})
_REQUIREMENT = re.compile(
    r"!?[^\s=!<>,()]+(\s*(==|!=|=|<|>)\s*[^\s=!<>,()]*|\s+(in|notin)\s*\([^()]*\))?",
)


def when_problem(text: str) -> str | None:
    """Return why `when` cannot be evaluated, None where it can; the text has no template tags.

    Argo reads a word without quotes as text, and the result must be true or false.
    """
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return f"{shown(text)}: {text[at]!r} has no meaning in a condition: put text in quotes"
        if match.lastgroup != "space":
            tokens.append((str(match.lastgroup), match[0]))
        at = match.end()
    return _order_problem(tokens, text) or _result_problem(tokens, text)


def _order_problem(tokens: list[tuple[str, str]], text: str) -> str | None:
    depth, needs_value, last = 0, True, ("", "")
    for kind, word in tokens:
        if word == "(" and kind == "sign":
            depth += 1
            needs_value = True
        elif word == ")" and kind == "sign":
            depth -= 1
            if depth < 0 or needs_value:
                return f"{shown(text)}: ')' is not expected"
        elif needs_value and kind == "sign":
            if word not in _PREFIX:
                return f"{shown(text)}: {word!r} stands where a value is expected"
        elif kind == "sign" or (word == "in" and kind == "word"):
            if word in _ARITHMETIC and last[0] == "word" and last[1] not in _BOOLEANS:
                return f"{shown(text)}: {word!r} after {last[1]!r} would be arithmetic: put the text in quotes"
            needs_value = True
        elif not needs_value:
            return f"{shown(text)}: an operator is missing before {word!r}"
        else:
            needs_value = False
        last = (kind, word)
    if depth > 0:
        return f"{shown(text)}: '(' is not closed"
    return f"{shown(text)} ends where a value is expected" if needs_value else None


def _result_problem(tokens: list[tuple[str, str]], text: str) -> str | None:
    if any(word in _COMPARE | _LOGIC | {"!", "?"} for kind, word in tokens if kind != "text"):
        return None
    values = [word for kind, word in tokens if kind != "sign"]
    if values and all(word in _BOOLEANS for word in values):
        return None
    return f'{shown(text)} is not true or false: compare it with something, as in "{{{{item}}}}" == "a"'


def selector_problem(text: str) -> str | None:
    """Return why a successCondition or failureCondition is none, None where it is.

    It is a label selector over the object's fields: `status.phase == Done, status.count > 1`.
    """
    for part in re.split(r",(?![^()]*\))", text):
        if not _REQUIREMENT.fullmatch(part.strip()):
            return (
                f"{shown(part.strip())} is no condition: write FIELD == VALUE, FIELD in (A,B), FIELD > 1;"
                " a comma joins several"
            )
    return None
