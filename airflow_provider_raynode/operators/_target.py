"""What fan-out checks of the place where the node will run, before anything is submitted."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._section import path_of
from airflow_provider_raynode.config.runtime_env import embedded_problems
from airflow_provider_raynode.exceptions import ClusterError, ConfigError
from airflow_provider_raynode.hooks._cluster import version_problem
from airflow_provider_raynode.hooks._runtime_env import check_local_files, merged
from airflow_provider_raynode.operators._function import goes_by_value
from airflow_provider_raynode.operators._resolve import function_name

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.hooks._cluster import ClusterInfo
    from airflow_provider_raynode.hooks._settings import RaySettings
    from airflow_provider_raynode.hooks.ray import RayHook

_NODES_TIMEOUT_S = 60.0


def check_target(
    function: Callable[..., Any] | str,
    config: RayConfig,
    hook: RayHook,
    catalog: Catalog,
    *,
    source: str = "ray_config",
) -> str | None:
    """Check that the node can run where it is to run, and return the version of Ray there.

    :param source: the config's file, for messages.
    :raises ConfigError: the config asks for what is not there: a searcher's library, a catalog that the cluster sees.
    :raises ClusterError: the cluster cannot be reached, or its Ray or Python does not fit.
    """
    address = hook.resolve().address
    check_place(config, hook, source)
    if address == "local":
        return _check_embedded(config, source)
    if address == "rayjob":
        # The cluster is made for the job: there is none to look at yet.
        return None if config.ray_cluster.kuberay is None else config.ray_cluster.kuberay.ray_version
    info = hook.cluster_info()
    if problem := version_problem(info.ray_version):
        raise ClusterError(f"{hook.resolve().address}: {problem}")
    if goes_by_value(function):
        _check_python(function_name(function), info.python_version)
    if catalog.is_local and not config.catalog.shared and not _is_this_host(hook, info):
        raise ConfigError(
            f"catalog: {catalog.uri} is a folder of this machine, but the Ray cluster at {hook.resolve().address} runs "
            "elsewhere and would not find the node's inputs there. Use storage that both reach (catalog: {uri: "
            "s3://bucket/prefix} in the config, or the catalog of the connection or of [raynode] catalog), or, if the "
            "folder is mounted at the same path on every node of the cluster, say so with catalog: {shared: true}"
        )
    return info.ray_version


def check_place(config: RayConfig, hook: RayHook, source: str) -> None:
    """Check that what connection and config say has an effect where the job is to run; no cluster is asked.

    :raises ConfigError: it has none, or cannot be had there.
    """
    _check_connection(config, hook.resolve())
    _check_environment(config, hook.resolve(), source)


def _is_this_host(hook: RayHook, info: ClusterInfo) -> bool:
    """Return whether the cluster is this machine; one that has just begun is asked until it tells.

    :raises ClusterError: it does not tell in time; another try may help.
    """
    end = time.monotonic() + _NODES_TIMEOUT_S
    while info.is_this_host is None:
        if time.monotonic() > end:
            raise ClusterError(
                f"{hook.resolve().address}: the cluster has not told the host names of its nodes for "
                f"{_NODES_TIMEOUT_S:g} s, so it is not known whether they see the catalog, a folder of this machine. "
                "Try again once the dashboard lists its nodes, or say catalog: {shared: true} in the config if they do"
            )
        time.sleep(1)
        info = hook.cluster_info()
    return info.is_this_host


def _check_embedded(config: RayConfig, source: str) -> str:
    config.check_libraries(source)
    try:
        return version("ray")
    except PackageNotFoundError:
        raise ClusterError(
            "the embedded Ray needs the package ray[tune] on the Airflow worker, and it is not installed: "
            "pip install 'ray[tune]', or set ray_cluster.address (or the connection) to a cluster"
        ) from None


def _check_connection(config: RayConfig, settings: RaySettings) -> None:
    """Check that what a connection says of TLS and HTTP is used where the node will run.

    :raises ConfigError: it is not.
    """
    tls = [name for name, given in (("ca_file", settings.ca_file), ("verify_tls", not settings.verify_tls)) if given]
    if settings.address.startswith("http://") and tls:
        raise ConfigError(
            f"{settings.source}: extra {' and '.join(tls)} has no effect: {settings.address} is plain HTTP. Give an "
            "https:// address, or leave it out"
        )
    if settings.address == "local" and config.cluster_address is None:
        unused = [*tls, *(["secret_headers"] if settings.headers else [])]
        if unused:
            raise ConfigError(
                f"{settings.source}: extra {' and '.join(unused)} has no effect: the connection names no cluster, so "
                "the node would run on the embedded Ray. Give the connection a host, or leave it out"
            )


def _check_environment(config: RayConfig, settings: RaySettings, source: str) -> None:
    """Check what of the runtime environment can be known to fail, or to do nothing, where the node will run.

    :raises ConfigError: see above; the message says whether the config or the connection has the key.
    """
    own = config.ray_cluster.runtime_env
    given = {} if own is None else own.model_dump(mode="json", exclude_unset=True)
    whole = merged(settings.runtime_env, given)
    if settings.address == "rayjob":
        if settings.runtime_env:
            raise ConfigError(
                f"{settings.source}: extra runtime_env has no effect on a RayJob, which is written at export: say it "
                "in ray_cluster.runtime_env of the config"
            )
        return
    if settings.address == "local":
        problems = [
            f"{_source_of(loc, given, settings, source)}.{path_of(loc)}: {message}"
            for loc, message in embedded_problems(whole)
        ]
        if problems:
            raise ConfigError("\n".join(problems))
    check_local_files(whole)


def _source_of(loc: tuple[str | int, ...], own: Mapping[str, Any], settings: RaySettings, source: str) -> str:
    """Return what a key of the merged environment was said in."""
    key, *rest = loc
    found = own.get(str(key))
    said = found is not None and (not rest or not isinstance(found, Mapping) or rest[0] in found)
    return f"{source}: ray_cluster.runtime_env" if said else f"{settings.source}: extra runtime_env"


def _check_python(name: str, found: str | None) -> None:
    here = platform.python_version()
    if found is None or found.split(".")[:2] == here.split(".")[:2]:
        return
    raise ClusterError(
        f"the cluster runs Python {found}, Airflow runs Python {here}: {name} goes there by value, as bytecode that "
        "only the same minor version runs. Use a cluster image with Python "
        f"{'.'.join(here.split('.')[:2])}, or install the function there and pass python_callable='pkg.mod:fn'"
    )
