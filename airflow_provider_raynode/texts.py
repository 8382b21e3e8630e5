"""Texts that every store, log and console can hold. Pure: no airflow, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def clean(text: str) -> str:
    """Return `text` with lone surrogates (a file name that is not UTF-8, say) written out: `\\udce9`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, length: int) -> str:
    """Return `text`, or where it is longer than `length`, its two ends and a note on what was between, as long."""
    if len(text) <= length:
        return text
    note = f" … [{len(text) - length:,} characters and more left out] … "
    ends = max(length - len(note), 0)
    return f"{text[: ends // 2]}{note}{text[len(text) - (ends - ends // 2) :]}"


def cleaned(value: Any) -> Any:
    """Return a JSON value with every text in it clean, keys too; what has nothing to clean is equal."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(key) if isinstance(key, str) else key: cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value
