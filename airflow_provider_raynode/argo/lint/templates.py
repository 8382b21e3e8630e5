"""Argo's rules for one template: its type, outputs, limits, retries, volumes."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_raynode.argo.lint.condition import selector_problem
from airflow_provider_raynode.argo.lint.context import TYPES, Context, Template
from airflow_provider_raynode.argo.lint.document import plain_data
from airflow_provider_raynode.argo.lint.duration import argo_duration_problem, go_duration_problem
from airflow_provider_raynode.argo.lint.fields import check_object
from airflow_provider_raynode.argo.lint.finding import Findings, LintError, Path
from airflow_provider_raynode.argo.lint.naming import parameter_name_problem
from airflow_provider_raynode.argo.lint.reading import (
    elements,
    entries,
    has_tag,
    mapping,
    names,
    scalar_text,
    text,
    whole,
)
from airflow_provider_raynode.argo.lint.synchronization import check_synchronization
from airflow_provider_raynode.argo.lint.tags import without_tags
from airflow_provider_raynode.argo.lint.volumes import check_volumes
from airflow_provider_raynode.config._values import shown

_SOURCES = ("path", "jqFilter", "jsonPath", "parameter", "expression", "supplied")
_SOURCE_OF = {
    "container": ("path",),
    "script": ("path",),
    "containerSet": ("path",),
    "resource": ("jsonPath", "jqFilter"),
    "dag": ("parameter", "expression"),
    "steps": ("parameter", "expression"),
    "suspend": ("supplied",),
}
_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MOST_SECONDS = 2**31 - 1
_READING = frozenset({"get", "delete"})


def check_template(template: Template, context: Context) -> None:
    """Add what breaks Argo's rules in a template, apart from its tasks, steps and references."""
    findings, data, path = context.findings, template.data, template.path
    _check_type(template, findings)
    _check_inputs(template, findings)
    _check_outputs(template, findings)
    _check_limits(template, findings)
    _check_container(template, context)
    _check_resource(mapping(data, "resource"), (*path, "resource"), findings)
    check_retry_strategy(data.get("retryStrategy"), (*path, "retryStrategy"), findings)
    check_synchronization(data.get("synchronization"), (*path, "synchronization"), findings)
    check_pod_spec_patch(data.get("podSpecPatch"), (*path, "podSpecPatch"), findings)
    check_volumes(template, context)
    _check_metrics(mapping(data, "metrics").get("prometheus"), (*path, "metrics", "prometheus"), findings)


def check_retry_strategy(strategy: Any, path: Path, findings: Findings) -> None:
    """Add what is wrong with a retryStrategy, apart from its expression."""
    limit = mapping(strategy).get("limit")
    if _is_number_or_text(limit) and (whole(limit) is None or (whole(limit) or 0) < 0):
        findings.error((*path, "limit"), f"{shown(limit)} is no number of retries: write a whole number, such as '2'")
    backoff = mapping(strategy).get("backoff")
    if backoff is None:
        return
    place = (*path, "backoff")
    if not mapping(backoff).get("duration"):
        findings.error(place, "duration is missing: Argo fails a backoff without one")
    for key in ("duration", "cap", "maxDuration"):
        check_duration(mapping(backoff).get(key), (*place, key), findings)
    factor = mapping(backoff).get("factor")
    if _is_number_or_text(factor) and (whole(factor) is None or (whole(factor) or 0) < 1):
        findings.error((*place, "factor"), f"{shown(factor)} is no factor: Argo takes whole numbers from 1 up")


def _is_number_or_text(value: Any) -> bool:
    """Whether a value has the right kind, and is known before the workflow runs."""
    return isinstance(value, int | str) and not isinstance(value, bool) and not has_tag(value)


def check_duration(value: Any, path: Path, findings: Findings) -> None:
    """Add why Argo does not take a text as a duration; a number without quotes is found elsewhere."""
    if isinstance(value, str) and value and not has_tag(value) and (problem := argo_duration_problem(value)):
        findings.error(path, problem)


def check_seconds(value: Any, path: Path, findings: Findings) -> None:
    """Add why a number of seconds cannot be a deadline."""
    if value is None or has_tag(value):
        return
    seconds = whole(value)
    if seconds is None and isinstance(value, str):
        findings.error(path, f"{shown(value)} is no number of seconds: write it without a unit")
    elif seconds is not None and not 0 < seconds <= _MOST_SECONDS:
        findings.error(path, f"{value} is no deadline: 1 to {_MOST_SECONDS} seconds")


def check_pod_spec_patch(patch: Any, path: Path, findings: Findings) -> None:
    """Add what is wrong with a podSpecPatch; with template tags only its braces can be looked at."""
    if not isinstance(patch, str) or has_tag(patch):
        return
    try:
        data = plain_data(patch)
    except LintError as error:
        findings.error(path, f"the patch is not YAML: {error}")
        return
    inner = _Inner(findings, path)
    if isinstance(data, dict):
        check_object("PodSpec", data, (), inner, patch=True)
    else:
        findings.error(path, f"the patch {shown(patch)} is not a mapping (key: value)")


class _Inner(Findings):
    """Findings in a text inside of a field: they are reported at the field, with the inner path in the message."""

    def __init__(self, outer: Findings, path: Path) -> None:
        self._outer = outer
        self._path = path

    def error(self, path: Path, message: str) -> None:
        self._outer.error((*self._path, *path), message)

    def warning(self, path: Path, message: str) -> None:
        self._outer.warning((*self._path, *path), message)


def _check_type(template: Template, findings: Findings) -> None:
    if len(template.types) > 1:
        findings.error(template.path, f"a template has one type, this has {' and '.join(template.types)}")
    elif not template.types:
        empty = [kind for kind in TYPES if kind in template.data]
        hint = f": {empty[0]} has no value, write {empty[0]}: {{}}" if empty else f": one of {', '.join(TYPES)}"
        findings.error(template.path, f"the template has no type{hint}")


def _check_inputs(template: Template, findings: Findings) -> None:
    inputs, path = mapping(template.data, "inputs"), (*template.path, "inputs")
    check_names(inputs.get("parameters"), (*path, "parameters"), "input parameter", findings)
    check_names(inputs.get("artifacts"), (*path, "artifacts"), "input artifact", findings)
    for place, parameter in entries(inputs.get("parameters"), (*path, "parameters")):
        check_enum(parameter, place, findings, parameter.get("default"))
    for place, artifact in entries(inputs.get("artifacts"), (*path, "artifacts")):
        _check_artifact_path(artifact, place, template, findings)
        if artifact.get("from"):
            findings.error((*place, "from"), "an input has no from: it stands in the arguments of the caller")


def check_enum(parameter: dict[str, Any], path: Path, findings: Findings, *values: Any) -> None:
    """Add why an enum is wrong, or a value is not in it."""
    enum = parameter.get("enum")
    if not isinstance(enum, list):
        return
    if not enum:
        findings.error((*path, "enum"), "the enum is empty: it needs at least one value")
    words = [scalar_text(each) for each in enum]
    for value in (parameter.get("value"), *values):
        if words and value is not None and not has_tag(value) and scalar_text(value) not in words:
            key = "value" if value is parameter.get("value") else "default"
            findings.error((*path, key), f"{shown(value)} is not in the enum: {', '.join(words)}")


def check_names(items: Any, path: Path, what: str, findings: Findings) -> None:
    """Add why names of parameters or artifacts are not allowed, or given twice."""
    seen: set[str] = set()
    for place, item in entries(items, path):
        name = text(item.get("name"))
        if not name:
            continue
        if problem := parameter_name_problem(name):
            findings.error((*place, "name"), problem)
        if name in seen:
            findings.error((*place, "name"), f"the {what} {name!r} is given twice")
        seen.add(name)


def _check_outputs(template: Template, findings: Findings) -> None:
    outputs, path = mapping(template.data, "outputs"), (*template.path, "outputs")
    check_names(outputs.get("parameters"), (*path, "parameters"), "output parameter", findings)
    check_names(outputs.get("artifacts"), (*path, "artifacts"), "output artifact", findings)
    for place, parameter in entries(outputs.get("parameters"), (*path, "parameters")):
        _check_output(parameter, place, template, findings)
    for place, artifact in entries(outputs.get("artifacts"), (*path, "artifacts")):
        _check_artifact_path(artifact, place, template, findings)


def _check_output(parameter: dict[str, Any], path: Path, template: Template, findings: Findings) -> None:
    name, source = parameter.get("name"), parameter.get("valueFrom")
    global_name = text(parameter.get("globalName"))
    if global_name and not has_tag(global_name) and (problem := parameter_name_problem(global_name)):
        findings.error((*path, "globalName"), problem)
    if source is not None and parameter.get("value") is not None:
        findings.error(path, f"the output {name!r} has a value and a valueFrom: keep one")
        return
    if source is None:
        if parameter.get("value") is None:
            findings.error(path, f"the output {name!r} has no value: write valueFrom with one of {', '.join(_SOURCES)}")
        return
    given = [key for key in _SOURCES if mapping(source).get(key) not in (None, "")]
    place = (*path, "valueFrom")
    if len(given) != 1:
        found = " and ".join(given) or "none"
        findings.error(place, f"the output {name!r} takes one source of {', '.join(_SOURCES)}; given: {found}")
        return
    allowed = _SOURCE_OF.get(template.kind)
    if allowed and given[0] not in (*allowed, "supplied"):
        findings.error(
            place, f"an output of a {template.kind} template comes from {' or '.join(allowed)}, not {given[0]}"
        )
    file = mapping(source).get("path")
    if isinstance(file, str) and file and not file.startswith("/") and not has_tag(file):
        findings.error((*place, "path"), f"{shown(file)} is no absolute path: it starts with '/'")


def _check_artifact_path(artifact: dict[str, Any], path: Path, template: Template, findings: Findings) -> None:
    file = text(artifact.get("path"))
    if file and template.kind in ("dag", "steps"):
        findings.error((*path, "path"), "a path is for templates that run a pod")
    elif file and not file.startswith("/") and not has_tag(file):
        findings.error((*path, "path"), f"{shown(file)} is no absolute path: it starts with '/'")


def _check_limits(template: Template, findings: Findings) -> None:
    data, path = template.data, template.path
    inner = template.kind in ("dag", "steps")
    if inner and data.get("activeDeadlineSeconds") is not None:
        message = f"activeDeadlineSeconds is for templates that run a pod, not {template.kind}: set it on each of them"
        findings.error((*path, "activeDeadlineSeconds"), message)
    else:
        check_seconds(data.get("activeDeadlineSeconds"), (*path, "activeDeadlineSeconds"), findings)
    timeout = text(data.get("timeout"))
    if timeout and inner:
        findings.error((*path, "timeout"), f"timeout is for templates that run a pod, not {template.kind}")
    elif timeout and not has_tag(timeout) and (problem := go_duration_problem(timeout)):
        findings.error((*path, "timeout"), problem)
    parallelism = data.get("parallelism")
    if parallelism is not None and template.kind and not inner:
        findings.error((*path, "parallelism"), f"parallelism is for dag and steps templates, not {template.kind}")
    check_duration(mapping(data, "suspend").get("duration"), (*path, "suspend", "duration"), findings)


def _check_container(template: Template, context: Context) -> None:
    data, path, findings = template.data, template.path, context.findings
    for kind in ("container", "script"):
        part = data.get(kind)
        if isinstance(part, dict) and not part.get("image") and not mapping(context.defaults, kind).get("image"):
            findings.error((*path, kind), "image is missing: no container starts without one")
    containers = mapping(data, "containerSet").get("containers")
    known = names(containers)
    for place, container in entries(containers, (*path, "containerSet", "containers")):
        for name in elements(container.get("dependencies")):
            if name not in known:
                findings.error((*place, "dependencies"), f"no container has the name {name!r}")
    has_files = mapping(data, "outputs") or mapping(data, "inputs").get("artifacts")
    if containers and has_files and "main" not in known:
        findings.error((*path, "containerSet", "containers"), "inputs and outputs need a container named 'main'")


def _check_resource(resource: dict[str, Any], path: Path, findings: Findings) -> None:
    if not resource:
        return
    manifest, other = resource.get("manifest"), resource.get("manifestFrom")
    action = text(resource.get("action"))
    if manifest and other:
        findings.error(path, "manifest and manifestFrom are both given: keep one")
    if action not in _READING and not has_tag(action) and not manifest and not other:
        findings.error(path, f"manifest is missing: the action {action!r} needs one")
    if isinstance(manifest, str) and manifest:
        _check_manifest(manifest, action, (*path, "manifest"), findings)
    for key in ("successCondition", "failureCondition"):
        condition = text(resource.get(key))
        if condition and (problem := selector_problem(without_tags(condition))):
            findings.error((*path, key), problem)


def _check_manifest(manifest: str, action: str, path: Path, findings: Findings) -> None:
    try:
        data = plain_data(without_tags(manifest, "tag"))
    except LintError as error:
        findings.error(path, f"the manifest is not YAML: {error}")
        return
    if not isinstance(data, dict):
        if not (isinstance(data, str) and has_tag(manifest)):
            findings.error(path, "the manifest is not a mapping with apiVersion, kind and metadata")
        return
    needed = [] if action == "patch" else ["apiVersion", "kind"]
    for key in needed:
        if not data.get(key):
            findings.error(path, f"{key} is missing in the manifest")
    metadata = mapping(data, "metadata")
    if action != "patch" and not metadata.get("name") and not metadata.get("generateName"):
        findings.error(path, "metadata.name or metadata.generateName is missing in the manifest")
    if action == "apply" and not metadata.get("name"):
        findings.error(path, "the action apply needs metadata.name: generateName makes a new object, use create")


def _check_metrics(metrics: Any, path: Path, findings: Findings) -> None:
    for place, metric in entries(metrics, path):
        if not _METRIC_NAME.fullmatch(text(metric.get("name"))):
            findings.error(
                (*place, "name"), f"{shown(metric.get('name'))} is no name of a metric: letters, digits, '_'"
            )
        kinds = [kind for kind in ("counter", "gauge", "histogram") if metric.get(kind) is not None]
        if len(kinds) != 1:
            findings.error(
                place, f"a metric is one of counter, gauge, histogram; given: {' and '.join(kinds) or 'none'}"
            )
