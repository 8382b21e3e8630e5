"""Modules that came along with the node's function: importable from memory, after all that is installed."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from types import ModuleType

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import SpecError
from airflow_provider_raynode.spec import FunctionRef, digest

_PLACE = "raynode-modules/"


class _Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules in a mapping of paths to sources; a folder without `__init__.py` is a namespace."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module that came along."""
        name = fullname.replace(".", "/")
        if self._path(fullname) is None:
            if not any(each.startswith(f"{name}/") for each in self._sources):
                return None
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [f"{_PLACE}{name}"]
            return spec
        return importlib.util.spec_from_loader(fullname, self, origin=f"{_PLACE}{self._path(fullname)}")

    def is_package(self, fullname: str) -> bool:
        """Whether a module is a package."""
        return (self._path(fullname) or "").endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """Return the source, for tracebacks as well."""
        path = self._path(fullname)
        if path is None:
            raise ImportError(f"no module {fullname} came along", name=fullname)
        return self._sources[path]

    def get_filename(self, fullname: str) -> str:
        """Return what `__file__` is."""
        return f"{_PLACE}{self._path(fullname)}"

    def exec_module(self, module: ModuleType) -> None:
        """Run a module."""
        name = module.__name__
        module.__file__ = self.get_filename(name)
        exec(compile(self.get_source(name), module.__file__, "exec", dont_inherit=True), module.__dict__)

    def _path(self, fullname: str) -> str | None:
        name = fullname.replace(".", "/")
        return next((each for each in (f"{name}/__init__.py", f"{name}.py") if each in self._sources), None)


_installed: set[str] = set()


def install(data: bytes | None) -> None:
    """Make the modules importable in this process, once.

    :param data: what `read_modules` gave.
    """
    if data is None or (name := digest(data)) in _installed:
        return
    _installed.add(name)
    sys.meta_path.append(_Sources(json.loads(data)))


def read_modules(ref: FunctionRef, catalog: Catalog) -> bytes | None:
    """Return the modules that came along with a function, None where none did.

    :raises SpecError: their digest is not the spec's.
    """
    if ref.modules is None:
        return None
    checked = CatalogRef.from_xcom(ref.modules)
    data = catalog.read_bytes(checked["uri"])
    if digest(data) != checked["sha256"]:
        raise SpecError(f"{checked['uri']}: the modules are not those that the spec names; they are not loaded")
    return data
