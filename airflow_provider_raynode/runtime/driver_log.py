"""The driver's own log: the node's messages as they are, those of Ray and of other libraries with who says it."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import Any

from airflow_provider_raynode.runtime.noise import quiet_ray
from airflow_provider_raynode.runtime.relay import without_colours
from airflow_provider_raynode.runtime.worker_log import RAY

_OWN = "airflow_provider_raynode"


class DriverFormatter(logging.Formatter):
    """The node's own messages as they are, those of Ray and others with their level and who speaks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        text = super().format(record)
        if "\x1b" in text:
            text = without_colours(text.encode("utf-8", "backslashreplace")).decode()
        if record.name.partition(".")[0] == _OWN:
            return text
        speaker = RAY if record.name.partition(".")[0] == "ray" else record.name
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        return f"{speaker}: {level}{text}"


def show_log() -> None:
    """Show the driver's log on standard output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no text fails for the machine's locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(DriverFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    warnings.showwarning = _show_warning
    quiet_ray()


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Show a warning in one line, without the source line that Python adds."""
    logging.getLogger("python").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)
