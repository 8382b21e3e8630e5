"""Where an error of the DAG file stands: the author's line, the DAG, the node or task."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from airflow_provider_raynode.exceptions import ConfigWarning, RayNodeError

_PACKAGE = str(Path(__file__).resolve().parent.parent) + "/"
# Frames that are nobody's own code: Airflow's, and what attrs and the standard library make of a call.
_NOT_THE_AUTHORS = ("/site-packages/airflow/", "/site-packages/attr", "/site-packages/attrs/", "<attrs generated")


@contextmanager
def placed(kind: str, name: str, dag_id: str | None) -> Iterator[None]:
    """Put file, line, DAG and node in front of an error of this package that is raised within; once.

    :param kind: `node` or `task`.
    :param name: its id.
    """
    try:
        yield
    except RayNodeError as error:
        if getattr(error, "is_placed", False):
            raise
        told = type(error)(place(kind, name, dag_id) + _indented(str(error)))
        told.is_placed = True  # type: ignore[attr-defined]
        raise told from error.__cause__


@contextmanager
def warnings_placed(kind: str, name: str, dag_id: str | None) -> Iterator[None]:
    """Give the warnings of a config that is read within the author's line, the DAG and the node."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConfigWarning)
        yield
    for each in told:
        file, line, text = each.filename, each.lineno, each.message
        if issubclass(each.category, ConfigWarning) and (found := author_line()) is not None:
            file, line = found
            text = ConfigWarning(f"{f'DAG {dag_id!r}, ' if dag_id else ''}{kind} {name!r}: {each.message}")
        warnings.warn_explicit(text, each.category, file, line)


def place(kind: str, name: str, dag_id: str | None) -> str:
    """Return where the author's code that runs now stands, as the beginning of a message."""
    line = author_line()
    where = f"{line[0]}, line {line[1]}: " if line else ""
    return f"{where}{f'DAG {dag_id!r}, ' if dag_id else ''}{kind} {name!r}:"


def author_line() -> tuple[str, int] | None:
    """Return file and line of the innermost call that is not Airflow's or this package's, None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not (file.startswith(_PACKAGE) or any(part in file for part in _NOT_THE_AUTHORS) or _is_library(file)):
            return file, frame.f_lineno
        frame = frame.f_back
    return None


def _is_library(file: str) -> bool:
    return file in (contextmanager.__code__.co_filename, "<string>") or file.startswith("<frozen")


def _indented(message: str) -> str:
    lines = message.splitlines()
    return f" {message}" if len(lines) < 2 else "".join(f"\n  {line}" for line in lines)
