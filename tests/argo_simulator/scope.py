"""The variables that a node gives to what comes after it: its status and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from argo_simulator.documents import any_string, rfc3339
from argo_simulator.errors import ExpressionError, TemplateError
from argo_simulator.expressions import as_text, evaluate
from argo_simulator.nodes import Node
from argo_simulator.substitution import nested


def of_node(prefix: str, node: Node, template: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of a node that is no loop.

    A skipped or omitted one has its template's defaults for outputs; an output without one is absent: None.
    """
    found: dict[str, Any] = {f"{prefix}.id": node.name, f"{prefix}.status": node.phase}
    found[f"{prefix}.startedAt"] = rfc3339(node.started)
    if node.finished is not None:
        found[f"{prefix}.finishedAt"] = rfc3339(node.finished)
    if node.exit_code is not None:
        found[f"{prefix}.exitCode"] = str(node.exit_code)
    if node.result is not None:
        found[f"{prefix}.outputs.result"] = node.result
    outputs: dict[str, Any] = dict(node.outputs or {})
    if node.outputs is None and node.phase in ("Skipped", "Omitted"):
        for each in (template.get("outputs") or {}).get("parameters") or []:
            default = (each.get("valueFrom") or {}).get("default")
            outputs[each["name"]] = None if default is None else any_string(default)
    return {**found, **{f"{prefix}.outputs.parameters.{name}": value for name, value in outputs.items()}}


def of_loop(prefix: str, items: Iterable[Node]) -> dict[str, Any]:
    """Return the variables of a loop: lists over its succeeded items, as JSON. A loop has no status of its own."""
    done = [each for each in items if each.phase == "Succeeded" and each.outputs is not None]
    outputs = [each.outputs for each in done if each.outputs]
    lists: dict[str, list[str]] = {}
    for each in outputs:
        for name, value in each.items():
            lists.setdefault(name, []).append(value)
    results = [_parsed(each.result) for each in done if each.result is not None]
    found = {f"{prefix}.outputs.result": _json(results), f"{prefix}.outputs.parameters": _json(outputs)}
    return {**found, **{f"{prefix}.outputs.parameters.{name}": _aggregated(each) for name, each in lists.items()}}


def outputs_of_template(template: dict[str, Any], variables: dict[str, Any]) -> dict[str, str] | None:
    """Return the outputs of a DAG or steps template from its tasks' variables."""
    parameters = (template.get("outputs") or {}).get("parameters") or []
    if not parameters:
        return None
    return {each["name"]: _output(each, variables) for each in parameters}


def _output(parameter: dict[str, Any], variables: dict[str, Any]) -> str:
    source = parameter["valueFrom"]
    try:
        if source.get("expression"):
            value = evaluate(source["expression"], nested(variables))
            if value is None:
                raise ExpressionError(f"failed to evaluate expression {source['expression']!r}")
            return as_text(value)
        name = source["parameter"].strip().removeprefix("{{").removesuffix("}}").strip()
        if variables.get(name) is None:
            raise TemplateError(f"Unable to resolve: {{{{{name}}}}}")
        return str(variables[name])
    except TemplateError:
        if "default" in source:
            return any_string(source["default"])
        raise


def _aggregated(values: list[str]) -> str:
    """Return a list as JSON: of the values' own JSON where all are lists or mappings, else of strings."""
    parsed = []
    for each in values:
        try:
            value = json.loads(each)
        except json.JSONDecodeError:
            return _json(values)
        if not isinstance(value, list | dict):
            return _json(values)
        parsed.append(value)
    return _json(parsed)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
