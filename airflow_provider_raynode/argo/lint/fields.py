"""Field-level validation: the data is walked beside the annotations of hera's models of Argo and Kubernetes.

hera's own validation drops unknown fields and turns numbers into text, so its models are only read: their names, their
kinds, what is required. Each model becomes a function once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin

from airflow_provider_raynode.argo.lint.duration import quantity_problem
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.config._section import did_you_mean, one_of
from airflow_provider_raynode.config._values import shown

Check = Callable[[Any, Path, Findings], None]

# Argo's AnyString: hera says text, Argo takes any scalar and makes text of it.
_ANY_SCALAR = frozenset(
    {("Parameter", "value"), ("Parameter", "default"), ("Parameter", "enum"), ("ValueFrom", "default")}
)
# hera says int; Kubernetes takes a port's name as well.
_NAMED_PORTS = frozenset({("HTTPGetAction", "port"), ("TCPSocketAction", "port")})
# Free in Argo's own schema, or written by the controller only.
_FREE_MODELS = frozenset({"Plugin", "Item", "FieldsV1", "ManagedFieldsEntry", "WorkflowStatus", "CronWorkflowStatus"})
_GONE = {
    ("CronWorkflowSpec", "schedule"): "is gone since Argo 4: write schedules, a list: schedules: ['{value}']",
    ("Synchronization", "mutex"): "is gone since Argo 4: write mutexes, a list",
    ("Synchronization", "semaphore"): "is gone since Argo 4: write semaphores, a list",
    ("WorkflowSpec", "podPriority"): "is gone since Argo 3.7: write podPriorityClassName",
    ("Template", "priority"): "is gone since Argo 3.7: write priorityClassName",
}
_PULL = ("Always", "IfNotPresent", "Never")
_WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("CronWorkflowSpec", "concurrencyPolicy"): ("Allow", "Forbid", "Replace"),
    ("PodGC", "strategy"): ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"),
    ("VolumeClaimGC", "strategy"): ("OnWorkflowCompletion", "OnWorkflowSuccess"),
    ("ArtifactGC", "strategy"): ("OnWorkflowCompletion", "OnWorkflowDeletion", "Never"),
    ("RetryStrategy", "retryPolicy"): ("Always", "OnFailure", "OnError", "OnTransientError"),
    ("ResourceTemplate", "action"): ("get", "create", "apply", "delete", "replace", "patch"),
    ("ResourceTemplate", "mergeStrategy"): ("strategic", "merge", "json"),
    ("WorkflowSpec", "shutdown"): ("Terminate", "Stop"),
    ("WorkflowSpec", "dnsPolicy"): ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    ("PodSpec", "dnsPolicy"): ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    ("PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("Container", "imagePullPolicy"): _PULL,
    ("ScriptTemplate", "imagePullPolicy"): _PULL,
    ("UserContainer", "imagePullPolicy"): _PULL,
    ("ContainerNode", "imagePullPolicy"): _PULL,
    ("Toleration", "operator"): ("Exists", "Equal"),
    ("Toleration", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("NodeSelectorRequirement", "operator"): ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    ("LabelSelectorRequirement", "operator"): ("In", "NotIn", "Exists", "DoesNotExist"),
}
# hera has no PodSpec: Argo's schema has no need of it. Names as in hera.workflows.models; a list stands for a list.
_POD_SPEC: dict[str, Any] = {
    "activeDeadlineSeconds": int,
    "affinity": "Affinity",
    "automountServiceAccountToken": bool,
    "containers": ["Container"],
    "dnsConfig": "PodDNSConfig",
    "dnsPolicy": str,
    "enableServiceLinks": bool,
    "ephemeralContainers": Any,
    "hostAliases": ["HostAlias"],
    "hostIPC": bool,
    "hostNetwork": bool,
    "hostPID": bool,
    "hostUsers": bool,
    "hostname": str,
    "hostnameOverride": str,
    "imagePullSecrets": ["LocalObjectReference"],
    "initContainers": ["Container"],
    "nodeName": str,
    "nodeSelector": dict[str, str],
    "os": Any,
    "overhead": Any,
    "preemptionPolicy": str,
    "priority": int,
    "priorityClassName": str,
    "readinessGates": Any,
    "resourceClaims": Any,
    "resources": "ResourceRequirements",
    "restartPolicy": str,
    "runtimeClassName": str,
    "schedulerName": str,
    "schedulingGates": Any,
    "securityContext": "PodSecurityContext",
    "serviceAccount": str,
    "serviceAccountName": str,
    "setHostnameAsFQDN": bool,
    "shareProcessNamespace": bool,
    "subdomain": str,
    "terminationGracePeriodSeconds": int,
    "tolerations": ["Toleration"],
    "topologySpreadConstraints": Any,
    "volumes": ["Volume"],
}


def check_object(model_name: str, data: Any, path: Path, findings: Findings, *, patch: bool = False) -> None:
    """Add what in `data` is no such object: unknown keys, wrong kinds, missing fields.

    :param model_name: name of a model in `hera.workflows.models`, or `PodSpec`.
    :param patch: whether `data` is a strategic merge patch: nothing is required, `$patch` and null are allowed.
    :raises KeyError: there is no such model.
    """
    _object_check(model_name, patch)(data, path, findings)


@cache
def _object_check(name: str, patch: bool) -> Check:
    return _Object(name, patch).check


@dataclass(frozen=True)
class _Field:
    check: Check
    required: bool


class _Object:
    """The check of one model; its fields are read when the first object is looked at, for models contain themselves."""

    def __init__(self, name: str, patch: bool) -> None:
        self._name = name
        self._patch = patch
        self._fields: dict[str, _Field] | None = None
        self._required: tuple[str, ...] = ()

    def check(self, data: Any, path: Path, findings: Findings) -> None:
        if not isinstance(data, dict):
            findings.error(path, f"{_said(data)} is not a mapping (key: value): a {self._name} is needed")
            return
        if self._fields is None:
            self._fields = self._read()
            self._required = () if self._patch else tuple(n for n, each in self._fields.items() if each.required)
        for key, value in data.items():
            field = self._fields.get(key)
            if field is None:
                self._unknown(key, value, path, findings)
            elif value is not None:
                field.check(value, (*path, key), findings)
        for key in self._required:
            if data.get(key) is None:
                findings.error(path, f"{key} is missing: a {self._name} needs it")

    def _unknown(self, key: str, value: Any, path: Path, findings: Findings) -> None:
        if self._patch and key.startswith("$"):
            return
        if gone := _GONE.get((self._name, key)):
            findings.error((*path, key), gone.replace("{value}", str(value)))
            return
        names = ", ".join(self._fields or {})
        hint = did_you_mean(key, self._fields or {})
        findings.error((*path, key), f"unknown key {key!r} in a {self._name}{hint} allowed: {names}")

    def _read(self) -> dict[str, _Field]:
        if self._name == "PodSpec":
            return {key: _Field(self._special(key) or self._of(kind), False) for key, kind in _POD_SPEC.items()}
        fields = _model(self._name).model_fields
        found = {}
        for name, info in fields.items():
            key = info.alias or name
            found[key] = _Field(self._special(key) or self._of(info.annotation), info.is_required())
        return found

    def _special(self, key: str) -> Check | None:
        place = (self._name, key)
        if place in _ANY_SCALAR:
            return _scalars if key == "enum" else _any_scalar
        if place in _NAMED_PORTS:
            return _integer_or_text
        if words := _WORDS.get(place):
            return _one_of(words)
        return None

    def _of(self, annotation: Any) -> Check:
        return _check_of(annotation, self._patch)


def _model(name: str) -> Any:
    # hera takes most of a second to import, and what runs in a pod has no use for it.
    from hera.workflows import models

    found = getattr(models, name, None)
    if found is None:
        raise KeyError(f"hera.workflows.models has no model {name}")
    return found


def _check_of(annotation: Any, patch: bool) -> Check:
    if isinstance(annotation, str):
        return _object_check(annotation, patch)
    if isinstance(annotation, list):
        return _list_of(_check_of(annotation[0], patch), patch)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [each for each in inner if each is not type(None)]
        return _check_of(kinds[0], patch) if len(kinds) == 1 else _integer_or_text
    if origin is list:
        return _list_of(_check_of(inner[0], patch), patch)
    if origin is dict:
        return _mapping_of(_check_of(inner[1], patch), patch)
    if hasattr(annotation, "__metadata__"):
        return _text
    if isinstance(annotation, type):
        return _of_class(annotation, patch)
    return _anything


def _of_class(kind: type, patch: bool) -> Check:
    if simple := _SIMPLE.get(kind.__name__):
        return simple
    if kind.__name__ in _FREE_MODELS:
        return _anything
    fields: Mapping[str, Any] = getattr(kind, "model_fields", {})
    if set(fields) == {"root"}:
        return _check_of(fields["root"].annotation, patch)
    return _object_check(kind.__name__, patch) if fields else _empty_object


def _list_of(check: Check, patch: bool) -> Check:
    def checked(data: Any, path: Path, findings: Findings) -> None:
        if not isinstance(data, list):
            findings.error(path, f"{_said(data)} is not a list ([a, b, …])")
            return
        for index, each in enumerate(data):
            if each is None:
                findings.error((*path, index), "an entry of the list is empty")
            else:
                check(each, (*path, index), findings)

    return checked


def _mapping_of(check: Check, patch: bool) -> Check:
    def checked(data: Any, path: Path, findings: Findings) -> None:
        if not isinstance(data, dict):
            findings.error(path, f"{_said(data)} is not a mapping (key: value)")
            return
        for key, each in data.items():
            if each is not None:
                check(each, (*path, key), findings)
            elif not patch:
                findings.error((*path, key), "has no value: write '' for an empty text")

    return checked


def _one_of(words: tuple[str, ...]) -> Check:
    def checked(data: Any, path: Path, findings: Findings) -> None:
        # A word from a parameter is known only when the workflow runs.
        if not (isinstance(data, str) and (data in words or data == "" or "{{" in data)):
            findings.error(path, one_of(data, words))

    return checked


def _text(data: Any, path: Path, findings: Findings) -> None:
    if not isinstance(data, str):
        findings.error(path, f"{_said(data)} is not text{_quotes(data)}")


def _integer(data: Any, path: Path, findings: Findings) -> None:
    if isinstance(data, bool) or not isinstance(data, int):
        hint = ": write it without quotes" if isinstance(data, str) and data.lstrip("-").isdigit() else ""
        if isinstance(data, str) and "{{" in data:
            hint = ": the field takes no template tag, podSpecPatch does"
        findings.error(path, f"{_said(data)} is not a whole number{hint}")


def _number(data: Any, path: Path, findings: Findings) -> None:
    if isinstance(data, bool) or not isinstance(data, int | float):
        findings.error(path, f"{_said(data)} is not a number")


def _boolean(data: Any, path: Path, findings: Findings) -> None:
    if not isinstance(data, bool):
        findings.error(path, f"{_said(data)} is not true or false")


def _integer_or_text(data: Any, path: Path, findings: Findings) -> None:
    if isinstance(data, bool) or not isinstance(data, int | str):
        findings.error(path, f"{_said(data)} is not a whole number or text")


def _quantity(data: Any, path: Path, findings: Findings) -> None:
    if isinstance(data, bool) or not isinstance(data, int | float | str):
        findings.error(path, f"{_said(data)} is not a quantity such as 500m or 2Gi")
    elif isinstance(data, str) and "{{" in data:
        findings.error(path, f"{shown(data)}: a quantity takes no template tag: set it with podSpecPatch")
    elif problem := quantity_problem(str(data)):
        findings.error(path, problem)


def _any_scalar(data: Any, path: Path, findings: Findings) -> None:
    if isinstance(data, dict | list):
        findings.error(path, f"{_said(data)} is not text: write it as JSON in quotes")
    elif isinstance(data, bool):
        findings.warning(path, f"YAML reads it as {str(data).lower()}, and Argo passes that word on: use quotes")


def _scalars(data: Any, path: Path, findings: Findings) -> None:
    _list_of(_any_scalar, False)(data, path, findings)


def _anything(data: Any, path: Path, findings: Findings) -> None:
    """Take every value."""


def _empty_object(data: Any, path: Path, findings: Findings) -> None:
    if data != {}:
        findings.error(path, f"{_said(data)} is not an empty mapping: write {{}}")


def _said(data: Any) -> str:
    """Return a value with its kind, short enough for a line."""
    if isinstance(data, bool):
        return f"{str(data).lower()} (YAML reads yes, no, on and off as one as well)"
    if isinstance(data, dict):
        return "a mapping" if data else "an empty mapping"
    if isinstance(data, list):
        return "a list"
    return shown(data)


def _quotes(data: Any) -> str:
    return "" if isinstance(data, dict | list) else ": put it in quotes"


_SIMPLE: dict[str, Check] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _boolean,
    "AwareDatetime": _text,
    "Time": _text,
    "MicroTime": _text,
    "Quantity": _quantity,
    "IntOrString": _integer_or_text,
    "Any": _anything,
}
