"""The parts of the settings that Kubernetes or Argo gets as they stand: checked field by field, then passed on."""

from __future__ import annotations

import json
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator

from airflow_provider_raynode.argo.lint.fields import check_object
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.settings._words import by_name, collected, mapping
from airflow_provider_raynode.config._section import Problem, as_validation_error
from airflow_provider_raynode.config._values import shown

# The names of Argo's own containers in a pod.
_ARGO_CONTAINERS = ("main", "wait", "init")


class _Problems(Findings):
    """The lint's findings as problems of a section: the place as it is, warnings as well."""

    def __init__(self) -> None:
        super().__init__("", lambda _: 0)
        self.found: list[Problem] = []

    def _add(self, path: Path, message: str, severity: str) -> None:
        self.found.append((path, message))


def literal(model_name: str, value: Any, *, patch: bool = False) -> Any:
    """Return `value`, which is a `model_name` of Kubernetes; null stands for what is not there.

    :param patch: whether it is a strategic merge patch: nothing is required.
    :raises ValidationError: an unknown field, a wrong kind, a missing one; all of them.
    """
    problems = _Problems()
    check_object(model_name, value, (), problems, patch=patch)
    if problems.found:
        raise as_validation_error(model_name, problems.found)
    return value


def _object(model_name: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        return None if value is None else dict(literal(model_name, mapping(value)))

    return BeforeValidator(check)


def _list(model_name: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list ([a, b, …])")
        return collected(model_name, literal, [((index,), (model_name, each)) for index, each in enumerate(value)])

    return BeforeValidator(check)


def _containers(value: Any) -> Any:
    return None if value is None else by_name("containers", value, "name", _container)


def _container(name: str, body: Any) -> dict[str, Any] | None:
    if name in _ARGO_CONTAINERS:
        raise ValueError(f"{name!r} is the name of a container of Argo's own: choose another")
    if body is None:
        return None
    if "name" in mapping(body):
        raise ValueError("name cannot stand here: the key is the name")
    literal("UserContainer", {"name": name, **body})
    return dict(body)


Affinity = Annotated[dict[str, Any], _object("Affinity")]
PodSecurityContext = Annotated[dict[str, Any], _object("PodSecurityContext")]
SecurityContext = Annotated[dict[str, Any], _object("SecurityContext")]
LabelSelector = Annotated[dict[str, Any], _object("LabelSelector")]
Tolerations = Annotated[list[Any], _list("Toleration")]
Containers = Annotated[dict[str, Any], BeforeValidator(_containers)]
"""Containers without their names, by name; null takes an inherited one away."""


def _pod_spec_patch(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return json.dumps(literal("PodSpec", mapping(value), patch=True))
    # With Argo's variables in it the text need not be YAML before Argo has filled them in.
    if "{{" not in value:
        literal("PodSpec", mapping(_parsed(value)), patch=True)
    return value


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML or JSON: {' '.join(str(error).split())}") from None


PodSpecPatch = Annotated[str, BeforeValidator(_pod_spec_patch)]
"""A strategic merge patch of the pod's spec, as the text that Argo takes."""
