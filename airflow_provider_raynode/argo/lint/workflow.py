"""The checks of one document: a workflow of any kind, or another object of Kubernetes."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_raynode.argo.lint.calls import (
    check_argument_values,
    check_arguments,
    check_hooks,
    check_template_name,
)
from airflow_provider_raynode.argo.lint.context import POD_TYPES, Context, Template
from airflow_provider_raynode.argo.lint.cron import cron_problem, timezone_problem
from airflow_provider_raynode.argo.lint.document import Document
from airflow_provider_raynode.argo.lint.duration import argo_duration_problem
from airflow_provider_raynode.argo.lint.fields import check_object
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.flow import check_flow
from airflow_provider_raynode.argo.lint.naming import (
    field_name_problem,
    generate_name_problem,
    label_key_problem,
    label_value_problem,
    object_name_problem,
    pod_name_problem,
)
from airflow_provider_raynode.argo.lint.pod_sizes import check_pod_sizes
from airflow_provider_raynode.argo.lint.reading import entries, has_tag, mapping, text
from airflow_provider_raynode.argo.lint.references import check_references, texts
from airflow_provider_raynode.argo.lint.synchronization import check_semaphore_keys, check_synchronization
from airflow_provider_raynode.argo.lint.tags import unclosed
from airflow_provider_raynode.argo.lint.templates import (
    check_enum,
    check_pod_spec_patch,
    check_retry_strategy,
    check_seconds,
    check_template,
)
from airflow_provider_raynode.argo.lint.variables import GlobalVariables, Variables
from airflow_provider_raynode.argo.lint.volumes import check_volume_names
from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.config._values import shown

KINDS = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")
_VERSION = "argoproj.io/v1alpha1"
_MOST_NAME = 63
_MOST_CRON_NAME = 52
_MOST_OTHER_NAME = 253
_MOST_BYTES = 1_048_576
_WARN_BYTES = _MOST_BYTES * 8 // 10
_MOST_ANNOTATIONS = 256 * 1024
# Go writes these as \u003c and the like: six bytes for one.
_ESCAPED = re.compile("[<>&]")
_CRON_ROOTS = frozenset({"cronworkflow"})


def check_document(document: Document, findings: Findings, config_maps: dict[str, dict[str, Any]]) -> None:
    """Add all that is wrong in a document.

    :param config_maps: the `data` of each ConfigMap in the same file, by name.
    """
    data = document.data
    if not isinstance(data, dict):
        if not document.problems:
            findings.error((), f"the document is {shown(data)}, not a mapping with apiVersion, kind and metadata")
        return
    kind = data.get("kind")
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str) or not data[key]:
            findings.error((), f"{key} is missing: every object of Kubernetes has one")
    if kind not in KINDS:
        _check_other(data, findings)
        return
    if data.get("apiVersion") not in (None, _VERSION):
        findings.error(("apiVersion",), f"{shown(data['apiVersion'])} is not the version of a {kind}: {_VERSION}")
    check_object(str(kind), data, (), findings)
    _check_metadata(mapping(data, "metadata"), ("metadata",), str(kind), findings)
    _check_size(data, findings)
    path: Path = ("spec",)
    spec = mapping(data, "spec")
    cron: dict[str, Any] = {}
    if kind == "CronWorkflow":
        _check_cron(spec, path, findings)
        cron, path, spec = mapping(spec, "workflowMetadata"), ("spec", "workflowSpec"), mapping(spec, "workflowSpec")
    context = Context(str(kind), spec, path, mapping(data, "metadata"), findings, cron)
    _check_spec(context)
    check_pod_sizes(context)
    _check_semaphores(context, config_maps)


def _check_other(data: dict[str, Any], findings: Findings) -> None:
    if str(data.get("apiVersion", "")).startswith("argoproj.io/") and isinstance(data.get("kind"), str):
        near = did_you_mean(data["kind"], KINDS)
        if near != ";":
            findings.error(("kind",), f"{data['kind']!r} is no kind of Argo Workflows{near}")
    metadata = mapping(data, "metadata")
    if not metadata.get("name") and not metadata.get("generateName"):
        findings.error(("metadata",), "metadata.name is missing: every object of Kubernetes has a name")
    elif problem := object_name_problem(text(metadata.get("name")) or "a", _MOST_OTHER_NAME):
        findings.error(("metadata", "name"), problem)
    _check_labels(metadata, ("metadata",), findings)
    if data.get("kind") in ("ConfigMap", "Secret"):
        for key, value in mapping(data, "data").items():
            if not isinstance(value, str):
                findings.error(("data", key), f"{shown(value)} is not text: put it in quotes")


def _check_metadata(metadata: dict[str, Any], path: Path, kind: str, findings: Findings) -> None:
    name, start = metadata.get("name"), metadata.get("generateName")
    most = _MOST_CRON_NAME if kind == "CronWorkflow" else _MOST_NAME
    why = ": the time of the run is added to it" if kind == "CronWorkflow" else ""
    if not name and not start:
        findings.error(path, f"name is missing: a {kind} needs name or generateName")
    if isinstance(name, str) and name and (problem := object_name_problem(name, most, why)):
        findings.error((*path, "name"), problem)
    if isinstance(start, str) and start and not name and (problem := generate_name_problem(start, most)):
        findings.error((*path, "generateName"), problem)
    _check_labels(metadata, path, findings)


def _check_labels(metadata: dict[str, Any], path: Path, findings: Findings) -> None:
    for field in ("labels", "annotations"):
        for key, value in mapping(metadata, field).items():
            place = (*path, field, key)
            if not has_tag(key) and (problem := label_key_problem(key)):
                findings.error(place, problem)
            is_label = field == "labels" and isinstance(value, str) and not has_tag(value)
            if is_label and (problem := label_value_problem(value)):
                findings.error(place, problem)
    size = sum(len(f"{key}{value}".encode()) for key, value in mapping(metadata, "annotations").items())
    if size > _MOST_ANNOTATIONS:
        findings.error(
            (*path, "annotations"), f"the annotations have {size} bytes, Kubernetes allows {_MOST_ANNOTATIONS}"
        )


def _check_size(data: dict[str, Any], findings: Findings) -> None:
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
    size = len(written.encode()) + 5 * len(_ESCAPED.findall(written))
    if size <= _WARN_BYTES:
        _check_applied(data, size, findings)
        return
    remedy = (
        "split it into WorkflowTemplates that its tasks call by templateRef, have fewer tasks, or shorten what each of"
        " them repeats; Argo's compression and offloading are for the status of the nodes and do not help"
    )
    message = (
        f"the object has {size} bytes of JSON: Argo keeps a workflow in one Kubernetes object, etcd refuses more than"
        f" 1 MiB ({_MOST_BYTES} bytes): {remedy}"
    )
    if size > _MOST_BYTES:
        findings.error((), message)
    else:
        findings.warning((), message)


def _check_applied(data: dict[str, Any], size: int, findings: Findings) -> None:
    """Add a warning where plain `kubectl apply` fails: it keeps a copy of the object in an annotation."""
    metadata = mapping(data, "metadata")
    size += sum(len(f"{key}{value}".encode()) for key, value in mapping(metadata, "annotations").items())
    if size > _MOST_ANNOTATIONS and metadata.get("name"):
        findings.warning(
            (),
            f"the object has {size} bytes of JSON: kubectl apply keeps a copy of it in an annotation, and Kubernetes"
            f" takes {_MOST_ANNOTATIONS} bytes of those: use kubectl apply --server-side",
        )


def _check_cron(spec: dict[str, Any], path: Path, findings: Findings) -> None:
    schedules = spec.get("schedules")
    if schedules == []:
        findings.error((*path, "schedules"), "the list is empty: a CronWorkflow needs a schedule")
    zone = text(spec.get("timezone"))
    if problem := timezone_problem(zone):
        findings.error((*path, "timezone"), problem)
    for index, line in enumerate(schedules if isinstance(schedules, list) else ()):
        place = (*path, "schedules", index)
        if isinstance(line, str) and (problem := cron_problem(line)):
            findings.error(place, problem)
        elif zone and "TZ=" in str(line):
            findings.error(place, f"{shown(line)} names a time zone, and spec.timezone does: keep spec.timezone")
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        if isinstance(spec.get(key), int) and spec[key] < 0:
            findings.error((*path, key), f"{spec[key]} is negative: 0 or more")
    _check_labels(mapping(spec, "workflowMetadata"), (*path, "workflowMetadata"), findings)
    known = Variables(GlobalVariables("CronWorkflow"), more_roots=_CRON_ROOTS)
    check_references(spec.get("stopStrategy"), (*path, "stopStrategy"), known, findings)
    check_references(spec.get("when"), (*path, "when"), known, findings)


def _check_spec(context: Context) -> None:
    spec, path, findings = context.spec, context.path, context.findings
    _check_templates(context)
    _check_starts(context)
    arguments = (*path, "arguments")
    may_be_open = context.is_template or context.is_elsewhere
    check_argument_values(spec.get("arguments"), arguments, findings, may_be_open=may_be_open)
    for place, parameter in entries(mapping(spec, "arguments").get("parameters"), (*arguments, "parameters")):
        check_enum(parameter, place, findings)
    known = Variables(context.variables, inputs=None, input_artifacts=None, in_exit=True, in_metrics=True, is_pod=True)
    check_hooks(spec.get("hooks"), (*path, "hooks"), known, context)
    _check_settings(context)
    skip = frozenset((*path, key) for key in ("templates", "hooks", "arguments"))
    check_references(spec, path, known, findings, skip)
    # The values of arguments are user text: Argo replaces only what it knows, and fails on a tag without an end.
    for place, value in texts(spec.get("arguments"), arguments):
        if "{{" in value and (start := unclosed(value)) is not None:
            findings.error(place, f"{shown(start)}: '{{{{' has no '}}}}': Argo would look for it in what follows")


def _check_templates(context: Context) -> None:
    findings = context.findings
    if context.is_elsewhere and context.all_templates:
        findings.error((*context.path, "templates"), "templates and workflowTemplateRef do not go together: keep one")
    seen: set[str] = set()
    for template in context.all_templates:
        name = template.name
        if not name:
            findings.error(template.path, "name is missing: a template needs one")
        elif problem := field_name_problem(name) or (template.kind in POD_TYPES and pod_name_problem(name)):
            findings.error((*template.path, "name"), problem)
        if name and name in seen:
            findings.error((*template.path, "name"), f"the template {name!r} is given twice")
        seen.add(name)
        check_flow(template, context)
    for template in context.every_template:
        check_template(template, context)
        check_volume_names(template.data, template.path, context)
        _check_labels(mapping(template.data, "metadata"), (*template.path, "metadata"), findings)
    _check_unused(context)


def _check_unused(context: Context) -> None:
    if not context.spec.get("entrypoint") or context.has_dynamic_calls:
        return
    for template in context.all_templates:
        if template.name and template.name not in context.reached:
            message = f"the template {template.name!r} is not used: nothing that the entrypoint runs calls it"
            context.findings.warning((*template.path, "name"), message)


def _check_starts(context: Context) -> None:
    """Check what runs first and last, and that it gets its inputs from the workflow's arguments."""
    spec, path = context.spec, context.path
    if not spec.get("entrypoint") and not context.is_template and not context.is_elsewhere:
        context.findings.error(path, "entrypoint is missing: the name of the template that starts")
    for key in ("entrypoint", "onExit"):
        name = text(spec.get(key))
        template = check_template_name(name, (*path, key), context) if name else None
        if template is not None:
            _check_start(template, (*path, key), context)


def _check_start(template: Template, path: Path, context: Context) -> None:
    given = mapping(context.spec, "arguments")
    narrowed = {
        kind: [each for _, each in entries(given.get(kind), ()) if each.get("name") in names]
        for kind, names in (("parameters", template.parameters), ("artifacts", template.artifacts))
    }
    check_arguments(narrowed, path, template, context)


def _check_settings(context: Context) -> None:
    spec, path, findings = context.spec, context.path, context.findings
    check_seconds(spec.get("activeDeadlineSeconds"), (*path, "activeDeadlineSeconds"), findings)
    check_retry_strategy(spec.get("retryStrategy"), (*path, "retryStrategy"), findings)
    check_synchronization(spec.get("synchronization"), (*path, "synchronization"), findings)
    check_pod_spec_patch(spec.get("podSpecPatch"), (*path, "podSpecPatch"), findings)
    check_volume_names(spec, path, context)
    _check_labels(mapping(spec, "workflowMetadata"), (*path, "workflowMetadata"), findings)
    _check_labels(mapping(spec, "podMetadata"), (*path, "podMetadata"), findings)
    delay = text(mapping(spec, "podGC").get("deleteDelayDuration"))
    if delay and (problem := argo_duration_problem(delay)):
        findings.error((*path, "podGC", "deleteDelayDuration"), problem)
    for key, seconds in mapping(spec, "ttlStrategy").items():
        if isinstance(seconds, int) and seconds < 0:
            findings.error((*path, "ttlStrategy", key), f"{seconds} is negative: 0 or more seconds")
    parallelism = spec.get("parallelism")
    if isinstance(parallelism, int) and parallelism < 1:
        findings.error((*path, "parallelism"), f"{parallelism} lets no pod run: 1 or more")
    defaults = mapping(spec, "templateDefaults")
    check_retry_strategy(defaults.get("retryStrategy"), (*path, "templateDefaults", "retryStrategy"), findings)
    check_seconds(defaults.get("activeDeadlineSeconds"), (*path, "templateDefaults", "activeDeadlineSeconds"), findings)
    check_pod_spec_patch(defaults.get("podSpecPatch"), (*path, "templateDefaults", "podSpecPatch"), findings)


def _check_semaphores(context: Context, config_maps: dict[str, dict[str, Any]]) -> None:
    if not config_maps:
        return
    spec, path = context.spec, context.path
    check_semaphore_keys(spec.get("synchronization"), (*path, "synchronization"), config_maps, context.findings)
    for template in context.every_template:
        place = (*template.path, "synchronization")
        check_semaphore_keys(template.data.get("synchronization"), place, config_maps, context.findings)
