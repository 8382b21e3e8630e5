"""Volumes and their mounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_raynode.argo.lint.context import Context, Template
from airflow_provider_raynode.argo.lint.document import plain_data
from airflow_provider_raynode.argo.lint.finding import LintError, Path
from airflow_provider_raynode.argo.lint.naming import volume_name_problem
from airflow_provider_raynode.argo.lint.reading import entries, has_tag, mapping, names, text
from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.config._values import shown


def check_volumes(template: Template, context: Context) -> None:
    """Add the mounts of a template whose volume is not declared, and paths that are mounted twice."""
    declared = _declared(template, context)
    for path, container in containers(template):
        seen: dict[str, str] = {}
        for place, mount in entries(container.get("volumeMounts"), (*path, "volumeMounts")):
            name, at = text(mount.get("name")), text(mount.get("mountPath"))
            if declared is not None and name and not has_tag(name) and name not in declared:
                near = did_you_mean(name, declared)
                message = f"no volume has the name {name!r}{near} declared: {', '.join(sorted(declared)) or 'none'}"
                context.findings.error((*place, "name"), message)
            if at and at in seen:
                context.findings.error((*place, "mountPath"), f"{shown(at)} is mounted already, from {seen[at]!r}")
            if at and not at.startswith("/") and not has_tag(at):
                context.findings.error((*place, "mountPath"), f"{shown(at)} is no absolute path: it starts with '/'")
            seen.setdefault(at, name)


def check_volume_names(data: dict[str, Any], path: Path, context: Context) -> None:
    """Add the volumes of a template or of the workflow whose names are not allowed or given twice."""
    seen: set[str] = set()
    claims = entries(data.get("volumeClaimTemplates"), (*path, "volumeClaimTemplates"))
    found = [((*place, "metadata", "name"), text(mapping(claim, "metadata").get("name"))) for place, claim in claims]
    volumes = entries(data.get("volumes"), (*path, "volumes"))
    found += [((*place, "name"), text(volume.get("name"))) for place, volume in volumes]
    for place, name in found:
        if name and not has_tag(name) and (problem := volume_name_problem(name)):
            context.findings.error(place, problem)
        if name and name in seen:
            context.findings.error(place, f"the volume {name!r} is given twice")
        seen.add(name)
    for place, volume in entries(data.get("volumes"), (*path, "volumes")):
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            context.findings.error(place, f"a volume has one source, this has {' and '.join(sources)}")
        elif sources and volume[sources[0]] is None:
            context.findings.error((*place, sources[0]), f"{sources[0]} has no value: write {sources[0]}: {{}}")


def containers(template: Template) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield all containers of a template with their places."""
    data, path = template.data, template.path
    for kind in ("container", "script", "containerSet"):
        if isinstance(data.get(kind), dict):
            yield (*path, kind), data[kind]
    yield from entries(mapping(data, "containerSet").get("containers"), (*path, "containerSet", "containers"))
    for kind in ("initContainers", "sidecars"):
        yield from entries(data.get(kind), (*path, kind))


def _declared(template: Template, context: Context) -> set[str] | None:
    """Return the names of the volumes that a template can mount, None where they cannot be known."""
    found: set[str] = set()
    for place in (context.spec, context.defaults, template.data):
        found.update(names(place.get("volumes")))
        for _, claim in entries(place.get("volumeClaimTemplates"), ()):
            found.add(text(mapping(claim, "metadata").get("name")))
        patched = _patched(place.get("podSpecPatch"))
        if patched is None:
            return None
        found.update(patched)
    return found if not any(has_tag(name) for name in found) else None


def _patched(patch: Any) -> list[str] | None:
    """Return the names of the volumes that a podSpecPatch adds, None where it has template tags."""
    if not isinstance(patch, str):
        return []
    if has_tag(patch):
        return None
    try:
        return names(mapping(plain_data(patch)).get("volumes"))
    except LintError:
        return []
