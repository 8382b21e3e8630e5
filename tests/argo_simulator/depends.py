"""What a DAG task waits for: `depends` or `dependencies`, as workflow/common/ancestry.go reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from argo_simulator.errors import ExpressionError, SimulationRefused, TemplateError
from argo_simulator.expressions import evaluate_bool
from argo_simulator.nodes import Node

_NAME = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9]*?\.[A-Z][a-zA-Z]+)|([a-zA-Z0-9][-a-zA-Z0-9]*)")
RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
LOOP_RESULTS = ("AnySucceeded", "AllFailed")


class Dependencies:
    """The dependencies of one DAG's tasks."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self._tasks = {task["name"]: task for task in tasks}
        self.logic: dict[str, str] = {}
        self.of: dict[str, list[str]] = {}
        self.loop_results: dict[str, set[str]] = {}
        for task in tasks:
            self._read(task)

    def ancestors(self, name: str) -> list[str]:
        """Return all the tasks before one, directly or not."""
        found: list[str] = []
        queue = list(self.of[name])
        while queue:
            each = queue.pop(0)
            if each not in found:
                found.append(each)
                queue += self.of[each]
        return found

    def leaves(self) -> list[str]:
        depended = {each for names in self.of.values() for each in names}
        return sorted(name for name in self.of if name not in depended)

    def _read(self, task: dict[str, Any]) -> None:
        name, text = task["name"], task.get("depends") or ""
        if text and task.get("dependencies"):
            raise SimulationRefused(f"task {name}: 'depends' and 'dependencies' exclude each other")
        if text and task.get("continueOn"):
            raise SimulationRefused(f"task {name}: 'continueOn' cannot be used with 'depends'")
        if not text:
            text = " && ".join(self._bare(each, name) for each in task.get("dependencies") or [])
        found: list[str] = []
        loops: set[str] = set()

        def expand(match: re.Match[str]) -> str:
            other, _, wanted = (match.group(1) or match.group(2)).partition(".")
            if other not in self._tasks:
                raise SimulationRefused(f"task {name}: dependency {other!r} is not defined")
            if wanted and wanted not in RESULTS:
                raise SimulationRefused(f"task {name}: task result {wanted!r} of {other!r} is invalid")
            if wanted in LOOP_RESULTS:
                loops.add(other)
            if other not in found:
                found.append(other)
            return match.group(0) if wanted else self._bare(other, name)

        self.logic[name] = _NAME.sub(expand, text)
        self.of[name] = found
        self.loop_results[name] = loops

    def _bare(self, other: str, name: str) -> str:
        """Expand a name without a result."""
        if other not in self._tasks:
            raise SimulationRefused(f"task {name}: dependency {other!r} is not defined")
        wanted = ["Succeeded", "Skipped", "Daemoned"]
        goes_on = self._tasks[other].get("continueOn") or {}
        wanted += ["Errored"] if goes_on.get("error") else []
        wanted += ["Failed"] if goes_on.get("failed") else []
        return f"({' || '.join(f'{other}.{each}' for each in wanted)})"

    def satisfied(self, name: str, nodes: Mapping[str, Node], children: Mapping[str, list[Node]]) -> bool:
        """Evaluate a task's condition over its dependencies' nodes, all of them fulfilled.

        :param children: the items of each dependency that is a loop.
        """
        if not self.logic[name]:
            return True
        scope = {}
        for other in self.of[name]:
            phase, items = nodes[other].phase, children.get(other, [])
            scope[other.replace("-", "_")] = {
                "Succeeded": phase == "Succeeded",
                "Failed": phase == "Failed",
                "Errored": phase == "Error",
                "Skipped": phase == "Skipped",
                "Omitted": phase == "Omitted",
                "Daemoned": False,
                "AnySucceeded": any(each.phase == "Succeeded" for each in items),
                "AllFailed": bool(items) and all(each.phase == "Failed" for each in items),
            }
        text = self.logic[name].replace("-", "_")
        try:
            return evaluate_bool(text, scope)
        except ExpressionError as error:
            raise TemplateError(f"unable to evaluate expression '{text}': {error}") from error


def check_acyclic(dependencies: Dependencies, template: str) -> None:
    for name in dependencies.of:
        if name in dependencies.ancestors(name):
            raise SimulationRefused(f"templates.{template}.tasks: a cycle through {name!r}")
