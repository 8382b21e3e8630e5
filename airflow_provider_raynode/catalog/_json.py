"""The kind `json`: what JSON holds without changing it."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer


class JsonSerializer(Serializer):
    """JSON, UTF-8. Chosen for values that come back equal and of the same types: no tuples, NaN, or number keys."""

    kind = "json"
    suffix = ".json"

    def accepts(self, value: Any) -> bool:
        """Whether JSON holds `value` exactly."""
        return is_exact(value)

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write JSON; NaN and infinity are refused, since no JSON has them."""
        # What Python's own text may hold, a lone surrogate, json.loads takes back the same way.
        stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass"))

    def load(self, data: bytearray, name: str) -> Any:
        """Return the value."""
        return json.loads(data)


def is_exact(value: Any) -> bool:
    """Whether `value` comes back from JSON equal and with the same types, in any depth."""
    if value is None or isinstance(value, bool | str):
        return type(value) in (type(None), bool, str)
    if isinstance(value, int):
        return type(value) is int
    if isinstance(value, float):
        return type(value) is float and value - value == 0  # neither NaN nor infinite
    try:
        if type(value) is list:
            return all(map(is_exact, value))
        if type(value) is dict:
            return all(type(key) is str for key in value) and all(map(is_exact, value.values()))
    except RecursionError:
        return False
    return False
