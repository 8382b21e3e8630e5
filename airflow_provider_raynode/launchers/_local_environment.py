"""Ray's runtime environment for the embedded Ray, made before its driver starts: variables, import path, folder.

Everything is as on a cluster: folders are copied by the same rules as they are uploaded, so that a trial never writes
into the author's folder; the import path has `py_modules` first, then `working_dir`, then PYTHONPATH of `env_vars`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_raynode.config.paths import is_local
from airflow_provider_raynode.exceptions import ClusterError, ConfigError
from airflow_provider_raynode.hooks._listing import listed
from airflow_provider_raynode.hooks._package import tell
from airflow_provider_raynode.hooks._runtime_env import IN_WORKING_DIR

log = logging.getLogger(__name__)

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# A folder of this machine that is used as it is: Ray's own scheme.
_IN_PLACE = "local://"
_UNKNOWN = re.compile(r"\$\{[A-Z0-9_]+\}")


@dataclass(frozen=True)
class LocalEnvironment:
    """What the driver of an embedded Ray is started with.

    :param env_vars: variables as they were written; see `expanded`.
    :param modules: folders in front of all others on the import path.
    :param working_dir: where it is started and what follows on the import path, None where nothing is said.
    :param setup_hook: what Ray calls in every worker process, as `pkg.mod.fn`.
    """

    env_vars: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    working_dir: Path | None = None
    setup_hook: str | None = None

    @property
    def import_path(self) -> tuple[str, ...]:
        """What stands in front of all else on the import path."""
        return self.modules if self.working_dir is None else (*self.modules, str(self.working_dir))

    def for_ray(self) -> dict[str, Any]:
        """Return the runtime environment for Ray itself: its workers have the folders in a cluster's order as well."""
        found = {
            "working_dir": None if self.working_dir is None else f"{_IN_PLACE}{self.working_dir}",
            "py_modules": [f"{_IN_PLACE}{folder}" for folder in self.modules],
            "worker_process_setup_hook": self.setup_hook,
        }
        return {key: value for key, value in found.items() if value}

    def expanded(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with the variables; `${NAME}` in a value is what NAME was before, as Ray has it."""
        env = dict(base)
        for name, value in self.env_vars.items():
            env[name] = _UNKNOWN.sub("", _expand(value, env))
        return env


def local_environment(environment: Mapping[str, Any], folder: Path) -> LocalEnvironment:
    """Return a runtime environment made ready below `folder`.

    :raises ConfigError: something that it names is not there, or is not what it has to be.
    :raises ClusterError: a URI cannot be fetched, or there is no room for a copy.
    """
    excludes = [str(pattern) for pattern in environment.get("excludes") or ()]
    try:
        working_dir = _working_dir(environment.get("working_dir"), folder / "working_dir", excludes)
        modules = [
            _module(str(each), folder / "py_modules" / str(index), excludes)
            for index, each in enumerate(environment.get("py_modules") or ())
        ]
    except OSError as error:
        raise ClusterError(f"runtime_env: cannot be made ready below {folder}: {error}") from error
    variables = dict(environment.get("env_vars") or {})
    if working_dir is not None:
        variables = {**IN_WORKING_DIR, **variables}
    return LocalEnvironment(
        env_vars=variables,
        modules=tuple(modules),
        working_dir=working_dir,
        setup_hook=environment.get("worker_process_setup_hook"),
    )


def _working_dir(value: Any, target: Path, excludes: list[str]) -> Path | None:
    if not isinstance(value, str):
        return None
    if value.startswith(_IN_PLACE):
        return _in_place(value, "working_dir")
    source = _source(value, "working_dir", target)
    if source.is_dir():
        _copy(source, target, as_module=False, excludes=excludes)
    elif source.name.endswith(_ARCHIVES):
        _unpack(source, target, strip=not is_local(value))
    else:
        raise ConfigError(f"runtime_env.working_dir: {value} is neither a folder nor a .zip file")
    return target


def _module(value: str, target: Path, excludes: list[str]) -> str:
    """Return the folder to put on the import path for an entry of `py_modules`."""
    if value.startswith(_IN_PLACE):
        return str(_in_place(value, "py_modules"))
    source = _source(value, "py_modules", target)
    target.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        _copy(source, target, as_module=True, excludes=excludes)
    elif source.suffix == ".py":
        shutil.copy(source, target / source.name)
    elif source.suffix == ".whl":
        _unpack(source, target, strip=False)
        for part in ("purelib", "platlib"):
            for data in target.glob(f"*.data/{part}"):
                shutil.copytree(data, target, dirs_exist_ok=True)
    elif not is_local(value) and source.name.endswith(_ARCHIVES):
        _unpack(source, target, strip=True)
    else:
        raise ConfigError(f"runtime_env.py_modules: {value} is neither a folder nor a .py or .whl file")
    return str(target)


def _copy(source: Path, target: Path, *, as_module: bool, excludes: list[str]) -> None:
    listing = listed(source, as_module=as_module, excludes=excludes)
    for path, name in listing.files:
        place = target / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    tell("is copied for the embedded Ray", listing)


def _source(value: str, key: str, target: Path) -> Path:
    """Return the file or folder of this machine that a value names; a URI is fetched beside `target`."""
    if is_local(value):
        path = Path(value).expanduser().absolute()
        if not path.exists():
            raise ConfigError(f"runtime_env.{key}: {path} does not exist on this machine")
        return path
    import fsspec

    name = urlsplit(value).path.rpartition("/")[2] or "archive.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target.parent / f"{target.name}-{name}"
    try:
        with fsspec.open(value, "rb") as remote, place.open("wb") as file:
            shutil.copyfileobj(remote, file)
    except Exception as error:  # whatever the storage's library raises
        shown = value.partition("?")[0]
        raise ClusterError(f"runtime_env.{key}: {shown} cannot be fetched: {type(error).__name__}: {error}") from error
    return place


def _unpack(archive: Path, target: Path, *, strip: bool) -> None:
    """Unpack an archive.

    :param strip: as Ray does with archives from elsewhere: a folder that holds all the rest goes away.
    """
    kind = "zip" if archive.suffix in (".zip", ".whl") else "gztar" if archive.suffix in (".gz", ".tgz") else "tar"
    try:
        shutil.unpack_archive(archive, target, kind, filter=None if kind == "zip" else "data")
    except (shutil.ReadError, ValueError) as error:
        raise ConfigError(f"runtime_env: {archive.name} cannot be unpacked: {error}") from error
    entries = list(target.iterdir())
    if strip and len(entries) == 1 and entries[0].is_dir():
        inner = entries[0].rename(target.parent / f"{target.name}-inner")
        target.rmdir()
        inner.rename(target)


def _in_place(value: str, key: str) -> Path:
    path = Path(value.removeprefix(_IN_PLACE))
    if not path.is_dir():
        raise ConfigError(f"runtime_env.{key}: {value} names no folder of this machine")
    return path


def _expand(value: str, env: Mapping[str, str]) -> str:
    """Return `value` with `$NAME` and `${NAME}` replaced where the environment has NAME."""

    def known(match: re.Match[str]) -> str:
        return env.get(match.group(1) or match.group(2), match.group(0))

    return re.sub(r"\$(?:(\w+)|\{([^}]*)\})", known, value)


def pythonpath(own: LocalEnvironment, written: str, rest: list[str]) -> str:
    """Return PYTHONPATH: the environment's folders, what `env_vars` says, then `rest`; none twice."""
    entries = [*own.import_path, *(entry for entry in written.split(os.pathsep) if entry), *rest]
    return os.pathsep.join(dict.fromkeys(entries))
