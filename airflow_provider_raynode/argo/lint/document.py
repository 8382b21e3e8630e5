"""YAML documents as plain data, with the line of every value: parsed once, the way Argo's YAML library reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from airflow_provider_raynode.argo.lint.finding import LintError, Path

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"yes", "true", "on"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
# More values than this come of aliases that repeat each other, never of a file that someone means.
_MOST_VALUES = 2_000_000


class Document:
    """One document of a file.

    :param root: its node, as PyYAML composes it.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self.problems: list[tuple[Path, int, str]] = []
        """What is wrong with the YAML itself: place, line, message."""
        self._known: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()
        self.data, size = self._value(root, ())
        if size > _MOST_VALUES:
            self.problems.append(((), self.first_line, f"aliases expand it to {size} values: write it out, in parts"))
            self.data = None

    @property
    def first_line(self) -> int:
        """The line on which the document starts."""
        return int(self._root.start_mark.line) + 1

    def line_of(self, path: Path) -> int:
        """Return the line of a value: of its key in a mapping, of its first character in a list.

        A path that leads out of the document has the line of its last part that is there.
        """
        node, line = self._root, self.first_line
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def _value(self, node: Node, path: Path) -> tuple[Any, int]:
        """Return a node's value, and how many values it is with all aliases written out."""
        key = id(node)
        if key in self._known:
            return self._known[key]
        if isinstance(node, ScalarNode):
            result = (_scalar(node), 1)
        elif key in self._open:
            self._problem(node, path, "an alias inside of its own anchor")
            return None, 1
        else:
            self._open.add(key)
            result = self._list(node, path) if isinstance(node, SequenceNode) else self._mapping(node, path)
            self._open.discard(key)
        self._known[key] = result
        return result

    def _list(self, node: SequenceNode, path: Path) -> tuple[list[Any], int]:
        values, total = [], 1
        for index, child in enumerate(node.value):
            value, size = self._value(child, (*path, index))
            values.append(value)
            total += size
        return values, total

    def _mapping(self, node: Any, path: Path) -> tuple[dict[str, Any], int]:
        data: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        total = 1
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged.update(self._merged(value_node, path))
                continue
            if not isinstance(key_node, ScalarNode):
                self._problem(key_node, path, "a key that is a list or a mapping: keys are text")
                continue
            key = str(key_node.value)
            value, size = self._value(value_node, (*path, key))
            if key in data:
                self._problem(key_node, (*path, key), f"the key {key!r} is given twice: only the last would count")
            data[key] = value
            total += size
        return {**merged, **data}, total

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        found: dict[str, Any] = {}
        for each in reversed(nodes):
            value, _ = self._value(each, path)
            if isinstance(value, dict):
                found.update(value)
            else:
                self._problem(each, path, "'<<' takes a mapping, or a list of mappings")
        return found

    def _problem(self, node: Node, path: Path, message: str) -> None:
        self.problems.append((path, int(node.start_mark.line) + 1, message))


def documents(text: str, source: str) -> Iterator[Document]:
    """Yield the documents of a YAML text; empty ones are left out.

    :raises LintError: the text is not YAML.
    """
    try:
        for root in yaml.compose_all(text, Loader=_LOADER):
            if root is not None and not (isinstance(root, ScalarNode) and root.tag == f"{_TAG}null"):
                yield Document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        words = "; ".join(part for part in (error.context, error.problem) if part)
        raise LintError(f"{where}: not YAML: {words}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise LintError(f"{source}: not YAML: {error or 'nested too deep'}") from error


def plain_data(text: str) -> Any:
    """Return the value of a YAML text inside of a field.

    :raises LintError: the text is not YAML, or has keys twice; the message says where, its first line is 1.
    """
    found = list(documents(text, "line"))
    for document in found:
        for _, line, message in document.problems:
            raise LintError(f"line:{line}: {message}")
    return found[0].data if len(found) == 1 else [document.data for document in found]


def _child(node: Node, part: str | int) -> tuple[int, Node] | None:
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return int(child.start_mark.line) + 1, child
    if isinstance(node, MappingNode):
        for key, value in reversed(node.value):
            if key.value == part:
                return int(key.start_mark.line) + 1, value
    return None


def _scalar(node: ScalarNode) -> Any:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in _TRUE
    if kind == "int" and ":" not in text:
        # 1:30 is 90 for PyYAML, and text for Argo.
        return int(text.replace("_", "")) if _INTEGER.fullmatch(text) else _other_integer(text)
    if kind == "float" and ":" not in text:
        return _float(text)
    return text


def _other_integer(text: str) -> Any:
    digits = text.replace("_", "")
    try:
        return int(digits, 0)
    except ValueError:
        return int(digits, 8) if digits.lstrip("+-").isdigit() else text


def _float(text: str) -> float:
    # YAML writes infinity and not-a-number with a dot in front.
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
