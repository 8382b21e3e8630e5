"""Loading of the node's function on Ray: by import path, or the verified pickle."""

from __future__ import annotations

import importlib
import pickle
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import ClusterError, SpecError
from airflow_provider_raynode.runtime.modules import install, read_modules
from airflow_provider_raynode.spec import FunctionRef, digest


@dataclass(frozen=True)
class FunctionSource:
    """A function on its way to a worker: an import path, or the bytes of its pickle."""

    name: str
    import_path: str | None = None
    pickled: bytes | None = None
    modules: bytes | None = None

    def load(self) -> Callable[..., Any]:
        """Return the function; a process loads it once.

        :raises ClusterError: it cannot be imported or unpickled in this Python.
        """
        return _load(self)


@lru_cache(maxsize=8)
def _load(source: FunctionSource) -> Callable[..., Any]:
    install(source.modules)
    if source.pickled is not None:
        try:
            function = pickle.loads(source.pickled)
        except ImportError as error:
            raise ClusterError(
                f"{source.name} needs a module that is not installed on the Ray cluster: {error}. Install it "
                "there, e.g. with ray_cluster: {runtime_env: {pip: […]}}, or ship it with runtime_env.py_modules"
            ) from error
    else:
        module, _, qualname = (source.import_path or "").partition(":")
        try:
            function = importlib.import_module(module)
            for part in qualname.split("."):
                function = getattr(function, part)
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"python_callable {source.import_path!r} cannot be imported on the Ray cluster: {error}. Install its "
                "package there, or ship it with ray_cluster: {runtime_env: {py_modules: […]}}"
            ) from error
    if not callable(function):
        raise ClusterError(f"{source.name} is a {type(function).__name__}, not a function")
    loaded: Callable[..., Any] = function
    return loaded


def read_function(ref: FunctionRef, catalog: Catalog) -> FunctionSource:
    """Read the function of a spec from the node's own catalog.

    :raises ClusterError: it was pickled by another minor version of Python.
    :raises SpecError: its digest is not the spec's.
    """
    if ref.import_path is not None:
        return FunctionSource(ref.name, import_path=ref.import_path)
    if ref.pickle is None:
        raise SpecError(f"the spec names neither an import path nor a pickle for {ref.name}")
    here = platform.python_version()
    if ref.python.split(".")[:2] != here.split(".")[:2]:
        raise ClusterError(
            f"{ref.name} was pickled by Python {ref.python}, Ray runs Python {here}: use the same minor version on "
            "both, or install the function on the cluster and pass python_callable='pkg.mod:fn'"
        )
    checked = CatalogRef.from_xcom(ref.pickle)
    data = catalog.read_bytes(checked["uri"])
    if digest(data) != checked["sha256"]:
        raise SpecError(f"{checked['uri']}: the function's pickle is not the one that the spec names; it is not loaded")
    return FunctionSource(ref.name, pickled=data, modules=read_modules(ref, catalog))
