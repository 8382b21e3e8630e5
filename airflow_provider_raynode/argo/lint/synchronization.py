"""Locks: mutexes and semaphores of a workflow or a template."""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.reading import entries, has_tag, mapping, text, whole
from airflow_provider_raynode.config._values import shown


def check_synchronization(data: Any, path: Path, findings: Findings) -> None:
    """Add what is wrong with a synchronization."""
    if not isinstance(data, dict):
        return
    if not data.get("mutexes") and not data.get("semaphores") and not {"mutex", "semaphore"} & set(data):
        findings.error(path, "neither mutexes nor semaphores are given")
    for place, mutex in entries(data.get("mutexes"), (*path, "mutexes")):
        if not mutex.get("name"):
            findings.error(place, "name is missing: a mutex needs one")
    for place, semaphore in entries(data.get("semaphores"), (*path, "semaphores")):
        given = [key for key in ("configMapKeyRef", "database") if semaphore.get(key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            findings.error(place, f"a semaphore takes one of configMapKeyRef and database; given: {found}")
        reference = mapping(semaphore, "configMapKeyRef")
        if reference and not reference.get("name"):
            findings.error((*place, "configMapKeyRef"), "name is missing: the ConfigMap that holds the number")


def check_semaphore_keys(data: Any, path: Path, config_maps: dict[str, dict[str, Any]], findings: Findings) -> None:
    """Add the semaphores whose ConfigMap is in the same file and does not hold their number.

    :param config_maps: the `data` of each ConfigMap in the file, by name.
    """
    for place, semaphore in entries(mapping(data).get("semaphores"), (*path, "semaphores")):
        reference = mapping(semaphore, "configMapKeyRef")
        name, key = text(reference.get("name")), text(reference.get("key"))
        if name not in config_maps or has_tag(key):
            continue
        where = (*place, "configMapKeyRef", "key")
        if key not in config_maps[name]:
            findings.error(where, f"the ConfigMap {name!r} of this file has no key {key!r}")
        elif (number := whole(config_maps[name][key])) is None or number < 1:
            value = shown(config_maps[name][key])
            findings.error(where, f"the ConfigMap {name!r} has {value} for {key!r}: a semaphore needs a number above 0")
