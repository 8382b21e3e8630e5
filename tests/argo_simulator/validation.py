"""What the server and the controller refuse before a workflow runs, as workflow/validate/validate.go does."""

from __future__ import annotations

import re
from typing import Any

from argo_simulator.depends import Dependencies, check_acyclic
from argo_simulator.documents import BODIES, Submission, any_string
from argo_simulator.errors import ExpressionError, SimulationRefused, TemplateError, Unsupported
from argo_simulator.expressions import parse
from argo_simulator.substitution import tags_of

_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_PARAMETER = re.compile(r"[a-zA-Z0-9_][-a-zA-Z0-9_]*")
_LEAVES = ("container", "script", "resource", "suspend")
# Only tags that begin so are looked at; others stay in the text as they are.
_KNOWN = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")
_RUN_TIME = (
    "outputs.",
    "workflow.creationTimestamp",
    "workflow.scheduledTime",
    "workflow.duration",
    "tasks.name",
    "steps.name",
    "node.name",
)
_UNSUPPORTED_TEMPLATE = ("containerSet", "data", "http", "plugin", "daemon", "memoize", "failFast", "timeout")
_UNSUPPORTED_TASK = ("templateRef", "hooks", "onExit", "inline")
_POD_SCOPE = ("pod.name", "node.name")


def validate(submission: Submission) -> None:
    """Check a submission; refuse it with the controller's words or near to them."""
    spec, templates = submission.spec, submission.written
    names = [each.get("name") for each in spec.get("templates") or []]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise SimulationRefused(f"template names are not unique: {sorted(map(str, doubled))}")
    entry = spec.get("entrypoint")
    for field, name in (("entrypoint", entry), ("onExit", spec.get("onExit"))):
        if (name or field == "entrypoint") and name not in templates:
            raise SimulationRefused(f"spec.{field}: template name {name!r} undefined")
    for template in templates.values():
        _validate_template(template, submission)
    given = {each["name"] for each in spec["arguments"]["parameters"]}
    for field in ("entrypoint", "onExit"):
        if spec.get(field):
            _check_inputs(templates[spec[field]], given, f"spec.{field}")


def template_type(template: dict[str, Any]) -> str:
    found = [each for each in BODIES if template.get(each) is not None]
    if len(found) != 1:
        raise SimulationRefused(f"template {template.get('name')!r} must have one of {BODIES}, it has {found}")
    return found[0]


def _validate_template(template: dict[str, Any], submission: Submission) -> None:
    name = template.get("name") or ""
    if not _NAME.fullmatch(name) or len(name) > 128:
        raise SimulationRefused(f"templates: the name {name!r} is invalid")
    for key in _UNSUPPORTED_TEMPLATE:
        if template.get(key):
            raise Unsupported(f"templates.{name}.{key}")
    if (template.get("inputs") or {}).get("artifacts") or (template.get("outputs") or {}).get("artifacts"):
        raise Unsupported(f"templates.{name}: artifacts")
    kind = template_type(template)
    if kind in _LEAVES and template.get("parallelism") is not None:
        raise SimulationRefused(f"templates.{name}.parallelism is only valid for steps and dag templates")
    if kind not in _LEAVES and template.get("activeDeadlineSeconds") is not None:
        raise SimulationRefused(f"templates.{name}.activeDeadlineSeconds is only valid for leaf templates")
    defaults = (submission.spec.get("templateDefaults") or {}).get(kind) or {}
    if kind in ("container", "script") and not template[kind].get("image") and not defaults.get("image"):
        raise SimulationRefused(f"templates.{name}.{kind}.image may not be empty")
    scope = _own_scope(template, kind)
    _check_outputs(template, kind)
    if kind == "dag":
        _validate_dag(template, scope, submission)
    elif kind == "steps":
        _validate_steps(template, scope, submission)
    else:
        _check_tags(template, scope, submission, f"templates.{name}")


def _own_scope(template: dict[str, Any], kind: str) -> set[str]:
    scope = {*_POD_SCOPE}
    for each in (template.get("inputs") or {}).get("parameters") or []:
        if not _PARAMETER.fullmatch(each["name"]):
            raise SimulationRefused(f"templates.{template['name']}.inputs.parameters: {each['name']!r} is invalid")
        scope |= {f"inputs.parameters.{each['name']}", "inputs.parameters"}
    return scope


def _check_outputs(template: dict[str, Any], kind: str) -> None:
    for each in (template.get("outputs") or {}).get("parameters") or []:
        where = f"templates.{template['name']}.outputs.parameters.{each['name']}"
        source = each.get("valueFrom")
        if not _PARAMETER.fullmatch(each["name"]):
            raise SimulationRefused(f"{where}: the name is invalid")
        if source is None:
            raise SimulationRefused(f"{where}.valueFrom is required")
        wanted = {
            "container": ("path",),
            "script": ("path",),
            "resource": ("jsonPath", "jqFilter"),
            "suspend": ("supplied",),
        }
        allowed = wanted.get(kind, ("parameter", "expression"))
        if not any(key in source for key in allowed):
            raise SimulationRefused(f"{where}: a {kind} template needs valueFrom.{' or '.join(allowed)}")


def _validate_dag(template: dict[str, Any], scope: set[str], submission: Submission) -> None:
    name, tasks = template["name"], template["dag"].get("tasks") or []
    if template["dag"].get("target"):
        raise Unsupported(f"templates.{name}.dag.target")
    _check_names(tasks, f"templates.{name}.tasks")
    dependencies = Dependencies(tasks)
    check_acyclic(dependencies, name)
    by_name = {task["name"]: task for task in tasks}
    for task in tasks:
        where = f"templates.{name}.tasks.{task['name']}"
        for other in dependencies.loop_results[task["name"]]:
            if not _is_loop(by_name[other]):
                raise SimulationRefused(f"{where}: {other} has no items, AnySucceeded and AllFailed are for loops")
        _parse_depends(dependencies.logic[task["name"]], where)
        seen = set(scope)
        for other in dependencies.ancestors(task["name"]):
            seen |= _outputs_of(by_name[other], f"tasks.{other}", submission)
        _check_call(task, seen, submission, where)
    every = set(scope)
    for task in tasks:
        every |= _outputs_of(task, f"tasks.{task['name']}", submission)
    _check_parameter_outputs(template, every)


def _validate_steps(template: dict[str, Any], scope: set[str], submission: Submission) -> None:
    name, seen = template["name"], set(scope)
    _check_names([step for group in template["steps"] for step in group], f"templates.{name}.steps")
    for group in template["steps"]:
        for step in group:
            _check_call(step, seen, submission, f"templates.{name}.steps.{step['name']}")
        for step in group:
            seen |= _outputs_of(step, f"steps.{step['name']}", submission)
    _check_parameter_outputs(template, seen)


def _check_parameter_outputs(template: dict[str, Any], scope: set[str]) -> None:
    for each in (template.get("outputs") or {}).get("parameters") or []:
        named = (each["valueFrom"].get("parameter") or "").removeprefix("{{").removesuffix("}}").strip()
        if named and named not in scope:
            raise SimulationRefused(f"templates.{template['name']}.outputs.parameters: failed to resolve {named}")


def _check_names(tasks: list[dict[str, Any]], where: str) -> None:
    names = [each.get("name") or "" for each in tasks]
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > 128:
            raise SimulationRefused(f"{where}: the name {name!r} is invalid")
        if names.count(name) > 1:
            raise SimulationRefused(f"{where}: the name {name!r} is not unique")


def _parse_depends(logic: str, where: str) -> None:
    try:
        parse(logic.replace("-", "_")) if logic else None
    except ExpressionError as error:
        raise SimulationRefused(f"{where}.depends: {error}") from error


def _check_call(task: dict[str, Any], scope: set[str], submission: Submission, where: str) -> None:
    for key in _UNSUPPORTED_TASK:
        if task.get(key):
            raise Unsupported(f"{where}.{key}")
    if (task.get("arguments") or {}).get("artifacts"):
        raise Unsupported(f"{where}.arguments.artifacts")
    if task.get("template") not in submission.written:
        raise SimulationRefused(f"{where}: template name {task.get('template')!r} undefined")
    if sum(task.get(key) is not None for key in ("withItems", "withParam", "withSequence")) > 1:
        raise SimulationRefused(f"{where}: only one of withItems, withParam and withSequence")
    parameters = (task.get("arguments") or {}).get("parameters") or []
    for each in parameters:
        if "value" not in each and "valueFrom" not in each:
            raise SimulationRefused(f"{where}.arguments.{each['name']}.value is required")
    _check_inputs(submission.written[task["template"]], {each["name"] for each in parameters}, where)
    _check_tags(task, scope | (_item_scope(task) if _is_loop(task) else set()), submission, where)


def _check_inputs(template: dict[str, Any], given: set[str], where: str) -> None:
    for each in (template.get("inputs") or {}).get("parameters") or []:
        if each["name"] not in given and "value" not in each and "default" not in each:
            raise SimulationRefused(
                f"{where}: templates.{template['name']}.inputs.parameters.{each['name']} was not supplied"
            )


def _item_scope(task: dict[str, Any]) -> set[str]:
    scope = {"item"}
    if task.get("withParam") is not None:
        return scope | {"item.*"}
    for item in task.get("withItems") or []:
        if isinstance(item, dict):
            scope |= {f"item.{key}" for key in item}
    return scope


def _is_loop(task: dict[str, Any]) -> bool:
    return any(task.get(key) is not None for key in ("withItems", "withParam", "withSequence"))


def _outputs_of(task: dict[str, Any], prefix: str, submission: Submission) -> set[str]:
    template = submission.written.get(task.get("template") or "", {})
    names = [each["name"] for each in (template.get("outputs") or {}).get("parameters") or []]
    scope = {f"{prefix}.{key}" for key in ("status", "id", "startedAt", "finishedAt", "exitCode", "outputs.result")}
    scope |= {f"{prefix}.outputs.parameters.{name}" for name in names}
    return scope | ({f"{prefix}.outputs.parameters"} if _is_loop(task) else set())


def _check_tags(value: Any, scope: set[str], submission: Submission, where: str) -> None:
    try:
        tags = tags_of(value)
    except TemplateError as error:
        raise SimulationRefused(f"{where}: {error}") from error
    at_exit = {"workflow.status", "workflow.failures"} if submission.spec.get("onExit") else set()
    for tag in tags:
        name = tag.strip()
        if tag.startswith("=") or not name.startswith(_KNOWN) or name.startswith(_RUN_TIME):
            continue
        if name in scope or name in submission.variables or name in at_exit:
            continue
        if name.startswith("item.") and "item.*" in scope:
            continue
        raise SimulationRefused(f"{where}: failed to resolve {{{{{tag}}}}}")


def inputs_with_values(template: dict[str, Any], arguments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a template's input parameters with the values of a call (ProcessArgs)."""
    given = {each["name"]: each.get("value") for each in arguments}
    found = []
    for each in (template.get("inputs") or {}).get("parameters") or []:
        value = given.get(each["name"])
        value = each.get("value") if value is None else value
        value = each.get("default") if value is None else value
        if value is None:
            raise TemplateError(f"inputs.parameters.{each['name']} was not supplied")
        if "enum" in each and any_string(value) not in list(map(any_string, each["enum"])):
            raise TemplateError(f"inputs.parameters.{each['name']} should be present in its enum list")
        found.append({**each, "value": any_string(value)})
    return found
