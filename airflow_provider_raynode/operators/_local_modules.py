"""The modules beside a DAG file that its function may import only where it runs.

What the function refers to travels in its pickle. A module that is imported inside the function is not known to the
pickle, and no cluster has the DAG folder: the sources of all that the DAG file, and what it imports, name in an import
go along.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# More than this is no helper of a DAG: it belongs into `py_modules`, an image, or a package.
_MOST_BYTES = 4_000_000
_NEVER = frozenset({"airflow", "airflow_provider_raynode", "ray"})


def local_sources(function: Callable[..., Any], is_installed: Callable[[Path], bool]) -> dict[str, str]:
    """Return the sources of the local modules that a function's file may import, by path as on the import path.

    :param is_installed: whether a file belongs to an installed package.
    """
    while isinstance(function, functools.partial):
        function = function.func
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        return {}
    found = imported_files(Path(file), is_installed)
    if sum(path.stat().st_size for path in found.values()) > _MOST_BYTES:
        log.warning(
            "The modules that %s imports are more than %d MB and are not sent along: name them in "
            "ray_cluster.runtime_env.py_modules",
            file,
            _MOST_BYTES // 1_000_000,
        )
        return {}
    return {name: _text(path) for name, path in sorted(found.items())}


def imported_files(file: Path, is_installed: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the local modules that a file, and what it imports, name in an import, by path as on the import path."""
    found: dict[str, Path] = {}
    queue = [file]
    seen: set[Path] = set()
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, source in _imported(path, is_installed):
            if name not in found:
                found[name] = source
                queue.append(source)
    return found


def _imported(path: Path, is_installed: Callable[[Path], bool]) -> Iterator[tuple[str, Path]]:
    """Yield the local modules that a file names in an import anywhere in it."""
    try:
        tree = ast.parse(_text(path))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            yield from _files(name, is_installed)


def _files(name: str, is_installed: Callable[[Path], bool]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a module by its dotted name: of a package all, of a namespace those that are named."""
    top, *rest = name.split(".")
    if top in _NEVER or top in sys.stdlib_module_names:
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        if file.suffix == ".py" and file.is_file() and not is_installed(file):
            yield file.name, file
        return
    for location in map(Path, spec.submodule_search_locations):
        if is_installed(location) or not location.is_dir():
            continue
        if (location / "__init__.py").is_file():
            yield from _package(location, location.parent)
        elif rest:
            yield from _below(location, rest, location.parent)


def _below(folder: Path, rest: list[str], root: Path) -> Iterator[tuple[str, Path]]:
    """Yield what a dotted name means below a folder without `__init__.py`."""
    for index, part in enumerate(rest):
        file, inner = folder / f"{part}.py", folder / part
        if (inner / "__init__.py").is_file():
            yield from _package(inner, root)
            return
        if file.is_file():
            yield file.relative_to(root).as_posix(), file
            return
        if not inner.is_dir() or index == len(rest) - 1:
            return
        folder = inner


def _package(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(root).as_posix(), path


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")
