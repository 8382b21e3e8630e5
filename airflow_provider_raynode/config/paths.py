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
    from airflow_provider_raynode.config.ray_config import RayConfig
    from airflow_provider_raynode.config.runtime_env import RuntimeEnv

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


def with_absolute_paths(config: RayConfig, folders: Sequence[Path], source: str) -> dict[str, Any]:
    """Return the sections of a config whose paths of this machine were relative, with absolute ones.

    :param folders: where a relative path is sought, in this order; with none everything stays as it is.
    :param source: what stands in front of each line of the message.
    :raises ConfigError: a relative path is in none of `folders`; the message lists them.
    """
    sections: dict[str, Any] = {}
    if not folders:
        return sections
    environment = config.ray_cluster.runtime_env
    if environment is not None and (fields := _absolute(environment, folders, source)):
        resolved = environment.model_copy(update=fields)
        sections["ray_cluster"] = config.ray_cluster.model_copy(update={"runtime_env": resolved})
    search = config.ray_tune
    policy_file = getattr(search.scheduler, "policy_file", None) if search is not None else None
    if search is not None and search.scheduler is not None and policy_file is not None:
        # What is nowhere here may lie where the driver runs, in its working_dir for one.
        found = _found(Path(policy_file).expanduser(), folders)
        if found is not None:
            scheduler = search.scheduler.model_copy(update={"policy_file": str(found)})
            sections["ray_tune"] = search.model_copy(update={"scheduler": scheduler})
    return sections


def _absolute(environment: RuntimeEnv, folders: Sequence[Path], source: str) -> dict[str, Any]:
    problems: list[str] = []

    def resolve(key: str, text: str) -> str:
        given = Path(text).expanduser()
        found = given if given.is_absolute() else _found(given, folders)
        if found is None:
            places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
            problems.append(f"{source}: ray_cluster.runtime_env.{key}: {text!r} does not exist; looked in {places}")
        return str(found)

    fields = local_files(environment, resolve)
    if problems:
        raise ConfigError("\n".join(problems))
    return {key: value for key, value in fields.items() if value != getattr(environment, key)}


def _found(given: Path, folders: Sequence[Path]) -> Path | None:
    return next((folder / given for folder in folders if (folder / given).exists()), None)
