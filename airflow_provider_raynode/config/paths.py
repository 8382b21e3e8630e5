"""Files and folders of this machine that a config names: where a relative path begins.

A path in a config file is relative to that file, one in a dict to the DAG file (then `template_searchpath`), never to
the folder that a process happens to run in: an Airflow worker's is anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow_provider_raynode.config.cluster import RuntimeEnv

Resolve = Callable[[str, str], str]
_CONDA_FILES = (".yml", ".yaml")


def is_local(text: str) -> bool:
    """Whether a path is one of this machine, not a URI."""
    return "://" not in text


def is_conda_file(text: str) -> bool:
    """Whether `conda` names a file of this machine, not an environment of the cluster."""
    return is_local(text) and text.endswith(_CONDA_FILES)


def local_files(environment: RuntimeEnv, resolve: Resolve) -> dict[str, Any]:
    """Return the fields of a runtime environment that name something of this machine, with `resolve` applied.

    :param resolve: takes a key below `runtime_env` and a path as it was written, and returns the path to use.
    """
    fields: dict[str, Any] = {}
    if environment.working_dir is not None and is_local(environment.working_dir):
        fields["working_dir"] = resolve("working_dir", environment.working_dir)
    if environment.py_modules:
        fields["py_modules"] = [
            resolve(f"py_modules[{index}]", each) if is_local(each) else each
            for index, each in enumerate(environment.py_modules)
        ]
    for tool in ("pip", "uv"):
        value = getattr(environment, tool)
        if isinstance(value, str):
            fields[tool] = resolve(tool, value)
        elif isinstance(value, dict) and isinstance(value.get("packages"), str):
            fields[tool] = {**value, "packages": resolve(f"{tool}.packages", value["packages"])}
    if isinstance(environment.conda, str) and is_conda_file(environment.conda):
        fields["conda"] = resolve("conda", environment.conda)
    return fields


def with_absolute_paths(environment: RuntimeEnv, folders: Sequence[Path], source: str) -> RuntimeEnv:
    """Return a runtime environment whose paths of this machine are absolute.

    :param folders: where a relative path is sought, in this order; with none it stays as it is.
    :param source: what stands in front of each line of the message.
    :raises ConfigError: a relative path is in none of `folders`; the message lists them.
    """
    if not folders:
        return environment
    problems: list[str] = []

    def resolve(key: str, text: str) -> str:
        given = Path(text).expanduser()
        if given.is_absolute():
            return str(given)
        for folder in folders:
            if (folder / given).exists():
                return str(folder / given)
        places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
        problems.append(f"{source}: ray_cluster.runtime_env.{key}: {text!r} does not exist; looked in {places}")
        return text

    fields = local_files(environment, resolve)
    if problems:
        raise ConfigError("\n".join(problems))
    return environment.model_copy(update=fields) if fields else environment
