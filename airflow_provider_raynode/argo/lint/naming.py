"""How things may be called: templates and tasks in Argo, objects, labels and annotations in Kubernetes."""

from __future__ import annotations

import re

from airflow_provider_raynode.config._values import shown

# Words of the expression language in which `depends` is evaluated.
RESERVED = frozenset(
    "in not and or let if else true false nil matches contains startsWith endsWith".split()  # noqa: SIM905
)
_FIELD = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]+")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_START = re.compile(r"[a-z0-9]([-a-z0-9.]*)")
_MOST_FIELD = 128
_MOST_LABEL = 63
_MOST_PREFIX = 253
# generateName gets five characters.
_GENERATED = 5


def field_name_problem(name: str) -> str | None:
    """Return why a template, task or step cannot have a name, None where it can."""
    if len(name) > _MOST_FIELD:
        return f"the name {shown(name)} has {len(name)} characters, Argo allows {_MOST_FIELD}"
    if not _FIELD.fullmatch(name):
        return f"the name {shown(name)} is not allowed: letters, digits and '-', the first a letter or digit"
    return None


def pod_name_problem(template: str) -> str | None:
    """Return why the pods of a template cannot have its name in theirs, None where they can.

    A pod is called `<workflow>-<template>-<hash>`; nothing else that Argo allows in the name is refused by Kubernetes.
    """
    if template == template.lower():
        return None
    return (
        f"the name {shown(template)} has capital letters: it is part of the names of the template's pods, which"
        " Kubernetes refuses with any, so no pod ever starts"
    )


def parameter_name_problem(name: str) -> str | None:
    """Return why a parameter or artifact cannot have a name, None where it can."""
    if _PARAMETER.fullmatch(name):
        return None
    return f"the name {shown(name)} is not allowed: letters, digits, '-' and '_'"


def object_name_problem(name: str, most: int, why: str = "") -> str | None:
    """Return why an object of Kubernetes cannot have a name of up to `most` characters, None where it can."""
    if len(name) > most:
        return f"the name {shown(name)} has {len(name)} characters, allowed are {most}{why}"
    if not _SUBDOMAIN.fullmatch(name):
        return (
            f"the name {shown(name)} is not allowed: small letters, digits, '-' and '.', at both ends a letter or digit"
        )
    return None


def generate_name_problem(start: str, most: int) -> str | None:
    """Return why a generateName cannot be used, None where it can."""
    if len(start) + _GENERATED > most:
        return f"generateName {shown(start)} has {len(start)} characters, allowed are {most - _GENERATED}"
    if not _START.fullmatch(start):
        return f"generateName {shown(start)} is not allowed: small letters, digits, '-' and '.'"
    return None


def volume_name_problem(name: str) -> str | None:
    """Return why a volume cannot have a name, None where it can."""
    if len(name) <= _MOST_LABEL and _DNS_LABEL.fullmatch(name):
        return None
    return f"the name {shown(name)} is not allowed: up to {_MOST_LABEL} small letters, digits and '-'"


def label_key_problem(key: str) -> str | None:
    """Return why a key of labels or annotations is not allowed, None where it is."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= _MOST_PREFIX and _SUBDOMAIN.fullmatch(prefix)):
        return f"the key {shown(key)} is not allowed: before '/' comes a domain name in small letters"
    if len(name) <= _MOST_LABEL and _LABEL_PART.fullmatch(name):
        return None
    where = " after '/'" if slash else ""
    return f"the key {shown(key)} is not allowed: up to {_MOST_LABEL} letters, digits, '-', '_' and '.'{where}"


def label_value_problem(value: str) -> str | None:
    """Return why a value of a label is not allowed, None where it is."""
    if value == "" or (len(value) <= _MOST_LABEL and _LABEL_PART.fullmatch(value)):
        return None
    size = f" ({len(value)} characters)" if len(value) > _MOST_LABEL else ""
    return (
        f"the label's value {shown(value)}{size} is not allowed: up to {_MOST_LABEL} letters, digits, '-', '_' and '.';"
        " an annotation takes any text"
    )
