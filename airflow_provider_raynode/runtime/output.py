"""The driver's output: how long it has been quiet, so that the last lines of the trials are not cut off."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


class WatchedStream:
    """A text stream that notes when it was last written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.last_write = time.monotonic()

    def write(self, text: str) -> int:
        """Write, and note the time."""
        self.last_write = time.monotonic()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """Standard output and error of this process, watched while the context is open."""

    def __enter__(self) -> Output:
        self._before = sys.stdout, sys.stderr
        self._streams = WatchedStream(sys.stdout), WatchedStream(sys.stderr)
        sys.stdout, sys.stderr = self._streams
        return self

    def __exit__(self, *exc: object) -> None:
        sys.stdout, sys.stderr = self._before

    def drain(self, *, quiet_s: float = 0.5, longest_s: float = 10.0) -> None:
        """Wait until nothing was written for `quiet_s`, at most `longest_s`.

        Ray brings the lines of the workers to the driver through files and a service of its own, some tenths of a
        second after they were printed; what has not arrived when the driver disconnects never does.
        """
        start = time.monotonic()
        while (now := time.monotonic()) - start < longest_s:
            last = max(start, *(stream.last_write for stream in self._streams))
            if now - last >= quiet_s:
                return
            time.sleep(0.05)
