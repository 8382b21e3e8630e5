"""The environment of a pod's container: `env`, `env_from` and `secrets`, as Kubernetes' entries by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.argo.settings._literal import literal
from airflow_provider_raynode.argo.settings._words import (
    DataKey,
    ObjectName,
    by_name,
    collected,
    environment_name,
)
from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import Switch, Text, shown

_SECRET_WORDS = re.compile(
    r"(^|_)(passw(or)?d|pwd|passphrase|tokens?|secrets?|credentials?|api_?key|access_?key|private_?key|account_?key|"
    r"fernet_?key|encryption_?key|signing_?key)(_|$)",
    re.IGNORECASE,
)
# What tells where a secret is, or how many tokens there are, is none itself.
_NO_SECRET = re.compile(r"(_|^)(file|path|dir|folder|name|id|cmd|url|type|length|count|ttl|max_tokens|.*expiry)$", re.I)
_CONNECTION = re.compile(r"AIRFLOW_CONN_.+", re.IGNORECASE)
_PASSWORD_IN_URI = re.compile(r"[a-zA-Z][\w+.-]*://[^/\s:@]*:[^/\s@]+@")


class KeyOf(Section):
    """One key of a Secret or ConfigMap."""

    name: ObjectName = Field(description="name of the Secret or ConfigMap, in the workflow's namespace")
    key: DataKey = Field(description="the key in it")
    optional: Switch | None = Field(default=None, description="whether the pod starts without it; as Kubernetes: no")

    def selector(self) -> dict[str, Any]:
        """Return Kubernetes' key selector."""
        found = {"name": self.name, "key": self.key, "optional": self.optional}
        return {name: each for name, each in found.items() if each is not None}


class DeclaredSecret(KeyOf):
    """A variable from one key of a Secret, for the tasks that name it."""

    all_pods: Switch | None = Field(default=None, description="true: every pod gets it, unasked")

    def entry(self) -> dict[str, Any]:
        """Return Kubernetes' entry without its name."""
        return {"valueFrom": {"secretKeyRef": self.selector()}}


class EnvValue(Section):
    """Where the value of a variable comes from: exactly one of the keys."""

    secret: KeyOf | None = Field(default=None, description="a key of a Secret")
    config_map: KeyOf | None = Field(default=None, description="a key of a ConfigMap")
    field: Text | None = Field(default=None, description="a field of the pod, such as `metadata.name`")
    value: str | None = Field(default=None, description="the value itself, as Kubernetes writes it")
    valueFrom: Any = Field(  # noqa: N815  Kubernetes' own name
        default=None, description="Kubernetes' own `valueFrom`, as it stands"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield that not exactly one source is given."""
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            yield (), f"needs exactly one of {', '.join(type(self).model_fields)}; given: {', '.join(given) or 'none'}"

    def entry(self) -> dict[str, Any]:
        """Return Kubernetes' entry without its name."""
        if self.secret is not None:
            return {"valueFrom": {"secretKeyRef": self.secret.selector()}}
        if self.config_map is not None:
            return {"valueFrom": {"configMapKeyRef": self.config_map.selector()}}
        if self.field is not None:
            return {"valueFrom": {"fieldRef": {"fieldPath": self.field}}}
        return {"value": self.value} if self.value is not None else {"valueFrom": self.valueFrom}


class EnvSource(Section):
    """All keys of a Secret or ConfigMap as variables: one of both."""

    secret: ObjectName | None = Field(default=None, description="name of a Secret")
    config_map: ObjectName | None = Field(default=None, description="name of a ConfigMap")
    prefix: Text | None = Field(default=None, description="what is put in front of each key")
    optional: Switch | None = Field(default=None, description="whether the pod starts without it; as Kubernetes: no")

    def problems(self) -> Iterator[Problem]:
        """Yield that not exactly one source is given."""
        if (self.secret is None) == (self.config_map is None):
            yield (), "needs exactly one of secret and config_map"
        if self.prefix is not None:
            try:
                environment_name(self.prefix)
            except ValueError as error:
                yield ("prefix",), str(error)

    def entry(self) -> dict[str, Any]:
        """Return Kubernetes' entry."""
        reference = {"name": self.secret or self.config_map}
        if self.optional is not None:
            reference["optional"] = self.optional  # type: ignore[assignment]
        kind = "secretRef" if self.secret else "configMapRef"
        return {**({"prefix": self.prefix} if self.prefix else {}), kind: reference}


class SharedEnvSource(EnvSource):
    """All keys of a Secret or ConfigMap as variables of every pod."""

    all_pods: Switch | None = Field(
        default=None, description="true for a Secret: a pod gets its keys whether its task needs them or not"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what `EnvSource` does, and a Secret that nobody said all pods should have."""
        yield from super().problems()
        if self.secret is not None and not self.all_pods:
            yield (), f"gives every pod all keys of the Secret {self.secret!r}: {_SAY_WHO}"


_SAY_WHO = "say it under the groups and tasks that need it, or with all_pods: true here"


def _variable(name: str, body: Any) -> dict[str, Any] | None:
    environment_name(name)
    if body is None:
        return None
    if isinstance(body, str):
        return {"value": body}
    if not isinstance(body, Mapping):
        # The value stays out of the message: it may be a secret.
        raise ValueError(f"the value is of type {type(body).__name__}, not text: put it in quotes")
    if "value" in body and not isinstance(body["value"], str):
        raise ValueError(f"value: is of type {type(body['value']).__name__}, not text: put it in quotes")
    entry = EnvValue.model_validate(body).entry()
    literal("EnvVar", {"name": name, **entry})
    return entry


NAMED: Mapping[str, Any] = {}
"""In the place of an entry: the variable is what `secrets` at the top declares under this name."""


def _declared(name: str, body: Any) -> DeclaredSecret | None:
    environment_name(name)
    if body is None:
        return None
    if not isinstance(body, Mapping):
        # The value stays out of the message: it may be the secret.
        raise ValueError("is not {name: a Secret, key: its key}: a plain value never stands here")
    return DeclaredSecret.model_validate(body)


def _needed(name: str, body: Any) -> Mapping[str, Any] | None:
    environment_name(name)
    if body is None:
        return None
    if not isinstance(body, Mapping):
        # As above.
        raise ValueError("is not {name: a Secret, key: its key}: a plain value never stands here")
    return {"valueFrom": {"secretKeyRef": KeyOf.model_validate(body).selector()}}


def _env(value: Any) -> Any:
    return None if value is None else by_name("env", value, "name", _variable)


def _declarations(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"is of type {type(value).__name__}, not a mapping (VARIABLE: {{name: …, key: …}})")
    return by_name("secrets", value, "name", _declared)


def _needs(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return {environment_name(each): NAMED for each in value}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"is of type {type(value).__name__}, neither a list of names that secrets at the top declares, nor a "
            "mapping (VARIABLE: {name: …, key: …})"
        )
    return by_name("secrets", value, "name", _needed)


def _source(body: Any) -> dict[str, Any]:
    if isinstance(body, Mapping) and ("secretRef" in body or "configMapRef" in body):
        return dict(literal("EnvFromSource", body))
    return EnvSource.model_validate(body).entry()


def _shared_source(body: Any) -> Any:
    if isinstance(body, Mapping) and "secretRef" in body:
        raise ValueError(
            "gives every pod all keys of a Secret: {secret: …, all_pods: true} says so, or a group or task"
        )
    if isinstance(body, Mapping) and "configMapRef" in body:
        return _source(body)
    return SharedEnvSource.model_validate(body).entry()


def _sources(value: Any, convert: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list ([a, b, …])")
    return collected("env_from", convert, [((index,), (each,)) for index, each in enumerate(value)])


Env = Annotated[dict[str, Any], BeforeValidator(_env)]
"""Kubernetes' entries without their names, by name; null takes an inherited one away."""
DeclaredSecrets = Annotated[dict[str, Any], BeforeValidator(_declarations)]
"""`DeclaredSecret` by the name of its variable; null declares nothing."""
NeededSecrets = Annotated[dict[str, Any], BeforeValidator(_needs)]
"""By name: `NAMED`, or Kubernetes' entry; null takes an inherited one away."""
EnvFrom = Annotated[list[Any], BeforeValidator(lambda value: _sources(value, _source))]
SharedEnvFrom = Annotated[list[Any], BeforeValidator(lambda value: _sources(value, _shared_source))]


def is_secret(entry: Mapping[str, Any] | None) -> bool:
    """Whether a variable's entry, or one of `envFrom`, takes from a Secret."""
    return entry is not None and ("secretRef" in entry or "secretKeyRef" in (entry.get("valueFrom") or {}))


def without_secrets(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of pods without the variables that are taken from Secrets."""
    found = dict(layer)
    if found.get("env"):
        found["env"] = {name: entry for name, entry in found["env"].items() if not is_secret(entry)}
    if found.get("env_from"):
        found["env_from"] = [entry for entry in found["env_from"] if not is_secret(entry)]
    return found


def plain_secrets(env: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of variables whose plain value is, by its name or its look, a secret."""
    for name, entry in env.items():
        value = (entry or {}).get("value")
        if not value or "{{" in value:
            continue
        named = _SECRET_WORDS.search(name.replace("-", "_")) and not _NO_SECRET.search(name.replace("-", "_"))
        if named or _CONNECTION.fullmatch(name) or _PASSWORD_IN_URI.search(value):
            yield name
