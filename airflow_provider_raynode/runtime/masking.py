"""Masking of secret values in what a worker prints, logs and raises. Imports no Ray by itself."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

from airflow_provider_raynode.exceptions import RayNodeError

MASK = "***"
# Masking a value as short as "1" would make a log unreadable and keep nothing secret.
_SHORTEST = 4
# A line of a longer secret, such as a private key, is secret by itself; a closing brace in it is not.
_SHORTEST_LINE = 8
_WORDS = frozenset({"true", "false", "null", "none"})


class MaskedError(RayNodeError):
    """Stands for an error of the function that carried a secret; the message is the error's own, masked."""


class Mask:
    """Replaces secret texts by `***`, also where they are quoted in a URI, escaped in JSON or shown by `repr`.

    :param texts: the secret texts; those of less than 4 characters, and words such as `true`, are left alone.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        forms = {form for text in texts for form in _forms(text)}
        # The longest first: of two secrets where one begins with the other, no rest stays.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._by_first: dict[str, list[str]] = {}
        for form in self._forms:
            self._by_first.setdefault(form[0], []).append(form)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def __repr__(self) -> str:
        return f"Mask({len(self._forms)} forms)"

    def __call__(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def is_in(self, data: bytes) -> bool:
        """Whether a secret stands in `data` as UTF-8."""
        return any(form.encode("utf-8", "surrogatepass") in data for form in self._forms)

    def complete_until(self, text: str) -> int:
        """Return where the end of `text` starts that may go on as a secret; its length where none does."""
        if self._pattern is None:
            return len(text)
        longest = len(self._forms[0])
        for start in range(max(0, len(text) - longest + 1), len(text)):
            forms = self._by_first.get(text[start])
            if forms and any(len(form) > len(text) - start and form.startswith(text[start:]) for form in forms):
                return self._before_match(text, start)
        return len(text)

    def _before_match(self, text: str, position: int) -> int:
        """Return `position`, or the start of the secret that it lies in."""
        assert self._pattern is not None
        for match in self._pattern.finditer(text):
            if match.start() < position < match.end():
                return match.start()
        return position


def _forms(text: str) -> Iterator[str]:
    """Yield the ways in which a secret text is commonly written; nothing where it is too short to be masked."""
    if len(text) < _SHORTEST or text.lower() in _WORDS:
        return
    yield text
    yield repr(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    quotable = text.encode("utf-8", "surrogatepass")
    yield quote(quotable, safe="")
    yield quote_plus(quotable)
    lines = [line.strip() for line in text.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _SHORTEST_LINE)


class MaskedStream:
    """A text stream that masks what is written to it, also where a secret comes in pieces.

    The end of a text that may go on as a secret is held until the next write shows whether it does, or until `release`.

    :param stream: the stream to write to.
    :param mask: gives the mask of the moment: the secrets may be read while the stream is in use.
    """

    def __init__(self, stream: TextIO, mask: Callable[[], Mask]) -> None:
        self._stream = stream
        self._mask = mask
        self._held = ""
        self._holds = True
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write what is known to be no secret, masked."""
        with self._lock:
            whole = self._held + text
            mask = self._mask()
            end = mask.complete_until(whole) if self._holds else len(whole)
            self._held = whole[end:]
            if end:
                self._stream.write(mask(whole[:end]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`, masked."""
        for line in lines:
            self.write(line)

    def release(self) -> None:
        """Write what is held; from now on nothing is, but all is still masked: a log handler may keep the stream."""
        with self._lock:
            self._holds = False
            self.write("")
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def masked_output(mask: Callable[[], Mask]) -> Iterator[None]:
    """Mask standard output, standard error and the messages of every logger while the context is open."""
    before, factory = (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    streams = MaskedStream(sys.stdout, mask), MaskedStream(sys.stderr, mask)
    sys.stdout, sys.stderr = streams
    # A handler that was made before writes to the stream of then.
    logging.setLogRecordFactory(_masked_records(factory, mask))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        logging.setLogRecordFactory(factory)
        for stream in streams:
            stream.release()


def _masked_records(factory: Callable[..., logging.LogRecord], mask: Callable[[], Mask]) -> Any:
    def record_of(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # the arguments do not fit the message: logging itself reports that, on standard error
            return record
        if (masked := mask()(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[1] is not None:
            # Every formatter shows this text where it is there.
            record.exc_text = mask()("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
        return record

    return record_of


def without_secrets(error: BaseException, mask: Mask) -> BaseException:
    """Return an error that may leave the worker: `error`, or where it holds a secret, one that stands for it.

    What Ray prints of it counts, and what Ray pickles: an attribute such as a request with its headers, which Tune
    would write into the trial's folder.
    """
    from ray import cloudpickle

    # Without frames: a line of the function's source holds no secret, but may hold a word that is one.
    shown = "".join(traceback.TracebackException.from_exception(error, limit=0).format())
    try:
        clean = mask(shown) == shown and not mask.is_in(cloudpickle.dumps(error))
    except Exception:  # what cannot be looked into is not sent
        clean = False
    if clean:
        return error
    return MaskedError(f"{type(error).__name__}: {mask(str(error))}").with_traceback(error.__traceback__)
