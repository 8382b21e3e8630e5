"""The Airflow environment of `raynode run`: a home, a throw-away metadata database, output turned to a log file."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

DEFAULT_HOME = Path(".raynode")


@contextmanager
def airflow_environment() -> Iterator[Path]:
    """Prepare Airflow's environment variables before its first import; gives AIRFLOW_HOME.

    The home is AIRFLOW_HOME where that is set, else `.raynode` in the working directory. The metadata database is a
    fresh SQLite file for this run only: a deployment's own database is never touched, so connections and variables
    come from environment variables or a secrets backend.
    """
    home = Path(os.environ.get("AIRFLOW_HOME") or DEFAULT_HOME).expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raynode-run-") as scratch:
        (Path(scratch) / "dags").mkdir()
        os.environ.update(
            AIRFLOW_HOME=str(home),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{scratch}/airflow.db",
            AIRFLOW__CORE__DAGS_FOLDER=f"{scratch}/dags",
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__LOGGING__BASE_LOG_FOLDER=f"{scratch}/logs",
            AIRFLOW__CORE__UNIT_TEST_MODE="False",
            # So that a message about a missing connection says what was not looked at.
            RAYNODE_RUN_DATABASE=f"{scratch}/airflow.db",
        )
        yield home


class _Prints(io.TextIOBase):
    """`sys.stdout` of the tasks: whole lines go to the display, and to the log like everything else."""

    def __init__(self, log: TextIO, show: Callable[[str], None]) -> None:
        self._log = log
        self._show = show
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)

    def flush(self) -> None:
        self._log.flush()

    def fileno(self) -> int:
        return self._log.fileno()


@contextmanager
def output_to(path: Path) -> Iterator[TextIO]:
    """Send the output of this process and its children to the file `path`; gives the terminal that was stdout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    terminal = os.fdopen(os.dup(saved[0]), "w", encoding="utf-8", errors="replace")
    try:
        yield terminal
    finally:
        terminal.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        terminal.close()


@contextmanager
def prints_to(show: Callable[[str], None]) -> Iterator[None]:
    """Give every line that tasks print to `show` as well as to the log; what they log goes to the log alone."""
    import structlog

    original = sys.stdout
    make = structlog.get_config()["logger_factory"]

    def logger_on_original(*args: Any) -> Any:
        # Airflow's loggers write to what sys.stdout is when they are made, which may be at any time.
        patched, sys.stdout = sys.stdout, original
        try:
            return make(*args)
        finally:
            sys.stdout = patched

    structlog.configure(logger_factory=logger_on_original)
    sys.stdout = _Prints(original, show)
    try:
        yield
    finally:
        sys.stdout = original
        structlog.configure(logger_factory=make)
