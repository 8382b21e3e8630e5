"""Runs the tasks of a DAG template, each as soon as all that it depends on is fulfilled (dag.go)."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

from argo_simulator import scope
from argo_simulator.conditions import is_loop, item_name, item_variables, items_of, should_execute
from argo_simulator.depends import Dependencies
from argo_simulator.errors import TemplateError
from argo_simulator.nodes import Node
from argo_simulator.substitution import replace
from argo_simulator.turns import Turns
from argo_simulator.walk import Call, Walk

_NEVER = "the controller would wait for ever: a leaf hangs below no node"


async def run_dag(walk: Walk, node: Node, call: Call, template: dict[str, Any]) -> None:
    """Run a DAG to its end and set its node's phase and outputs."""
    await _DagRun(walk, node, call, template).run()


class _DagRun:
    def __init__(self, walk: Walk, node: Node, call: Call, template: dict[str, Any]) -> None:
        self._walk, self._node, self._call, self._template = walk, node, call, template
        self._tasks: dict[str, dict[str, Any]] = {task["name"]: task for task in template["dag"].get("tasks") or []}
        self._dependencies = Dependencies(list(self._tasks.values()))
        self._nodes: dict[str, Node] = {}
        self._items: dict[str, list[Node]] = {}
        self._futures: dict[str, asyncio.Task[None]] = {}
        parallelism = template.get("parallelism")
        self._slots = None if parallelism is None else {"": int(parallelism)}
        self._turns = Turns(walk.chance)

    async def run(self) -> None:
        for name in self._tasks:
            self._futures[name] = asyncio.create_task(self._run_task(name))
        try:
            await asyncio.gather(*self._futures.values())
        finally:
            for each in self._futures.values():
                each.cancel()
        leaves = [self._name(each) for each in self._dependencies.leaves()]
        for leaf in leaves:
            self._node.outbound += [each for each in self._walk.graph.outbound(leaf) if each not in self._node.outbound]
        self._end(leaves)

    def _end(self, leaves: list[str]) -> None:
        if self._walk.shutdown and not self._call.at_exit:
            self._node.end("Failed")
            return
        tasks = self._tasks.values()
        continues = {self._name(each["name"]): each.get("continueOn") or {} for each in tasks}
        fail_fast = self._template["dag"].get("failFast", True)
        targets = {leaf: continues[leaf] for leaf in leaves}
        phase = self._walk.graph.dag_phase(self._node.name, targets, fail_fast=fail_fast)
        if phase == "Running":
            self._node.end("Error", _NEVER)
            return
        if phase == "Succeeded":
            self._node.outputs = scope.outputs_of_template(self._template, self._variables(list(self._tasks)))
        self._node.end(phase)

    def _name(self, task: str) -> str:
        return f"{self._node.name}.{task}"

    def _path(self, task: str) -> str:
        return f"{self._node.path}.{task}" if self._node.path else task

    def _call_of(self, task: dict[str, Any], *, name: str, path: str) -> Call:
        return Call(
            template=task["template"],
            arguments=(task.get("arguments") or {}).get("parameters") or [],
            path=path,
            name=name,
            boundary=self._node.name,
            role="tasks",
            task=task["name"],
            at_exit=self._call.at_exit,
        )

    async def _run_task(self, name: str) -> None:
        for other in self._dependencies.of[name]:
            await self._futures[other]
        task = self._tasks[name]
        call = self._call_of(task, name=self._name(name), path=self._path(name))
        try:
            if not self._dependencies.satisfied(name, self._nodes, self._items):
                self._skip(name, call, "Omitted", "omitted: depends condition not met")
                return
            resolved, variables = self._resolved(name)
            calls = self._expanded(resolved, variables) if is_loop(task) else None
        except TemplateError as error:
            self._skip(name, call, "Error", str(error))
            return
        if calls is None:
            self._connect(name, call.name)
            call = self._call_of(resolved, name=call.name, path=call.path)
            self._nodes[name] = await self._execute(call, resolved.get("when") or "")
        elif not calls:
            self._skip(name, call, "Skipped", "Skipped, empty params")
        else:
            await self._run_loop(name, call, calls)

    def _skip(self, name: str, call: Call, phase: str, message: str) -> None:
        self._nodes[name] = self._walk.skipped(call, phase, message)
        self._connect(name, call.name)

    def _connect(self, name: str, node: str) -> None:
        """Hang a task's node below what it depends on, or below the DAG."""
        graph = self._walk.graph
        if not self._dependencies.of[name]:
            graph.connect(self._node.name, node)
        for other in self._dependencies.of[name]:
            for each in graph.outbound(self._name(other)):
                graph.connect(each, node)

    async def _run_loop(self, name: str, call: Call, calls: list[tuple[Call, str]]) -> None:
        group = self._walk.add(call, "TaskGroup")
        self._connect(name, call.name)
        for each, _ in calls:
            self._walk.graph.connect(group.name, each.name)
        items = await asyncio.gather(*(self._execute(each, when) for each, when in calls))
        phase = "Succeeded"
        for item in items:
            phase = item.phase if item.failed else phase  # the last failure's
        group.end(phase)
        self._nodes[name], self._items[name] = group, list(items)

    async def _execute(self, call: Call, when: str) -> Node:
        try:
            if not should_execute(when):
                return self._walk.skipped(call, "Skipped", f"when '{when}' evaluated false")
        except TemplateError as error:
            return self._walk.skipped(call, "Error", str(error))
        async with self._turns.hold(self._slots) if self._slots else nullcontext():
            return await self._walk.execute(call)

    def _resolved(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a task with the references to what lies before it replaced, and the variables."""
        task = self._tasks[name]
        variables = {**self._walk.variables, **self._variables(self._dependencies.ancestors(name))}
        given = {**task, "arguments": self._without_absent(task, variables)}
        resolved = dict(replace(given, variables, strict=("tasks", "steps")))
        if not is_loop(task):
            should_execute(resolved.get("when") or "")  # an error here is the task's, before its node
        return resolved, variables

    def _without_absent(self, task: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Leave out arguments that are nothing but an absent output: the input's default stands for them."""
        parameters = (task.get("arguments") or {}).get("parameters") or []

        def absent(value: Any) -> bool:
            if not isinstance(value, str) or not (value.startswith("{{") and value.endswith("}}")):
                return False
            name = value[2:-2].strip()
            return name in variables and variables[name] is None

        return {"parameters": [each for each in parameters if not absent(each.get("value"))]}

    def _variables(self, names: list[str]) -> dict[str, Any]:
        inputs = (self._template.get("inputs") or {}).get("parameters") or []
        found: dict[str, Any] = {f"inputs.parameters.{each['name']}": each["value"] for each in inputs}
        for name in names:
            node, prefix = self._nodes[name], f"tasks.{name}"
            if node.kind == "TaskGroup":
                found.update(scope.of_loop(prefix, self._items[name]))
            else:
                found.update(scope.of_node(prefix, node, self._walk.template(node.template)))
        return found

    def _expanded(self, task: dict[str, Any], variables: dict[str, Any]) -> list[tuple[Call, str]]:
        """Return a call and a `when` for each item."""
        body = {key: value for key, value in task.items() if key not in ("withItems", "withParam", "withSequence")}
        found = []
        for index, item in enumerate(items_of(task)):
            each = replace(body, {**variables, **item_variables(item)}, strict=("item",))
            name = item_name(self._name(task["name"]), index, item)
            call = self._call_of(each, name=name, path=f"{self._path(task['name'])}({index})")
            found.append((call, each.get("when") or ""))
        return found
