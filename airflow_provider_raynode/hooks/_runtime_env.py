"""The runtime environment of a job: the connection's default, the config's own, and this package shipped with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_raynode.config.paths import is_conda_file, is_local, local_files
from airflow_provider_raynode.config.runtime_env import RuntimeEnv
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._package import (
    Package,
    archive_package,
    file_package,
    folder_package,
    own_package,
)

log = logging.getLogger(__name__)

# The driver writes its result when it is stopped; Ray kills what is still there after the wait, 3 s by default.
STOP_ENV_VARS = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "8"}
# Tune would start every trial in a folder of its own, where the files of a working_dir are not.
IN_WORKING_DIR = {"RAY_CHDIR_TO_TRIAL_DIR": "0"}
_IMAGE_KEYS = ("container", "image_uri")
# Options of a requirements file that may name another file.
_LOCAL_OPTIONS = ("-c", "--constraint", "-e", "--editable", "-f", "--find-links")
# Ray refuses everything else beside an image.
_WITH_IMAGE = ("env_vars", "config", *_IMAGE_KEYS)


def merged(default: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the runtime environment of a job: `own` with what only `default` has.

    `env_vars` and `config` are merged by key. Where `own` names an image, only these two come from `default`, and the
    other way round a `default` image gives way to anything of `own` that Ray refuses beside an image.
    """
    base, top = dict(default or {}), {key: value for key, value in (own or {}).items() if value is not None}
    if any(key in top for key in _IMAGE_KEYS):
        base = {key: base[key] for key in ("env_vars", "config") if key in base}
    elif any(key not in _WITH_IMAGE for key in top):
        base = {key: value for key, value in base.items() if key not in _IMAGE_KEYS}
    result = {**base, **top}
    for key in ("env_vars", "config"):
        if isinstance(base.get(key), Mapping) and isinstance(top.get(key), Mapping):
            result[key] = {**base[key], **top[key]}
    return result


def packaged(environment: Mapping[str, Any], *, with_driver: bool = True) -> tuple[dict[str, Any], list[Package]]:
    """Return the environment as it goes to Ray, and the packages to upload before.

    Folders and files of this machine become packages, this package comes first in `py_modules`, and `env_vars` get how
    a job is stopped. With an image nothing can be shipped: the image must hold this package.

    :param with_driver: whether the job is our driver; a command of somebody else's gets neither this package nor how it
        is stopped.
    :raises ConfigError: a local path does not exist or is too large, or Ray would refuse a key beside the image.
    """
    result = {key: value for key, value in environment.items() if key != "excludes"}
    ours: dict[str, str] = {}
    if with_driver:
        ours = {**STOP_ENV_VARS, **(IN_WORKING_DIR if result.get("working_dir") else {})}
    if variables := {**ours, **_strings(environment.get("env_vars"))}:
        result["env_vars"] = variables
    image = next((key for key in _IMAGE_KEYS if key in result), None)
    if image is not None:
        beside = [key for key in result if key not in _WITH_IMAGE]
        if beside:
            raise ConfigError(
                f"runtime_env: {', '.join(beside)} cannot be beside {image}: Ray allows only env_vars and config "
                "there. Put them into the image"
            )
        if with_driver:
            log.info(
                "The job runs in the image of runtime_env.%s, which must have airflow-provider-raynode installed", image
            )
        return result, []
    packages = [own_package()] if with_driver else []
    modules = [package.uri for package in packages]
    excludes = [str(pattern) for pattern in environment.get("excludes") or ()]
    if isinstance(working_dir := result.get("working_dir"), str) and "://" not in working_dir:
        packages.append(_working_dir(working_dir, excludes))
        result["working_dir"] = packages[-1].uri
    for module in environment.get("py_modules") or ():
        if "://" in str(module):
            modules.append(str(module))
            continue
        packages.append(_module(str(module), excludes))
        modules.append(packages[-1].uri)
    if modules:
        result["py_modules"] = modules
    return _with_files_read(result), packages


def _with_files_read(environment: dict[str, Any]) -> dict[str, Any]:
    """Return an environment with what its files of requirements hold in their place."""
    result = dict(environment)
    for tool in ("pip", "uv"):
        if tool in result:
            result[tool] = _requirements(result[tool], tool)
    if isinstance(conda := result.get("conda"), str) and is_conda_file(conda):
        result["conda"] = yaml.safe_load(_existing(conda, "conda").read_text(encoding="utf-8"))
    return result


def for_ray_job(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment as the manifest of a RayJob holds it; files of requirements are read.

    :raises ConfigError: it has what would have to be uploaded, or what says how an upload or a stop is done.
    """
    problems = [
        f"ray_cluster.runtime_env.{key}: a RayJob uploads nothing: put {value} into ray_cluster.kuberay.image and say "
        "local:///its/path/there, or give the URI of a zip"
        for key, value in _uploads(environment)
    ]
    if environment.get("excludes"):
        problems.append("ray_cluster.runtime_env.excludes: has no effect: a RayJob uploads nothing; leave it out")
    problems += [
        f"ray_cluster.runtime_env.env_vars.{name}: has no effect: Kubernetes stops a RayJob; leave it out"
        for name in STOP_ENV_VARS
        if name in (environment.get("env_vars") or {})
    ]
    problems += [
        f"ray_cluster.runtime_env.env_vars.{name}: is KubeRay's to set: say ray_cluster.kuberay.token_authentication"
        for name in environment.get("env_vars") or {}
        if name.startswith("RAY_AUTH_")
    ]
    # With the lines of its requirements files.
    whole = environment if problems else _with_files_read(dict(environment))
    problems += [
        f"ray_cluster.runtime_env.{path}: holds {character!r}, which KubeRay's submitter gives to a shell: say it in "
        "ray_cluster.kuberay.env, put it into the image, or write it otherwise"
        for path, character in _not_for_a_shell(whole, "")
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    result = {key: value for key, value in whole.items() if value not in (None, [], {}, "")}
    if result.get("working_dir"):
        result["env_vars"] = {**IN_WORKING_DIR, **result.get("env_vars", {})}
    return result


def _not_for_a_shell(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield where a text has what would not reach a RayJob as it is, and the character.

    KubeRay writes the environment as JSON, quoted as Go quotes, between double quotes into a command of bash.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _not_for_a_shell(each, f"{path}.{key}" if path else str(key))
            yield from _not_for_a_shell(str(key), path)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _not_for_a_shell(each, f"{path}[{index}]")
    elif isinstance(value, str):
        found = [each for each in value if each in "$`\x7f" or (ord(each) > 0xFFFF and not each.isprintable())]
        yield from ((path, each) for each in found[:1])


def _uploads(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what an environment names of this machine that is more than a list of packages."""
    working_dir = environment.get("working_dir")
    if isinstance(working_dir, str) and is_local(working_dir):
        yield "working_dir", working_dir
    for index, module in enumerate(environment.get("py_modules") or ()):
        if is_local(str(module)):
            yield f"py_modules[{index}]", str(module)


def check_local_files(environment: Mapping[str, Any]) -> None:
    """Check that what an environment names of this machine is there, and that its parts have an effect.

    :raises ConfigError: a path does not exist, or `excludes` has no folder to leave anything out of.
    """
    parsed = RuntimeEnv.model_validate(environment)
    folders: list[str] = []

    def exists(key: str, text: str) -> str:
        path = _existing(text, key)
        if key.startswith(("working_dir", "py_modules")) and path.is_dir():
            folders.append(key)
        return text

    local_files(parsed, exists)
    if parsed.excludes and not folders:
        raise ConfigError(
            "runtime_env.excludes has no effect: there is no folder of this machine in working_dir or py_modules to "
            "leave anything out of. Remove it, or give the folder"
        )


def _working_dir(text: str, excludes: list[str]) -> Package:
    path = _existing(text, "working_dir")
    if path.is_dir():
        return folder_package(path, as_module=False, excludes=excludes)
    if path.suffix == ".zip":
        return archive_package(path)
    raise ConfigError(f"runtime_env.working_dir: {path} is neither a folder nor a .zip file")


def _module(text: str, excludes: list[str]) -> Package:
    path = _existing(text, "py_modules")
    if path.is_dir():
        return folder_package(path, as_module=True, excludes=excludes)
    if path.suffix == ".py":
        return file_package(path)
    if path.suffix == ".whl":
        return archive_package(path)
    raise ConfigError(f"runtime_env.py_modules: {path} is neither a folder nor a .py or .whl file")


def _requirements(value: Any, tool: str) -> Any:
    """Return requirements with a requirements file of this machine read: Ray would look for it on the cluster."""
    if isinstance(value, Mapping):
        packages = value.get("packages")
        return {**value, "packages": _requirements(packages, tool)} if isinstance(packages, str) else value
    if not isinstance(value, str):
        return value
    return list(_requirement_lines(_existing(value, tool), tool, ()))


def _requirement_lines(path: Path, tool: str, inside: tuple[Path, ...]) -> Iterator[str]:
    """Yield the lines of a requirements file, with those of the files that it includes.

    :raises ConfigError: a line names another file of this machine, which the cluster would not find.
    """
    if path.resolve() in inside:
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        option, _, named = text.replace("=", " ", 1).partition(" ") if text.startswith("--") else _short_option(text)
        named = named.partition(" #")[0].strip()
        if option in ("-r", "--requirement") and is_local(named):
            yield from _requirement_lines(_existing(str(path.parent / named), tool), tool, (*inside, path.resolve()))
        elif (option in _LOCAL_OPTIONS and is_local(named)) or text.startswith(("./", "../", "/", "file:")):
            raise ConfigError(
                f"runtime_env.{tool}: {path}: {text!r} names a file of this machine, which the cluster would not find. "
                "Write the requirements themselves, give a URI, or ship the folder in py_modules"
            )
        else:
            yield text


def _short_option(text: str) -> tuple[str, str, str]:
    return (text[:2], "", text[2:].strip()) if text[:2] in ("-r", "-c", "-e", "-f") else ("", "", text)


def _existing(text: str, key: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"runtime_env.{key}: {path} does not exist on this machine")
    return path


def _strings(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise ConfigError("runtime_env.env_vars must map names to text: quote numbers and booleans")
    return dict(value)
