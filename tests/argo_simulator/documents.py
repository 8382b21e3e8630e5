"""Reads a workflow's documents as a submission does: its spec, its parameters, the ConfigMaps beside it."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from argo_simulator.errors import ExpressionError, SimulationRefused, TemplateError, Unsupported
from argo_simulator.expressions import evaluate, evaluate_bool, go_json
from argo_simulator.substitution import nested, replace

KINDS = ("Workflow", "WorkflowTemplate", "CronWorkflow")
# The bodies of templates: one of them is a template's type.
BODIES = ("container", "script", "dag", "steps", "suspend", "resource")
# MAX_WORKFLOW_SIZE of the controller.
_MOST_WORKFLOW = 1 << 20
# Lists that the merge with the defaults merges by this key (the patchMergeKey of Go's types); others it replaces.
_MERGE_KEYS = {
    **dict.fromkeys(("env", "volumes", "initContainers", "sidecars", "volumeDevices"), "name"),
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "tolerations": "key",
    "hostAliases": "ip",
}
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
# What the walk would do wrong without.
_UNSUPPORTED_SPEC = ("hooks", "artifactRepositoryRef", "workflowTemplateRef", "suspend")


@dataclass(frozen=True)
class Submission:
    """One run of a workflow: its spec with the parameters' values, and the global variables.

    :ivar templates: each laid over the defaults, as it runs.
    :ivar written: each as it was written: so the validation sees them.
    :ivar labels: of the Workflow object.
    """

    name: str
    uid: str
    namespace: str
    spec: dict[str, Any]
    templates: dict[str, dict[str, Any]]
    written: dict[str, dict[str, Any]]
    labels: dict[str, str]
    variables: dict[str, str]
    config_maps: dict[str, dict[str, str]]
    text: str


def read(source: Any) -> list[dict[str, Any]]:
    """Return the documents of a file, a text or a list of them."""
    if isinstance(source, Path):
        source = source.read_text()
    if isinstance(source, str):
        source = list(yaml.safe_load_all(source if "\n" in source else Path(source).read_text()))
    documents: Sequence[Any] = [source] if isinstance(source, Mapping) else source
    # Through JSON, as Kubernetes stores it: no dates, no shared parts.
    return [json.loads(json.dumps(each, default=_text)) for each in documents if each]


def submit(
    source: Any,
    parameters: Mapping[str, str],
    *,
    name: str | None = None,
    uid: str | None = None,
    created: datetime | None = None,
    scheduled_time: datetime | None = None,
    namespace: str = "argo",
    config_maps: Mapping[str, Mapping[str, str]] | None = None,
) -> Submission:
    """Make a run of the one workflow among the documents."""
    documents = read(source)
    workflows = [each for each in documents if each.get("kind") in KINDS]
    if len(workflows) != 1:
        raise SimulationRefused(f"{len(workflows)} workflows among the documents: {[e.get('kind') for e in documents]}")
    document = workflows[0]
    kind, metadata = document["kind"], document.get("metadata", {})
    spec = copy.deepcopy(document["spec"]["workflowSpec"] if kind == "CronWorkflow" else document["spec"])
    for key in _UNSUPPORTED_SPEC:
        if spec.get(key):
            raise Unsupported(f"spec.{key}")
    created = (created or datetime.now(UTC)).astimezone(UTC)
    if kind == "CronWorkflow":
        _check_when(str(document["spec"].get("when") or ""), created)
    if name is None and kind == "Workflow" and "name" in metadata:
        name = metadata["name"]
    name = name or f"{metadata.get('name') or metadata.get('generateName', 'workflow-').rstrip('-')}-abc12"
    if len(name) > 63:
        raise SimulationRefused(f"the workflow's name {name!r} is longer than 63 characters")
    _set_parameters(spec, parameters)
    _check_size(kind, spec, parameters)
    uid = uid or str(uuid.uuid4())
    annotations, labels = _metadata_of_run(kind, metadata, document["spec"], spec)
    variables = {
        "workflow.name": name,
        "workflow.namespace": metadata.get("namespace") or namespace,
        "workflow.mainEntrypoint": str(spec.get("entrypoint", "")),
        "workflow.serviceAccountName": str(spec.get("serviceAccountName", "")),
        "workflow.uid": uid,
        "workflow.creationTimestamp": rfc3339(created),
        "workflow.creationTimestamp.RFC3339": rfc3339(created),
        "workflow.creationTimestamp.s": str(int(created.timestamp())),
        **{f"workflow.creationTimestamp.{c}": created.strftime(f"%{c}") for c in "BbmAadHIMYySZ"},
        **_parameter_variables(spec),
        **{f"workflow.annotations.{key}": value for key, value in annotations.items()},
        **{f"workflow.labels.{key}": value for key, value in labels.items()},
        "workflow.annotations.json": json.dumps(annotations),
        "workflow.labels.json": json.dumps(labels),
    }
    if kind == "CronWorkflow":
        variables["workflow.scheduledTime"] = rfc3339(scheduled_time or created.replace(second=0, microsecond=0))
    elif scheduled_time is not None:
        raise ValueError("scheduled_time is of a CronWorkflow only")
    more_labels = _labels_from(spec.get("workflowMetadata", {}).get("labelsFrom") or {}, variables)
    variables |= {f"workflow.labels.{key}": value for key, value in more_labels.items()}
    defaults = _defaults(spec.get("templateDefaults") or {}, variables)
    written = {each.get("name", ""): each for each in spec.get("templates") or []}
    found_maps = {e["metadata"]["name"]: _texts(e.get("data", {})) for e in documents if e.get("kind") == "ConfigMap"}
    return Submission(
        name=name,
        uid=uid,
        namespace=variables["workflow.namespace"],
        spec=spec,
        templates={key: _with_defaults(each, defaults) for key, each in written.items()},
        written=written,
        labels=labels | more_labels,
        variables=variables,
        config_maps={**found_maps, **{key: _texts(value) for key, value in (config_maps or {}).items()}},
        text=json.dumps(documents),
    )


def _check_when(when: str, now: datetime) -> None:
    """Hold the condition of a CronWorkflow (evalWhen in cron/operator.go) against the time.

    :raises SimulationRefused: it is false, and no run begins.
    """
    if not when:
        return
    expression = re.fullmatch(r"\{\{=(.*)\}\}", when.strip(), re.DOTALL)
    if expression is None or "cronworkflow" in when:
        raise Unsupported(f"spec.when: {when}")
    env = {"now": lambda: now, "date": lambda text: datetime.fromisoformat(text)}
    if not evaluate_bool(expression.group(1), env):
        raise SimulationRefused(f"no run begins at {rfc3339(now)}: {when}")


def rfc3339(moment: datetime) -> str:
    """Format a moment as Go's time.RFC3339 in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def any_string(value: Any) -> str:
    """Return the text of a value where Argo takes any scalar (AnyString)."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def _set_parameters(spec: dict[str, Any], values: Mapping[str, str]) -> None:
    declared = spec.setdefault("arguments", {}).setdefault("parameters", [])
    known = {each["name"] for each in declared}
    for name in values:
        if name not in known:
            # `argo submit` adds a parameter that the workflow does not declare; nothing can read it by mistake here.
            declared.append({"name": name})
    for each in declared:
        if each["name"] in values:
            each["value"] = values[each["name"]]
        if "value" not in each:
            raise SimulationRefused(f"spec.arguments.{each['name']}.value is required")
        each["value"] = any_string(each["value"])
        if "enum" in each and each["value"] not in list(map(any_string, each["enum"])):
            raise SimulationRefused(f"spec.arguments.{each['name']}.value should be present in its enum list")


def _check_size(kind: str, spec: dict[str, Any], given: Mapping[str, str]) -> None:
    """Check the size of a run's object: of one from a template the status has the whole spec, with what was given."""
    size = len(go_json(spec).encode()) + (len(go_json(dict(given)).encode()) if kind == "WorkflowTemplate" else 0)
    if size > _MOST_WORKFLOW:
        raise SimulationRefused(f"workflow is longer than maximum allowed size: {size} bytes of {_MOST_WORKFLOW}")


def _parameter_variables(spec: dict[str, Any]) -> dict[str, str]:
    order = ("name", "default", "value", "valueFrom", "globalName", "enum", "description")
    parameters = [{key: each[key] for key in order if key in each} for each in spec["arguments"]["parameters"]]
    text = go_json(parameters, is_map=False)
    return {
        "workflow.parameters": text,
        "workflow.parameters.json": text,
        **{f"workflow.parameters.{each['name']}": each["value"] for each in parameters},
    }


def _metadata_of_run(
    kind: str, metadata: dict[str, Any], outer: dict[str, Any], spec: dict[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return a run's annotations and labels: those of a WorkflowTemplate or CronWorkflow itself are not handed on."""
    own = {"Workflow": metadata, "CronWorkflow": outer.get("workflowMetadata", {})}.get(kind, {})
    added = spec.get("workflowMetadata", {})
    return (
        {**_texts(own.get("annotations", {})), **_texts(added.get("annotations", {}))},
        {**_texts(own.get("labels", {})), **_texts(added.get("labels", {}))},
    )


def _labels_from(wanted: dict[str, Any], variables: dict[str, str]) -> dict[str, str]:
    """Return the labels of a run that are expressions (updateWorkflowMetadata): one that is no label ends the run."""
    found = {}
    for name, source in wanted.items():
        try:
            value = evaluate(source["expression"], nested(variables))
        except ExpressionError as error:
            raise SimulationRefused(f"failed to evaluate label {name!r}: {error}") from error
        if not isinstance(value, str) or len(value) > 63 or not _LABEL.fullmatch(value):
            raise SimulationRefused(f"invalid label value {value!r} for label {name!r}")
        found[name] = value
    return found


def _defaults(defaults: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """Return spec.templateDefaults with the global variables in it (substituteGlobalVariables).

    Once more than in a template: what a value brings in is replaced again with the template.
    """
    try:
        return dict(replace(defaults, variables))
    except TemplateError as error:
        raise SimulationRefused(f"spec.templateDefaults: {error}") from error


def _with_defaults(template: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Lay a template over spec.templateDefaults by a strategic merge (mergedTemplateDefaultsInto).

    All but the bodies of other types reaches every template: a retryStrategy the DAG as well.
    """
    defaults = {key: value for key, value in defaults.items() if key not in BODIES or template.get(key) is not None}
    if "script" in template:
        # Go writes a template's source even where it is empty, and so over the defaults'.
        template = {**template, "script": {"source": "", **template["script"]}}
    return dict(_laid_over(defaults, template))


def _laid_over(base: Any, over: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{name: _laid_over(base.get(name), value, name) for name, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and key in _MERGE_KEYS:
        by = _MERGE_KEYS[key]
        named = {each[by]: each for each in over}
        kept = [_laid_over(each, named.pop(each[by], None)) for each in base]
        return [*kept, *map(copy.deepcopy, named.values())]
    return copy.deepcopy(base if over is None else over)


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(base if over is None else over)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): any_string(value) for key, value in (values or {}).items()}


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
