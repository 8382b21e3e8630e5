"""What trials tried and reported, as the columns of a table that keep their types. Imports no Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.runtime.outputs import sanitised

if TYPE_CHECKING:
    import pandas as pd

# A trial's whole config as JSON: what its columns `config/…` cannot say of types and of names with a slash.
CONFIG_COLUMN = "config"
# The columns that are the table's own, beside `config/…`.
OWN_COLUMNS = frozenset({"trial_id", "status", "error", CONFIG_COLUMN})
_LARGEST = 2**63 - 1


def metric_column(name: str) -> str:
    """Return the column of a metric: its name, below `metrics/` where that is a column of the table's own."""
    if name in OWN_COLUMNS or name.startswith(("config/", "metrics/")):
        return f"metrics/{name}"
    return name


def plain(value: Any) -> Any:
    """Return a value as JSON has it, but with NaN and infinity as they are; text that UTF-8 cannot hold is escaped."""
    if isinstance(value, float) and not math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = sanitised(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by path, `net/layers`, as plain ones."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}/"))
        else:
            found[f"{prefix}{name}"] = plain(value)
    return found


def kind_of(value: Any) -> str:
    """Return what type of column holds a plain value: a name for `column`; empty for None, which any column holds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_LARGEST <= value <= _LARGEST else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "str"
    if isinstance(value, list):
        inner = common_kind(map(kind_of, value))
        return f"list:{inner}" if not inner.startswith("list") else "json"
    return "json"


def common_kind(kinds: Iterable[str]) -> str:
    """Return the type of a column that holds values of all these types: JSON text where no other does."""
    found = set(kinds) - {""}
    if not found:
        return ""
    if found == {"int", "float"}:
        return "float"
    if all(kind.startswith("list:") for kind in found):
        inner = common_kind(kind.removeprefix("list:") for kind in found)
        return "json" if inner in ("", "json") else f"list:{inner}"
    return found.pop() if len(found) == 1 else "json"


def column(values: list[Any], kind: str) -> pd.Series[Any]:
    """Return plain values as a column of one type; Parquet has no other."""
    import pandas as pd

    gaps = any(value is None for value in values)
    if kind == "int":
        return pd.Series(values, dtype="Int64" if gaps else "int64")
    if kind == "bool":
        return pd.Series(values, dtype="boolean" if gaps else "bool")
    if kind == "float":
        return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
    if kind == "list:float":
        values = [
            None if value is None else [None if item is None else float(item) for item in value] for value in values
        ]
    elif kind == "json":
        values = [None if value is None else json.dumps(sanitised(value)) for value in values]
    return pd.Series(values, dtype="object")


def frame(rows: list[dict[str, Any]], kinds: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return rows of plain values as a table.

    :param kinds: the type of each column; None: those that the rows need.
    """
    import pandas as pd

    if kinds is None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        kinds = {name: common_kind(kind_of(row.get(name)) for row in rows) for name in names}
    return pd.DataFrame({name: column([row.get(name) for row in rows], kind) for name, kind in kinds.items()})
