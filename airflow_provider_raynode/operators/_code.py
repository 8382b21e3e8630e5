"""What code a node runs: a digest of the function that does not change from process to process, and the git commit."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow_provider_raynode.operators._function import is_installed
from airflow_provider_raynode.spec import CodeIdentity

_GIT_TIMEOUT_S = 5.0
_DEPTH = 20


def code_identity(function: Callable[..., Any] | str, dag_file: str | None) -> CodeIdentity:
    """Return the identity of the node's code.

    :param function: the node's function; of an import path, the cluster's code is not known here.
    :param dag_file: the DAG file, for its repository's commit.
    """
    commit, dirty = _git(Path(dag_file).parent) if dag_file else (None, None)
    sha256 = None if isinstance(function, str) else function_digest(function)
    return CodeIdentity(function_sha256=sha256, git_commit=commit, git_dirty=dirty)


def function_digest(function: Callable[..., Any]) -> str:
    """Return a digest of the function's bytecode, its defaults, and the local functions and values that it refers to.

    A pickle will not do: it holds line numbers, file paths, and sets in an order that differs between processes. What
    comes from an installed package counts by its name.
    """
    found = hashlib.sha256()
    for part in _parts(function, set(), 0):
        found.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return found.hexdigest()


def _parts(value: Any, seen: set[int], depth: int) -> Iterator[str]:
    if depth > _DEPTH or id(value) in seen:
        return
    if isinstance(value, functools.partial):
        yield "partial"
        yield from _parts(value.func, seen, depth + 1)
        yield from _parts((value.args, value.keywords), seen, depth + 1)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__, seen, depth + 1)
        yield from _parts(value.__self__, seen, depth + 1)
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        yield from _function_parts(value, seen, depth)
    elif isinstance(value, types.CodeType):
        yield from _code_parts(value, seen, depth)
    elif isinstance(value, type):
        seen.add(id(value))
        yield from _class_parts(value, seen, depth)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield repr(key)
            yield from _parts(value[key], seen, depth + 1)
    elif isinstance(value, set | frozenset):
        yield from sorted(repr(item) for item in value)
    elif isinstance(value, tuple | list):
        yield f"{type(value).__name__} {len(value)}"
        for item in value:
            yield from _parts(item, seen, depth + 1)
    elif value is None or isinstance(value, str | bytes | int | float | complex | bool | type(Ellipsis)):
        yield f"{type(value).__name__} {value!r}"
    else:
        # An object's repr may hold its address: its class has to do.
        yield f"object of {type(value).__module__}.{type(value).__qualname__}"


def _function_parts(function: types.FunctionType, seen: set[int], depth: int) -> Iterator[str]:
    if is_installed(function.__module__):
        yield f"installed {function.__module__}.{function.__qualname__}"
        return
    yield from _code_parts(function.__code__, seen, depth)
    yield from _parts(function.__defaults__, seen, depth + 1)
    yield from _parts(function.__kwdefaults__, seen, depth + 1)
    for cell in function.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen, depth + 1)
        except ValueError:  # the cell is empty
            yield "empty"
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield f"global {name}"
            yield from _parts(function.__globals__[name], seen, depth + 1)


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _code_parts(code: types.CodeType, seen: set[int], depth: int) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount))
    for constant in code.co_consts:
        yield from _parts(constant, seen, depth + 1)


def _class_parts(cls: type, seen: set[int], depth: int) -> Iterator[str]:
    yield f"class {cls.__module__}.{cls.__qualname__}"
    if is_installed(cls.__module__):
        return
    for base in cls.__bases__:
        yield from _parts(base, seen, depth + 1)
    for name, member in sorted(vars(cls).items()):
        if not (name.startswith("__") and name.endswith("__")) or callable(member):
            yield name
            yield from _parts(getattr(member, "__func__", member), seen, depth + 1)


def _git(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit that is checked out in a folder and whether it has changes; None, None without git."""
    commit = _git_output(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git_output(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git_output(folder: Path, *arguments: str) -> str | None:
    try:
        ended = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=_GIT_TIMEOUT_S, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()
