"""The log of a pod: plain lines on stdout, with every secret masked, whoever prints it."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

_FORMAT = "%(asctime)s %(levelname)-8s %(message)s"
# What the SDK logs to fold its own lines in Airflow's UI.
_FOLDS = ("::group::Pre Execute", "::group::Post Execute", "::endgroup::")


@contextlib.contextmanager
def container_logs() -> Iterator[None]:
    """Send the logs to stdout as `time level message`, and mask secrets in them and in what is printed.

    `[logging] logging_level`, `namespace_levels` and a `log_format` of one's own count. Logging is put back at the end.
    """
    from airflow.sdk._shared.logging import configure_logging
    from airflow.sdk._shared.secrets_masker import RedactedIO
    from airflow.sdk.configuration import conf
    from airflow.sdk.log import mask_logs

    with (
        _as_before(),
        _masked(RedactedIO, contextlib.redirect_stdout, "stdout") as stdout,
        _masked(RedactedIO, contextlib.redirect_stderr, "stderr"),
    ):
        # Not airflow.sdk.log.configure_logging: that looks for remote log storage among the providers, and keeps the
        # stream of its first call.
        configure_logging(
            log_level=conf.get("logging", "logging_level", fallback="INFO"),
            namespace_log_levels=conf.get("logging", "namespace_levels", fallback=None),
            log_format=_configured_format() or _FORMAT,
            colors=False,
            # The loggers mask by field name; tracebacks only become text when they are written.
            output=stdout,
            extra_processors=(_plain, mask_logs),
            cache_logger_on_first_use=False,
        )
        yield


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Put the configuration of logging and structlog back at the end: a process may go on after a task."""
    import structlog

    configured, config = structlog.is_configured(), structlog.get_config()
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    kept = [(each, list(each.handlers), each.level, each.propagate, each.disabled) for each in loggers]
    try:
        yield
    finally:
        structlog.configure(**config) if configured else structlog.reset_defaults()
        for each, handlers, level, propagate, disabled in kept:
            each.handlers[:], each.propagate, each.disabled = handlers, propagate, disabled
            each.setLevel(level)


def masked(text: str) -> str:
    """Return a text without the secrets that are known so far."""
    from airflow.sdk._shared.secrets_masker import redact

    return str(redact(text))


def _configured_format() -> str:
    from airflow.sdk._shared.logging._config import OLD_DEFAULT_LOG_FORMAT
    from airflow.sdk.configuration import conf

    text = str(conf.get("logging", "log_format", fallback="") or "")
    return "" if text == OLD_DEFAULT_LOG_FORMAT else text


def _plain(_logger: Any, _method: str, event: Any) -> Any:
    """Leave out what says nothing in the log of one task: the SDK's folds, the task instance with all its fields."""
    import structlog

    if "_record" not in event and event.get("event") in _FOLDS:
        raise structlog.DropEvent
    if hasattr(event.get("ti"), "task_id"):
        del event["ti"]
    return event


@contextlib.contextmanager
def _masked(redacted: Any, redirect: Any, name: str) -> Iterator[Any]:
    stream = redacted()
    # It takes stdout for its target, whatever it stands for.
    stream.target = getattr(sys, name)
    with redirect(stream):
        yield stream
