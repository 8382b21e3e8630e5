"""What the lint finds, and the list it is gathered in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from airflow_provider_raynode.exceptions import RayNodeError

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]
_PLAIN_KEY = re.compile(r"[^\s.\[\]]+")


class LintError(RayNodeError):
    """The file cannot be linted at all: it cannot be read, or is not YAML."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a manifest.

    :param source: file name, or what the text was called.
    :param line: line in the source, the first is 1.
    :param path: place in the document, such as `spec.templates[3].dag.tasks[0].depends`; empty for the whole document.
    :param severity: `error`: Argo refuses it or it cannot work; `warning`: allowed, and seldom meant.
    """

    source: str
    line: int
    path: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f" {self.path}:" if self.path else ""
        note = " (warning)" if self.severity == "warning" else ""
        return f"{self.source}:{self.line}:{place} {self.message}{note}"


class Findings:
    """Gathers the findings of one document; each message is kept once per place.

    :param line_of: gives the line of a path in the document.
    """

    def __init__(self, source: str, line_of: Callable[[Path], int]) -> None:
        self._source = source
        self._line_of = line_of
        self._found: dict[Finding, None] = {}

    def error(self, path: Path, message: str) -> None:
        """Add what Argo refuses or what cannot work."""
        self._add(path, message, "error")

    def warning(self, path: Path, message: str) -> None:
        """Add what is allowed, and seldom meant."""
        self._add(path, message, "warning")

    def _add(self, path: Path, message: str, severity: Severity) -> None:
        self._found[Finding(self._source, self._line_of(path), path_text(path), message, severity)] = None

    def all(self) -> list[Finding]:
        """Return the findings in the order of their lines."""
        return sorted(self._found, key=lambda finding: finding.line)


def path_text(path: Path) -> str:
    """Return a path as the file's reader sees it: `spec.templates[3].name`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_KEY.fullmatch(part) else repr(part)
            text += f".{name}" if text else name
    return text
