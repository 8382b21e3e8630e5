"""Calls of a template, from a task, a step or a hook: the template, its arguments, the loop, the condition."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from airflow_provider_raynode.argo.lint.condition import when_problem
from airflow_provider_raynode.argo.lint.context import Context, Template
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.naming import parameter_name_problem
from airflow_provider_raynode.argo.lint.reading import entries, has_tag, mapping, text, whole
from airflow_provider_raynode.argo.lint.references import check_references
from airflow_provider_raynode.argo.lint.variables import NodeOutputs, Variables
from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.config._values import shown

_LOOPS = ("withItems", "withParam", "withSequence")
_IN_ARGUMENTS = ("configMapKeyRef", "event", "supplied")
_NOT_IN_ARGUMENTS = ("path", "jsonPath", "jqFilter", "parameter", "expression")


def check_call(call: dict[str, Any], path: Path, known: Variables, context: Context) -> None:
    """Add what is wrong with a task or step, apart from its place in the graph.

    :param known: the variables that it sees, without its own loop.
    """
    _check_loop(call, path, context.findings)
    _check_when(call.get("when"), (*path, "when"), context.findings)
    called = _check_target(call, path, context)
    if called is not None:
        check_arguments(call.get("arguments"), path, called, context)
    check_argument_values(call.get("arguments"), (*path, "arguments"), context.findings)
    on_exit = text(call.get("onExit"))
    if on_exit:
        check_template_name(on_exit, (*path, "onExit"), context)
    at_call = replace(known, **_item(call))
    skip = frozenset((*path, key) for key in ("inline", "hooks", "depends", "dependencies"))
    check_references(call, path, at_call, context.findings, skip)


def check_hooks(hooks: Any, path: Path, known: Variables, context: Context) -> None:
    """Add what is wrong with the hooks of a workflow, task or step.

    :param known: the variables that they see.
    """
    for name, hook in mapping(hooks).items():
        place = (*path, name)
        if not isinstance(hook, dict):
            continue
        if name != "exit" and not hook.get("expression"):
            context.findings.error(place, f"expression is missing: the hook {name!r} needs one, only 'exit' does not")
        called = _check_target(hook, place, context)
        if called is not None:
            check_arguments(hook.get("arguments"), place, called, context)
        check_references(hook, place, known, context.findings)


def is_loop(call: dict[str, Any]) -> bool:
    """Whether a task or step runs once for each item."""
    return any(call.get(key) not in (None, "", []) for key in _LOOPS)


def outputs_of(call: dict[str, Any], context: Context) -> NodeOutputs:
    """Return what others can read of a task or step."""
    found = NodeOutputs()
    inline = call.get("inline")
    if isinstance(inline, dict):
        found = Template(inline, ()).outputs
    elif template := context.templates.get(text(call.get("template"))):
        found = template.outputs
    return replace(found, is_loop=True) if is_loop(call) else found


def check_template_name(name: str, path: Path, context: Context) -> Template | None:
    """Return the template of a name; add that there is none."""
    if has_tag(name) or context.is_elsewhere:
        return None
    template = context.templates.get(name)
    if template is None:
        near = did_you_mean(name, context.templates).removesuffix(";")
        context.findings.error(path, f"no template has the name {name!r}{near}")
    return template


def check_arguments(arguments: Any, path: Path, called: Template, context: Context) -> None:
    """Add the inputs that a call does not give, and the arguments that its template does not know."""
    given = mapping(arguments)
    for kind, inputs in (("parameters", called.parameters), ("artifacts", called.artifacts)):
        names = {text(each.get("name")) for _, each in entries(given.get(kind), ())}
        for place, each in entries(given.get(kind), (*path, "arguments", kind)):
            name = text(each.get("name"))
            if name and name not in inputs:
                near = did_you_mean(name, inputs)
                known = ", ".join(inputs) or "none"
                message = f"the template {called.name!r} has no input {kind[:-1]} {name!r}{near} its inputs: {known}"
                context.findings.error((*place, "name"), message)
        missing = [name for name, each in inputs.items() if name not in names and _is_needed(each, kind)]
        if missing:
            listed = ", ".join(repr(name) for name in missing)
            context.findings.error(path, f"the template {called.name!r} needs the {kind[:-1]} {listed}")


def _is_needed(given: dict[str, Any], kind: str) -> bool:
    if kind == "parameters":
        return all(given.get(key) is None for key in ("value", "default", "valueFrom"))
    locations = set(given) - {"name", "path", "mode", "from", "archive", "optional", "recurseMode", "subPath"}
    return not given.get("optional") and not locations


def check_argument_values(arguments: Any, path: Path, findings: Findings, *, may_be_open: bool = False) -> None:
    """Add the arguments with a bad name or no value.

    :param may_be_open: whether a value can come later: in a template that someone submits.
    """
    for kind in ("parameters", "artifacts"):
        seen: set[str] = set()
        for place, each in entries(mapping(arguments).get(kind), (*path, kind)):
            name = text(each.get("name"))
            if name and (problem := parameter_name_problem(name)):
                findings.error((*place, "name"), problem)
            if name and name in seen:
                findings.error((*place, "name"), f"the {kind[:-1]} {name!r} is given twice")
            seen.add(name)
            if kind == "parameters":
                _check_value(each, place, findings, may_be_open)
            elif not set(each) - {"name"}:
                findings.error(place, f"the artifact {name!r} has no from and no location")


def _check_value(parameter: dict[str, Any], path: Path, findings: Findings, may_be_open: bool) -> None:
    name, source = parameter.get("name"), parameter.get("valueFrom")
    if source is None:
        if parameter.get("value") is None and not may_be_open:
            findings.error(path, f"the parameter {name!r} has no value: write value: '' for an empty text")
        return
    wrong = [key for key in _NOT_IN_ARGUMENTS if mapping(source).get(key)]
    if wrong or all(mapping(source).get(key) is None for key in _IN_ARGUMENTS):
        found = f", not {' and '.join(wrong)}" if wrong else ""
        findings.error((*path, "valueFrom"), f"an argument's valueFrom takes {', '.join(_IN_ARGUMENTS)}{found}")


def _check_target(call: dict[str, Any], path: Path, context: Context) -> Template | None:
    """Return the template that is called, None where it is elsewhere; add what is wrong with its name."""
    given = [key for key in ("template", "templateRef", "inline") if call.get(key)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        context.findings.error(path, f"it calls one of template, templateRef and inline; given: {found}")
        return None
    if given == ["templateRef"]:
        for key in ("name", "template"):
            if not mapping(call, "templateRef").get(key):
                context.findings.error(
                    (*path, "templateRef"), f"{key} is missing: a templateRef needs name and template"
                )
        return None
    if given == ["inline"]:
        return Template(mapping(call, "inline"), (*path, "inline"))
    return check_template_name(text(call.get("template")), (*path, "template"), context)


def _check_loop(call: dict[str, Any], path: Path, findings: Findings) -> None:
    given = [key for key in _LOOPS if call.get(key) is not None]
    if len(given) > 1:
        findings.error(path, f"a loop is over one of {', '.join(_LOOPS)}; given: {' and '.join(given)}")
    if call.get("withItems") == []:
        findings.error((*path, "withItems"), "the list is empty: Argo would run the task once, without an item")
    items = call.get("withParam")
    if isinstance(items, str) and not has_tag(items) and not _is_json_list(items):
        message = f"{shown(items)} is no JSON list and no reference: write '[1, 2]' or '{{{{tasks.a.outputs.result}}}}'"
        findings.error((*path, "withParam"), message)
    sequence = call.get("withSequence")
    if isinstance(sequence, dict):
        _check_sequence(sequence, (*path, "withSequence"), findings)


def _check_sequence(sequence: dict[str, Any], path: Path, findings: Findings) -> None:
    given = [key for key in ("count", "end") if sequence.get(key) is not None]
    if len(given) != 1:
        findings.error(path, f"a sequence takes one of count and end; given: {' and '.join(given) or 'none'}")
    for key in ("start", "end", "count"):
        value = sequence.get(key)
        if value is not None and not has_tag(value) and whole(value) is None:
            findings.error((*path, key), f"{shown(value)} is not a whole number")
    form = text(sequence.get("format"))
    if form and "%" not in form and not has_tag(form):
        findings.error((*path, "format"), f"{shown(form)} has no place for the number: write one like '%03d'")


def _is_json_list(words: str) -> bool:
    try:
        return isinstance(json.loads(words), list)
    except ValueError:
        return False


def _check_when(when: Any, path: Path, findings: Findings) -> None:
    # With tags the condition is what they will be replaced with: their own syntax is checked with the references.
    if isinstance(when, str) and when and not has_tag(when) and (problem := when_problem(when)):
        findings.error(path, problem)


def _item(call: dict[str, Any]) -> dict[str, Any]:
    """Return what a task or step knows of its items."""
    if not is_loop(call):
        return {"has_item": False}
    items = call.get("withItems")
    keys: frozenset[str] | None = None
    if isinstance(items, list) and items and not any(_is_open(each) for each in items):
        # A key that one item lacks would stay unresolved in its task.
        keys = frozenset.intersection(*(frozenset(each if isinstance(each, dict) else ()) for each in items))
    elif call.get("withSequence") is not None:
        keys = frozenset()
    return {"has_item": True, "item_keys": keys}


def _is_open(item: Any) -> bool:
    return isinstance(item, list) or has_tag(item)
