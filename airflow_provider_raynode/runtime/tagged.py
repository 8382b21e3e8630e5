"""On a worker: what it and its children write leads through a relay, which tags each line with its trial."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_raynode.runtime import relay
from airflow_provider_raynode.runtime.noise import quiet_ray

log = logging.getLogger(__name__)

_PIPE_SIZE = 1 << 20
# Whether this process writes into a relay; None before its first trial.
_relayed: bool | None = None
# Where this process wrote before: it goes on there where the relay is killed.
_before: list[int] = []


@contextmanager
def tagged(trial_id: str) -> Iterator[None]:
    """Tag what is written while the context is open, by this process in whatever way and by its children."""
    _begin(trial_id)
    try:
        yield
    finally:
        _record("")


def _begin(trial_id: str) -> None:
    global _relayed
    if _relayed is None:
        try:
            _start_relay()
            _relayed = True
        except OSError as error:  # no more processes, say: lines without a tag are better than no trial
            _relayed = False
            log.warning("The lines of this worker have no tags: %s", error)
        sys.stdout, sys.stderr = LineStream(sys.stdout, 1), LineStream(sys.stderr, 2)
        _show_own_log()
        quiet_ray()
    _record(trial_id)


def _record(tag: str) -> None:
    """Tell the relay whose lines come next."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush_all() if isinstance(stream, LineStream) else stream.flush()
    if _relayed:
        _write(1, relay.tag_record(tag))


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            if not _before:
                raise
            os.dup2(_before[0], 1)
            os.dup2(_before.pop(), 2)


def _start_relay() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    read_end, write_end = os.pipe()
    try:
        with suppress(OSError, AttributeError):  # a larger pipe is only faster, and Linux's own
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        # It forks at once, and its child is the relay: this process has no child that it did not start itself.
        command = [sys.executable, "-I", "-S", str(Path(relay.__file__))]
        subprocess.run(command, stdin=read_end, start_new_session=True, check=True, cwd="/")
        _before.append(os.dup(1))
        os.dup2(write_end, 1)
        os.dup2(write_end, 2)
    except subprocess.CalledProcessError as error:
        raise OSError(f"the relay did not start: {error}") from error
    finally:
        os.close(read_end)
        os.close(write_end)


def _show_own_log() -> None:
    """Show what the function logs with `context().logger`, whatever else it sets up."""
    own = logging.getLogger("airflow_provider_raynode.trial")
    own.setLevel(logging.INFO)
    own.propagate = False
    handler = logging._StderrHandler(logging.NOTSET)  # type: ignore[attr-defined]  # sys.stderr of the moment
    handler.setFormatter(PlainFormatter())
    own.addHandler(handler)


class PlainFormatter(logging.Formatter):
    """The message, after the level where that says something."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"


class LineStream:
    """A text stream that writes whole lines, each at once: those of two threads, or of a child, never mix.

    :param stream: the stream that it stands for; it has the same file descriptor.
    :param descriptor: where it writes.
    """

    def __init__(self, stream: TextIO, descriptor: int) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        # The beginnings of lines, by thread.
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Write the lines that `text` completes."""
        thread = threading.get_ident()
        with self._lock:
            whole = self._begun.pop(thread, "") + text
            # A progress bar has no newline: it is shown as it goes.
            end = max(whole.rfind("\n"), whole.rfind("\r")) + 1
            if end < len(whole):
                self._begun[thread] = whole[end:]
            if end:
                self._write(whole[:end])
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write the line that this thread has begun."""
        with self._lock:
            self._write(self._begun.pop(threading.get_ident(), ""))
        self._stream.flush()  # what came by `sys.stdout.buffer`

    def flush_all(self) -> None:
        """Write every line that has begun, each on its own."""
        with self._lock:
            begun, self._begun = self._begun, {}
            self._write("\n".join(begun.values()))
        self._stream.flush()

    def _write(self, text: str) -> None:
        _write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
