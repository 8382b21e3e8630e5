"""Templates that call others: the tasks of a DAG and what they wait for, the steps and their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_raynode.argo.lint.calls import check_call, check_hooks, is_loop, outputs_of
from airflow_provider_raynode.argo.lint.context import Context, Template
from airflow_provider_raynode.argo.lint.depends import OF_LOOPS, Ancestors, cycle, depends
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.naming import RESERVED, field_name_problem
from airflow_provider_raynode.argo.lint.reading import elements, entries, has_tag, mapping, text
from airflow_provider_raynode.argo.lint.references import check_references
from airflow_provider_raynode.argo.lint.variables import NodeOutputs, Nodes, Variables
from airflow_provider_raynode.config._section import did_you_mean

Task = tuple[Path, dict[str, Any]]


def check_flow(template: Template, context: Context, outer: Variables | None = None) -> None:
    """Add what is wrong with the references of a template, and with its tasks or steps.

    :param outer: what the task around an inline template knows: it counts inside as well.
    """
    known = context.known(template)
    if outer is not None:
        known = _joined(known, outer)
    if template.kind == "dag":
        known = _check_dag(template, known, context)
    elif template.kind == "steps":
        known = _check_steps(template, known, context)
    skip = frozenset({(*template.path, "dag", "tasks"), (*template.path, "steps")})
    check_references(template.data, template.path, known, context.findings, skip)


def _joined(inner: Variables, outer: Variables) -> Variables:
    inputs = (inner.inputs or frozenset()) | (outer.inputs or frozenset())
    return replace(inner, inputs=inputs, nodes=outer.nodes, has_item=outer.has_item, item_keys=outer.item_keys)


def _check_dag(template: Template, known: Variables, context: Context) -> Variables:
    """Check the tasks; return what the rest of the template knows: every task."""
    path, findings = (*template.path, "dag"), context.findings
    tasks = list(entries(mapping(template.data, "dag").get("tasks"), (*path, "tasks")))
    if not tasks:
        findings.error(path, "a dag has at least one task")
    _check_names(tasks, "task", findings)
    by_name = {text(task.get("name")): task for _, task in tasks}
    edges = _check_edges(tasks, by_name, findings)
    over = _order(tasks, edges, path, findings)
    outputs = {name: outputs_of(task, context) for name, task in by_name.items()}
    _check_target(text(mapping(template.data, "dag").get("target")), path, by_name, findings)
    for place, task in tasks:
        name = text(task.get("name"))
        nodes = Nodes("tasks", outputs, lambda other, name=name: over(name, other), f"{name!r} does not wait for")  # type: ignore[misc]
        _check_node(place, task, replace(known, nodes=nodes), context)
    return replace(known, nodes=Nodes("tasks", outputs))


def _check_node(path: Path, call: dict[str, Any], known: Variables, context: Context) -> None:
    """Check a task or step, its hooks and the template inside of it."""
    check_call(call, path, known, context)
    nodes = known.nodes
    if nodes is not None and call.get("hooks"):
        name = text(call.get("name"))
        own = Nodes(nodes.root, nodes.outputs, lambda other: other == name or nodes.sees(other), nodes.unseen)
        at_hook = replace(known, nodes=own, in_exit=True, has_item=is_loop(call), item_keys=None)
        check_hooks(call.get("hooks"), (*path, "hooks"), at_hook, context)
    if isinstance(call.get("inline"), dict):
        outer = replace(known, has_item=is_loop(call), item_keys=None)
        check_flow(Template(call["inline"], (*path, "inline")), context, outer)


def _check_names(calls: list[Task], what: str, findings: Findings) -> None:
    seen: set[str] = set()
    for place, call in calls:
        name = text(call.get("name"))
        if not name:
            # A task without a name is found by the field-level validation; a step is not.
            if what == "step":
                findings.error(place, "name is missing: a step needs one")
            continue
        if problem := field_name_problem(name):
            findings.error((*place, "name"), problem)
        if name in seen:
            findings.error((*place, "name"), f"the {what} {name!r} is given twice")
        if what == "task" and name in RESERVED:
            findings.error((*place, "name"), f"{name!r} is a word of the language of depends: choose another name")
        seen.add(name)


def _check_edges(tasks: list[Task], by_name: dict[str, dict[str, Any]], findings: Findings) -> dict[str, list[str]]:
    """Return for each task those that it waits for; add what is wrong with how it says so."""
    uses_depends = any(task.get("depends") for _, task in tasks)
    uses_either = uses_depends or any(task.get("dependencies") for _, task in tasks)
    edges: dict[str, list[str]] = {}
    for place, task in tasks:
        name = text(task.get("name"))
        if uses_depends and task.get("dependencies"):
            message = "depends and dependencies do not go together in one dag: write all with depends"
            findings.error((*place, "dependencies"), message)
        if uses_depends and task.get("continueOn") is not None:
            message = "continueOn does not go together with depends: name NAME.Failed or NAME.Errored in depends"
            findings.error((*place, "continueOn"), message)
        if uses_either and name[:1].isdigit():
            findings.error((*place, "name"), f"the name {name!r} starts with a digit: with depends it cannot")
        waits = _waits_for(place, task, by_name, findings)
        edges[name] = waits
    return edges


def _waits_for(path: Path, task: dict[str, Any], by_name: dict[str, dict[str, Any]], findings: Findings) -> list[str]:
    name, waits = text(task.get("name")), []
    for index, other in enumerate(elements(task.get("dependencies"))):
        if _is_task(text(other), name, (*path, "dependencies", index), by_name, findings):
            waits.append(text(other))
    place = (*path, "depends")
    read = depends(text(task.get("depends"))) if task.get("depends") else None
    for problem in read.problems if read else ():
        findings.error(place, problem)
    for other, results in read.results.items() if read else ():
        if not _is_task(other, name, place, by_name, findings):
            continue
        waits.append(other)
        for result in sorted(results & OF_LOOPS):
            if not is_loop(by_name[other]):
                findings.error(place, f"{other}.{result} is for loops, and {other!r} has no withItems or withParam")
    return waits


def _is_task(other: str, name: str, path: Path, by_name: dict[str, dict[str, Any]], findings: Findings) -> bool:
    if other == name and name:
        findings.error(path, f"the task {name!r} waits for itself")
    elif other not in by_name:
        near = did_you_mean(other, by_name).removesuffix(";")
        findings.error(path, f"no task has the name {other!r}{near}")
    else:
        return True
    return False


def _order(
    tasks: list[Task], edges: dict[str, list[str]], path: Path, findings: Findings
) -> Callable[[str, str], bool]:
    """Return whether one task is over before another starts; add the cycle where there is one."""
    found = cycle(edges)
    if found is None:
        return Ancestors(edges).includes
    place = next((place for place, task in tasks if text(task.get("name")) == found[0]), path)
    key = "depends" if any(task.get("depends") for at, task in tasks if at == place) else "dependencies"
    findings.error((*place, key), f"the tasks wait for each other: {' -> '.join(found)}")
    return lambda name, other: True


def _check_target(target: str, path: Path, by_name: dict[str, dict[str, Any]], findings: Findings) -> None:
    for name in target.split(" ") if target and not has_tag(target) else ():
        if name not in by_name:
            near = did_you_mean(name, by_name).removesuffix(";")
            findings.error((*path, "target"), f"no task has the name {name!r}{near}")


def _check_steps(template: Template, known: Variables, context: Context) -> Variables:
    """Check the steps; return what the rest of the template knows: every step."""
    data = template.data.get("steps")
    groups = [list(entries(group, (*template.path, "steps", i))) for i, group in enumerate(elements(data))]
    _check_names([step for group in groups for step in group], "step", context.findings)
    outputs: dict[str, NodeOutputs] = {
        text(step.get("name")): outputs_of(step, context) for group in groups for _, step in group
    }
    over: set[str] = set()
    for group in groups:
        before = frozenset(over)
        nodes = Nodes("steps", outputs, before.__contains__, "no earlier group has")
        for place, step in group:
            _check_node(place, step, replace(known, nodes=nodes), context)
        over.update(text(step.get("name")) for _, step in group)
    return replace(known, nodes=Nodes("steps", outputs))
