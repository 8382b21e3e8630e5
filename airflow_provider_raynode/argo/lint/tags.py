"""Template tags in a text: `{{inputs.parameters.x}}`, and `{{= expression }}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Tag:
    """One tag.

    :param text: what is between the braces, without the `=` of an expression and without white space around it.
    """

    text: str
    is_expression: bool


def tags(text: str) -> list[Tag]:
    """Return the tags of a text in their order; like Argo, a tag ends at the first `}}`."""
    found = []
    for match in _TAG.finditer(text):
        inner = match[1].strip()
        found.append(Tag(inner.removeprefix("=").strip(), inner.startswith("=")))
    return found


def unclosed(text: str) -> str | None:
    """Return the start of a tag that has no `}}`, None where every tag is closed."""
    rest = _TAG.sub("", text)
    at = rest.find("{{")
    return None if at < 0 else rest[at : at + 20]


def without_tags(text: str, instead: str = "0") -> str:
    """Return a text with every tag replaced."""
    return _TAG.sub(lambda _: instead, text)
