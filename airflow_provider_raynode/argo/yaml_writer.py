"""YAML with comments: block style, keys in the given order, equal data as equal text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Text that is itself when it is written without quotes, in YAML 1.1 and 1.2.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"])
_WIDTH = 100
# What is longer is folded, so that no line needs scrolling.
_LONGEST = 120
_ENTRY_KEYS = 3


@dataclass(frozen=True)
class Commented:
    """A value with a comment of its own in the lines above it."""

    value: Any
    comment: str


def write_yaml(value: Mapping[str, Any], *, header: str = "") -> str:
    """Return one document.

    :param value: JSON data; a `Commented` may stand for any value of a mapping and any item of a list.
    :param header: a comment at its beginning.
    """
    lines = [*_comment(header, ""), *_mapping(value, "")]
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, each in value.items():
        if isinstance(each, Commented):
            yield from _comment(each.comment, indent)
            each = each.value
        yield from _entry(f"{indent}{_scalar(key)}:", each, indent)


def _entry(front: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield front
        yield from _mapping(value, f"{indent}  ")
    elif isinstance(value, list | tuple) and value:
        if _is_short(value):
            yield f"{front} [{', '.join(map(_scalar, value))}]"
            return
        yield front
        yield from _items(value, f"{indent}  ")
    elif isinstance(value, str) and "\n" in value and _fits_block(value):
        yield f"{front} {_block_mark(value)}"
        yield from (f"{indent}  {line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    elif isinstance(value, str) and len(front) + len(value) > _LONGEST and _can_be_folded(value):
        yield f"{front} >-"
        yield from (f"{indent}  {line}" for line in _folded(value))
    else:
        yield f"{front} {_scalar(value)}"


def _items(values: list[Any] | tuple[Any, ...], indent: str) -> Iterator[str]:
    for each in values:
        if isinstance(each, Commented):
            yield from _comment(each.comment, indent)
            each = each.value
        if isinstance(each, Mapping) and _is_entry(each):
            yield f"{indent}- {_flow(each)}"
        elif isinstance(each, Mapping) and each:
            lines = list(_mapping(each, f"{indent}  "))
            # The first key stands on the line of the dash, its comment above it.
            first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from (line[2:] for line in lines[:first])
            yield f"{indent}- {lines[first][len(indent) + 2 :]}"
            yield from lines[first + 1 :]
        elif isinstance(each, list | tuple) and each:
            yield f"{indent}- {_flow(each)}"
        else:
            yield from _entry(f"{indent}-", each, indent)


def _is_short(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list reads best on one line: a few numbers or plain words."""
    if any(isinstance(each, Commented | Mapping | list | tuple) for each in values):
        return False
    texts = [_scalar(each) for each in values]
    return sum(map(len, texts)) < _WIDTH and all(text[0] != '"' for text in texts)


def _is_entry(value: Mapping[str, Any]) -> bool:
    """Whether a mapping in a list reads best on one line: a name with what belongs to it."""
    if not 1 <= len(value) <= _ENTRY_KEYS or "template" in value or _has_more(value):
        return False
    return len(_flow(value)) <= _WIDTH


def _has_more(value: Any) -> bool:
    """Whether a value needs lines of its own: a comment, or text of several lines."""
    if isinstance(value, Mapping):
        return any(map(_has_more, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_more, value))
    return isinstance(value, Commented) or (isinstance(value, str) and "\n" in value)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_scalar(key)}: {_flow(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not value.endswith(":"):
        return value
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    # JSON's strings are YAML's double-quoted ones; what cannot be printed YAML wants escaped.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _fits_block(text: str) -> bool:
    body = text.removesuffix("\n")
    if not body or body.startswith((" ", "\n")) or body.endswith("\n"):
        return False
    return all(character.isprintable() or character == "\n" for character in body)


def _can_be_folded(text: str) -> bool:
    """Whether a text is the same with line breaks in the place of some of its spaces."""
    return " " in text and text.isprintable() and all(text.split(" "))


def _folded(text: str) -> Iterator[str]:
    """Yield the lines of a text, broken before `&&` rather than within what it joins."""
    line = ""
    for part in re.split(r" (?=&& )", text):
        for piece in [part] if len(part) <= _WIDTH else part.split(" "):
            if line and len(line) + len(piece) >= _WIDTH:
                yield line
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    yield line


def _block_mark(text: str) -> str:
    return "|" if text.endswith("\n") else "|-"


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"{indent}# {line}".rstrip()
