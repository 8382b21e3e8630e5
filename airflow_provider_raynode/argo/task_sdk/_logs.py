"""The log of a pod: plain lines on stdout, with every secret masked, whoever prints it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def container_logs(level: str | None = None) -> Iterator[None]:
    """Send the logs to stdout without colours, and mask secrets in them and in what is printed.

    :param level: DEBUG, INFO, …; None takes `[logging] logging_level`.
    """
    from airflow.sdk._shared.secrets_masker import RedactedIO
    from airflow.sdk.log import configure_logging

    # The loggers mask for themselves, and write to stdout as it is now.
    configure_logging(log_level=level or "DEFAULT", output=sys.stdout, colored_console_log=False)
    with (
        _masked(RedactedIO, contextlib.redirect_stdout, "stdout"),
        _masked(RedactedIO, contextlib.redirect_stderr, "stderr"),
    ):
        yield


@contextlib.contextmanager
def _masked(redacted: Any, redirect: Any, name: str) -> Iterator[None]:
    stream = redacted()
    # It takes stdout for its target, whatever it stands for.
    stream.target = getattr(sys, name)
    with redirect(stream):
        yield
