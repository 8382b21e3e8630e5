"""Volumes and where they are mounted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from airflow_provider_raynode.argo.settings._literal import literal
from airflow_provider_raynode.argo.settings._words import (
    AbsolutePath,
    LabelName,
    by_name,
    collected,
    mapping,
)
from airflow_provider_raynode.config._section import Section, as_validation_error, did_you_mean
from airflow_provider_raynode.config._values import Switch, Text, shown

DAG_VOLUME = "raynode-dag"
"""Name of the volume that the DAG's files come in, where they are not in the image."""
GIT_SECRET_VOLUME = "raynode-git-secret"
_TAKEN = (DAG_VOLUME, GIT_SECRET_VOLUME, "argo-staging", "input-artifacts", "tmp-dir-argo", "var-run-argo")

# Short key -> Kubernetes' key, and the field that a plain text fills.
_SOURCES = {
    "pvc": ("persistentVolumeClaim", "claimName"),
    "config_map": ("configMap", "name"),
    "secret": ("secret", "secretName"),
    "empty_dir": ("emptyDir", "sizeLimit"),
    "host_path": ("hostPath", "path"),
}
_KUBERNETES = {kubernetes: (kubernetes, field) for kubernetes, field in _SOURCES.values()}


class Mount(Section):
    """Where a volume appears in the container."""

    renamed = {"mountPath": "path", "name": "volume", "readOnly": "read_only", "subPath": "sub_path"}  # noqa: RUF012

    volume: LabelName = Field(description="name of the volume")
    path: AbsolutePath = Field(description="absolute path in the container; the key where the mounts are a mapping")
    read_only: Switch | None = Field(default=None, description="whether the container may only read it")
    sub_path: Text | None = Field(default=None, description="path in the volume that is mounted instead of its root")

    def entry(self) -> dict[str, Any]:
        """Return Kubernetes' mount without its path."""
        entry = {"name": self.volume, "readOnly": self.read_only, "subPath": self.sub_path}
        return {name: each for name, each in entry.items() if each is not None}


_LABEL_NAME: TypeAdapter[str] = TypeAdapter(LabelName)
_PATH: TypeAdapter[str] = TypeAdapter(AbsolutePath)


def _volume(name: str, body: Any) -> dict[str, Any] | None:
    _LABEL_NAME.validate_python(name)
    if name in _TAKEN:
        raise ValueError(f"{name!r} is the name of a volume that the export or Argo adds: choose another")
    if body is None:
        return None
    source = mapping(body)
    if len(source) != 1:
        raise ValueError(
            f"needs exactly one source ({', '.join(_SOURCES)} or one of Kubernetes' own); "
            f"given: {', '.join(map(str, source)) or 'none'}"
        )
    ((kind, value),) = source.items()
    key, field = {**_SOURCES, **_KUBERNETES}.get(kind, (kind, ""))
    if key == kind and key not in _KUBERNETES and ", did" in did_you_mean(kind, _SOURCES):
        raise as_validation_error("volume", [((kind,), f"unknown kind of volume{did_you_mean(kind, _SOURCES)}")])
    made = {key: _volume_source(key, field, value)}
    literal("Volume", {"name": name, **made})
    return made


def _volume_source(key: str, field: str, value: Any) -> Any:
    if value is None and key == "emptyDir":
        return {}
    return {field: value} if field and isinstance(value, str) else value


def _volumes(value: Any) -> Any:
    return None if value is None else by_name("volumes", value, "name", _volume)


def _mount(path: Any, body: Any) -> tuple[str, dict[str, Any] | None]:
    if body is None:
        return _PATH.validate_python(path), None
    mount = Mount.model_validate({"path": path, "volume": body} if isinstance(body, str) else _with_path(path, body))
    return mount.path, mount.entry()


def _with_path(path: Any, body: Any) -> Mapping[str, Any]:
    given = mapping(body)
    if path is None:
        return given
    if "path" in given or "mountPath" in given:
        raise ValueError("path cannot stand here: the key is the path")
    return {"path": path, **given}


def _mounts(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        parts = [((path,), (path, body)) for path, body in value.items()]
    elif isinstance(value, list):
        parts = [((index,), (None, mapping(each))) for index, each in enumerate(value)]
    else:
        raise ValueError(f"{shown(value)} is neither a mapping (path: …) nor a list of mounts")
    made = collected("volume_mounts", _mount, parts)
    paths = [path for path, _ in made]
    twice = [
        (loc, f"{path} is mounted twice")
        for index, ((loc, _), path) in enumerate(zip(parts, paths, strict=True))
        if path in paths[:index]
    ]
    if twice:
        raise as_validation_error("volume_mounts", twice)
    return dict(made)


Volumes = Annotated[dict[str, Any], BeforeValidator(_volumes)]
"""Kubernetes' volumes without their names, by name; null takes an inherited one away."""
VolumeMounts = Annotated[dict[str, Any], BeforeValidator(_mounts)]
"""Kubernetes' mounts without their paths, by path; null takes an inherited one away."""
