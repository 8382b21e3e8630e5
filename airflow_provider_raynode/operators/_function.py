"""Staging of the node's function: by import path where a cluster can import it, else by value.

By value means cloudpickle, with every module that is not installed here (the DAG file, its neighbours) taken along, so
that a function may call what stands beside it in the DAG folder.
"""

from __future__ import annotations

import functools
import json
import platform
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._local_modules import imported_files, local_sources
from airflow_provider_raynode.operators._resolve import function_name
from airflow_provider_raynode.spec import FunctionRef, digest

# Never by value: ours is shipped to the cluster as it is, and Airflow's own modules hold locks and connections.
_SHIPPED = frozenset({"airflow_provider_raynode", "airflow"})


def goes_by_value(function: Callable[..., Any] | str) -> bool:
    """Whether the function travels as bytecode, which only the same minor version of Python runs."""
    return not isinstance(function, str) and _installed_path(function) is None


def stage_function(function: Callable[..., Any] | str, catalog: Catalog) -> FunctionRef:
    """Write the function to the catalog where it must go by value, and return the reference to it.

    :param function: an import path `pkg.mod:fn`, or any callable; an installed function goes by import path.
    :param catalog: the node's own folder.
    :raises ConfigError: the function holds something that cannot be pickled.
    """
    python = platform.python_version()
    name = function_name(function)
    if isinstance(function, str):
        return FunctionRef(name=name, import_path=function, python=python)
    if (path := _installed_path(function)) is not None:
        return FunctionRef(name=name, import_path=path, python=python)
    import cloudpickle

    try:
        with _local_modules_by_value():
            data = cloudpickle.dumps(function)
    except Exception as error:
        raise ConfigError(
            f"python_callable: {name} cannot be sent to Ray by value: {type(error).__name__}: {error}. "
            "It, or a global that it uses, holds something that is bound to this process (a lock, a connection, an "
            "open file, an Airflow object): create that inside the function, or install the function's package on "
            "the cluster and pass it as 'pkg.mod:fn'"
        ) from error
    sources = local_sources(function, _is_below_installed)
    modules = json.dumps(sources, sort_keys=True).encode() if sources else None
    return FunctionRef(
        name=name,
        pickle=_kept(catalog, "function", "pkl", "pickled", data),
        modules=None if modules is None else _kept(catalog, "modules", "json", "json", modules),
        python=python,
    )


def _kept(catalog: Catalog, name: str, suffix: str, kind: str, data: bytes) -> dict[str, Any]:
    """Write a part of the function to the node's folder, and return the reference to it."""
    sha256 = digest(data)
    # Named by content: an attempt that still runs never finds another function under its reference.
    uri = f"{catalog.prefix_uri}/{name}-{sha256[:16]}.{suffix}"
    catalog.write_bytes(uri, data)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return dict(CatalogRef(uri=uri, kind=kind, sha256=sha256, size=len(data), created=created))


def _installed_path(function: Callable[..., Any]) -> str | None:
    """Return `pkg.mod:fn` when any Python with the same packages finds the same object there, else None."""
    module_name = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", "")
    module = sys.modules.get(module_name or "")
    if module is None or module_name == "__main__" or not qualname or "<" in qualname or not _is_installed(module):
        return None
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return f"{module_name}:{qualname}" if found is function else None


@functools.cache
def _installed_roots() -> tuple[Path, ...]:
    paths = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    keep = {sysconfig.get_paths()[name] for name in names} | {path for path in paths if path.endswith("-packages")}
    return tuple(Path(path).resolve() for path in keep)


def is_installed(module_name: str | None) -> bool:
    """Whether a loaded module comes from an installed package, not from a DAG folder."""
    module = sys.modules.get(module_name or "")
    return module is not None and module_name != "__main__" and _is_installed(module)


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:  # built in, or a namespace package
        return True
    if module.__name__.partition(".")[0] in _SHIPPED:
        return True
    return _is_below_installed(Path(file))


def local_files(file: Path) -> list[Path]:
    """Return the modules beside a DAG file that it imports, and that they import."""
    return list(imported_files(file, _is_below_installed).values())


def _is_below_installed(file: Path) -> bool:
    path = file.resolve()
    return any(path.is_relative_to(root) for root in _installed_roots())


@contextmanager
def _local_modules_by_value() -> Iterator[None]:
    """Make cloudpickle take along every loaded module that is not installed: the cluster has no DAG folder."""
    import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())
    local = [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and name == module.__name__
        and name != "__main__"
        and name not in before
        and not _is_installed(module)
    ]
    for module in local:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in local:
            cloudpickle.unregister_pickle_by_value(module)
