"""Reading the config file: YAML with the scalars of YAML 1.2, and no key twice.

PyYAML reads YAML 1.1, where `1e-4` is a text, `no` a boolean, `1:30` ninety and a date an object: each a silent wrong
value in a search space. Here only `true` and `false` are booleans, and `1e-4` is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_raynode.config._section import Loc, Problem
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.exceptions import ConfigError

_DEEPEST = 64
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-9_]+)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain scalars; merge keys and anchors stay."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            mark = key_node.start_mark
            try:
                first = seen.setdefault(key, mark)
            except TypeError:
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", mark) from None
            if first is not mark:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice, first on line {first.line + 1}", mark
                )
        return super().construct_mapping(node, deep)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    return int(text, base)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"({_INTEGER.pattern})$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"({_FLOAT.pattern})$"), list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"(<<)$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: Path, *, may_be_empty: bool = False) -> dict[Any, Any]:
    """Return the mapping that a YAML file holds.

    :param may_be_empty: whether a file without anything is an empty mapping.

    :raises ConfigError: the file is missing, a folder, unreadable, empty, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: the file does not exist (looked from {Path.cwd()})") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a YAML file is needed") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not a path ({error})") from None
    try:
        # The loader is a SafeLoader: plain data only.
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_where(error)}: not valid YAML: {_what(error)}") from None
    if value is None and may_be_empty:
        return {}
    if value is None:
        raise ConfigError(
            f"{path}: the file is empty; say what runs (ray_tune, ray_train, ray_map), or {{}} for the function alone"
        )
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the top level is {_kind(value)}, not a mapping (name: value)")
    return value


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""


def _what(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    text = f"{context}: {problem}" if context else problem
    return text + (" (indent with spaces)" if "'\\t'" in text else "")


def _kind(value: Any) -> str:
    names = {"list": "a list", "str": "a text"}
    return names.get(type(value).__name__, f"of type {type(value).__name__}")


def plain(value: Any, loc: Loc, found: list[Problem]) -> Any:
    """Return `value` with only what JSON can hold, tuples as lists; what is not is added to `found`."""
    if len(loc) > _DEEPEST:
        found.append((loc[:4], f"is nested deeper than {_DEEPEST} levels (an alias that contains itself?)"))
        return None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                found.append((loc, f"the key {key!r} is not text: put it in quotes"))
        return {key: plain(each, (*loc, key), found) for key, each in value.items() if isinstance(key, str)}
    if isinstance(value, list | tuple):
        return [plain(each, (*loc, index), found) for index, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        found.append((loc, f"{value} is not a finite number"))
        return None
    if value is None or type(value) in (str, int, float, bool):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    found.append((loc, f"{shown(value)} is of type {kind}: allowed are text, numbers, booleans, lists and mappings"))
    return None
