"""Reads parts of a manifest whose kinds may be wrong: what is of another kind counts as not there.

The wrong kind itself is found by the field-level validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_raynode.argo.lint.finding import Path


def mapping(data: Any, *keys: str) -> dict[str, Any]:
    """Return the mapping under `keys`, empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def entries(data: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the mappings of a list with their places."""
    if isinstance(data, list):
        for index, each in enumerate(data):
            if isinstance(each, dict):
                yield (*path, index), each


def elements(data: Any) -> list[Any]:
    """Return a list, empty where it is none."""
    return data if isinstance(data, list) else []


def text(data: Any) -> str:
    """Return a text, empty where it is none."""
    return data if isinstance(data, str) else ""


def names(data: Any) -> list[str]:
    """Return the `name` of each mapping of a list."""
    return [text(each.get("name")) for _, each in entries(data, ())]


def has_tag(data: Any) -> bool:
    """Whether a value is a text with a template tag: what it will be is not known yet."""
    return isinstance(data, str) and "{{" in data


def whole(data: Any) -> int | None:
    """Return a whole number, written as one or as text; None for anything else."""
    if isinstance(data, bool):
        return None
    if isinstance(data, int):
        return data
    digits = data.removeprefix("-") if isinstance(data, str) else ""
    return int(data) if digits.isascii() and digits.isdigit() else None


def scalar_text(data: Any) -> str:
    """Return a scalar as the text that Argo makes of it."""
    return str(data).lower() if isinstance(data, bool) else str(data)
