"""The nodes of a run: what the controller keeps in `status.nodes`, and what a test asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FAILED = frozenset({"Failed", "Error"})
# Skipped and Omitted are fulfilled but not completed: such a node hands on the phase of what lies before it.
COMPLETED = FAILED | {"Succeeded"}


@dataclass
class Try:
    """One pod of a node.

    :ivar exit_code: of the main container; 128 + the signal where one ended it; None where it never ended.
    :ivar directory: the pod's own directory.
    """

    phase: str
    exit_code: int | None
    message: str
    log_path: Path | None
    directory: Path | None = None
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def log(self) -> str:
        """What the pod wrote to its standard output and error."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        return self.log_path.read_text(errors="replace")


@dataclass
class Node:
    """A node.

    :ivar path: names below the entry template, loop items by index: `search(1).train`; empty for the entry itself.
    :ivar name: Argo's name, with the workflow's and with the items' values: `wf.search(1:b).train`.
    :ivar kind: Argo's type: Pod, Retry, DAG, Steps, StepGroup, TaskGroup, Suspend, Skipped.
    :ivar outputs: output parameters; None where the node has no outputs at all.
    :ivar children: names of the nodes that the controller hangs below this one, which is how phases are inherited.
    """

    path: str
    name: str
    kind: str
    template: str = ""
    boundary: str = ""
    phase: str = "Running"
    message: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] | None = None
    result: str | None = None
    exit_code: int | None = None
    tries: list[Try] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    outbound: list[str] = field(default_factory=list)
    retried: bool = False
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None

    @property
    def fulfilled(self) -> bool:
        return self.phase not in ("Running", "Pending")

    @property
    def completed(self) -> bool:
        return self.phase in COMPLETED

    @property
    def failed(self) -> bool:
        return self.phase in FAILED

    @property
    def log(self) -> str:
        """The log of the last try."""
        return self.tries[-1].log if self.tries else ""

    def end(self, phase: str, message: str = "") -> Node:
        self.phase, self.message, self.finished = phase, message, datetime.now(UTC)
        return self


@dataclass
class Result:
    """A finished run.

    :ivar nodes: by path, without the single tries; the exit handler is `onExit`.
    :ivar unresolved: (path, tag) of tags that reached a pod's command, arguments or environment as they were written.
    :ivar held: the greatest number of holders at once of each semaphore or mutex.
    """

    name: str
    uid: str
    phase: str
    message: str
    nodes: dict[str, Node]
    unresolved: list[tuple[str, str]]
    held: dict[str, int]
    most_pods: int
    variables: dict[str, Any]

    def node(self, path: str) -> Node:
        if path not in self.nodes:
            raise KeyError(f"no node {path!r}; there are {', '.join(sorted(self.nodes))}")
        return self.nodes[path]

    def phases(self) -> dict[str, str]:
        return {path: node.phase for path, node in self.nodes.items()}

    def report(self) -> str:
        """Every node with its phase, message and exit codes, for a failed test's output."""
        lines = [f"{self.name}: {self.phase} {self.message}"]
        for path, node in self.nodes.items():
            codes = [each.exit_code for each in node.tries]
            lines.append(f"  {path or '(entry)'}: {node.phase} {codes if codes else ''} {node.message}")
        return "\n".join(lines)
