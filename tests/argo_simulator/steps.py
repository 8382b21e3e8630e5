"""Runs a steps template: groups one after the other, the steps of a group side by side (steps.go), without loops."""

from __future__ import annotations

import asyncio
from typing import Any

from argo_simulator import scope
from argo_simulator.conditions import is_loop, should_execute
from argo_simulator.errors import TemplateError, Unsupported
from argo_simulator.nodes import Node
from argo_simulator.substitution import replace
from argo_simulator.walk import Call, Walk


async def run_steps(walk: Walk, node: Node, call: Call, template: dict[str, Any]) -> None:
    """Run the groups until one fails, and set the node's phase and outputs."""
    variables: dict[str, Any] = {}
    above = [node.name]
    for index, group in enumerate(template["steps"]):
        parent = walk.graph.add(Node(f"{node.path}[{index}]", f"{node.name}[{index}]", "StepGroup", boundary=node.name))
        for each in above:
            walk.graph.connect(each, parent.name)
        done = await asyncio.gather(*(_run_step(walk, node, parent, call, step, variables) for step in group))
        above = [each for step in done for each in walk.graph.outbound(step.name)]
        for step, ended in zip(group, done, strict=True):
            continues = (step.get("continueOn") or {}).get("error" if ended.phase == "Error" else "failed")
            if ended.failed and not continues:
                parent.end("Failed", f"child '{walk.node_id(ended.name)}' failed")
        if parent.phase == "Failed":
            node.outbound = above
            node.end("Failed", parent.message)
            return
        parent.end("Succeeded")
        for step, ended in zip(group, done, strict=True):
            variables.update(scope.of_node(f"steps.{step['name']}", ended, walk.template(ended.template)))
    node.outbound = above
    node.outputs = scope.outputs_of_template(template, variables)
    node.end("Succeeded")


async def _run_step(
    walk: Walk, node: Node, group: Node, call: Call, step: dict[str, Any], variables: dict[str, Any]
) -> Node:
    if is_loop(step):
        raise Unsupported(f"{node.path}: loops in steps")
    name = f"{group.name}.{step['name']}"
    path = f"{node.path}.{step['name']}" if node.path else step["name"]
    plain = Call(step["template"], [], path, name, node.name, "steps", step["name"], call.at_exit)
    walk.graph.connect(group.name, name)
    try:
        resolved = replace(step, {**walk.variables, **variables}, strict=("tasks", "steps"))
        if not should_execute(resolved.get("when") or ""):
            return walk.skipped(plain, "Skipped", f"when '{resolved['when']}' evaluated false")
    except TemplateError as error:
        return walk.skipped(plain, "Error", str(error))
    arguments = (resolved.get("arguments") or {}).get("parameters") or []
    return await walk.execute(
        Call(step["template"], arguments, path, name, node.name, "steps", step["name"], call.at_exit)
    )
