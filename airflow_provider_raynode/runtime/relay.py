"""A process beside each worker: what the worker and its children write, as whole lines with their trial's tag.

Standard output and error of a worker lead into its pipe. It is no thread of the worker: what a trial wrote last before
it crashed arrives, and a library that writes while it holds Python's lock never waits for itself. It ends when nobody
holds the pipe any more. Started as a script, without the package: it imports what a start costs milliseconds without.
"""

import os
import time
from collections.abc import Iterator

# On the way to the driver a line stands between these: Ray's own reader of log files cuts where a write ends.
BEGIN, END, MORE, LAST = "\x02", "\x03", "\x04", "\x05"
_FRAME = b"\x00\x02\x03\x04\x05"
# In the pipe: from here on, it is another trial that writes; an empty tag for none.
_TAG_BEGIN, _TAG_END = b"\x00<", b">\x00"
# Ray carries up to 1,000 lines at once: a longer line goes in pieces.
PIECE = 32 * 1024
_LONGEST = 16 * 1024 * 1024
_BAR_EVERY_S = 5.0
_CHUNK = 1 << 20


def tag_record(tag: str) -> bytes:
    """Return what a worker writes into the pipe when another trial begins (`tag`), or its trial ends (empty)."""
    return _TAG_BEGIN + tag.encode() + _TAG_END


class Lines:
    """Makes tagged lines of a stream of bytes.

    A line ends at its newline, at the end of its trial, or at the end of all. Of a line that is overwritten from its
    beginning, as progress bars are, the last state counts; meanwhile one is shown every few seconds.
    """

    def __init__(self) -> None:
        self._tag = ""
        self._open = False
        self._rest = bytearray()
        self._looked = 0
        self._bar_shown = b""
        self._bar_next = 0.0

    def feed(self, data: bytes) -> bytes:
        """Return the lines that `data` completes, as they go to the driver."""
        self._rest += data
        made: list[bytes] = []
        while (begin := self._rest.find(_TAG_BEGIN, max(0, self._looked - 1))) >= 0:
            end = self._rest.find(_TAG_END, begin)
            if end < 0:
                return b"".join(made)  # written at once, it is whole with the next read
            tag = bytes(self._rest[begin + len(_TAG_BEGIN) : end]).decode("utf-8", "replace")
            before, after = self._rest[:begin], self._rest[end + len(_TAG_END) :]
            self._rest = before
            made.extend(self._whole(final=True))
            made.append(self._change(tag))
            self._rest, self._looked = after, 0
        made.extend(self._whole(final=False))
        return b"".join(made)

    def end(self) -> bytes:
        """Return what is left when nobody writes any more."""
        return b"".join([*self._whole(final=True), self._change("")])

    def _change(self, tag: str) -> bytes:
        """Mark the end of the trial, if it has not been; what a thread of it still writes keeps its tag."""
        ended = f"{BEGIN}[{self._tag}] {LAST}\n".encode() if self._open else b""
        self._tag, self._open = tag or self._tag, bool(tag)
        return ended

    def _whole(self, *, final: bool) -> Iterator[bytes]:
        end = self._rest.rfind(b"\n", self._looked)
        if end >= 0:
            lines = bytes(self._rest[:end]).split(b"\n")
            del self._rest[: end + 1]
            for line in lines:
                yield self._line(line)
                self._bar_shown, self._bar_next = b"", 0.0
        if self._rest and (final or len(self._rest) > _LONGEST):
            yield self._line(bytes(self._rest))
            self._rest.clear()
        elif b"\r" in self._rest:
            yield from self._bar()
        self._looked = len(self._rest)

    def _bar(self) -> Iterator[bytes]:
        now = time.monotonic()
        if not self._bar_next:
            self._bar_next = now + _BAR_EVERY_S
        shown = _last_state(bytes(self._rest))
        if now >= self._bar_next and shown.strip() and shown != self._bar_shown:
            self._bar_shown, self._bar_next = shown, now + _BAR_EVERY_S
            yield self._framed(shown)
        # What it has overwritten is not needed any more.
        if (begin := self._rest.rstrip(b"\r").rfind(b"\r")) > 0:
            del self._rest[:begin]

    def _line(self, line: bytes) -> bytes:
        if b"\r" in line:
            line = _last_state(line)
            if line and line == self._bar_shown:
                return b""
        return self._framed(line)

    def _framed(self, line: bytes) -> bytes:
        if b"\x1b" in line:
            line = without_colours(line)
        text = line.decode("utf-8", "replace").encode().translate(None, _FRAME)
        before = f"{BEGIN}[{self._tag}] ".encode() if self._tag else BEGIN.encode()
        self._open = bool(self._tag)
        pieces = []
        begin = 0
        while len(text) - begin > PIECE:
            cut = begin + PIECE
            while text[cut] & 0xC0 == 0x80:  # within a character
                cut -= 1
            pieces.append(before + text[begin:cut] + MORE.encode() + b"\n")
            before, begin = BEGIN.encode(), cut
        pieces.append(before + text[begin:] + END.encode() + b"\n")
        return b"".join(pieces)


def _last_state(line: bytes) -> bytes:
    """Return what a terminal would show of a line with carriage returns, more or less: what stands after the last."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def without_colours(line: bytes) -> bytes:
    """Return a line without the control sequences of terminals."""
    import re

    return re.sub(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])", b"", line)


def main() -> None:
    """Read the pipe to its end."""
    if os.fork():
        os._exit(0)  # nobody's child: the function may wait for all of its own, and Ray kills a worker's
    lines = Lines()
    while data := os.read(0, _CHUNK):
        _write(lines.feed(data))
    _write(lines.end())


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    main()
