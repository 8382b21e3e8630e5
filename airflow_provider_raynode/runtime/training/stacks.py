"""Where a process that answers nobody is: it dumps its stacks on a signal, or the kernel says that it is stopped."""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# One of the real-time signals, which neither Python, Ray nor torch uses; by default it would end the process.
_SIGNAL = signal.SIGRTMIN + 9
_LINES = 30
_DUMP_S = 2.0


def answer_signals() -> None:
    """Have this process dump its stacks on the signal: in C, whether or not anything holds Python's lock."""
    # The handler keeps the file; it is below no folder that the author's function may remove or change into.
    stream = _file(os.getpid()).open("w")
    faulthandler.register(_SIGNAL, file=stream, all_threads=True, chain=False)


def state_of(pid: int) -> str:
    """Return what a process of this machine does, in words: called on its machine, in another process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return "its process is gone"
    state = next((line.split()[1] for line in status.splitlines() if line.startswith("State:")), "")
    if state in ("T", "t"):
        return "its process is stopped (SIGSTOP, or a debugger)"
    if state == "Z":
        return "its process has ended"
    waits = " (it waits for a disk or another device)" if state == "D" else ""
    dumped = _dumped(pid)
    return f"its process runs native code, and answers nobody{waits}" + (f":\n{dumped}" if dumped else "")


def _dumped(pid: int) -> str:
    file = _file(pid)
    if not file.exists():  # it would die of the signal
        return ""
    before = file.stat().st_size
    with suppress(OSError):
        os.kill(pid, _SIGNAL)
    deadline, size = time.monotonic() + _DUMP_S, before
    while time.monotonic() < deadline:
        time.sleep(0.1)
        grown = file.stat().st_size
        if grown > before and grown == size:
            break
        size = grown
    with suppress(OSError):
        text = file.read_bytes()[before:].decode("utf-8", "replace")
        threads = [each for each in text.split("\n\n") if each.strip()]
        return "\n".join((_of_the_function(threads) or "").splitlines()[:_LINES])
    return ""


def _of_the_function(threads: list[str]) -> str | None:
    """Return the stack of the thread that runs the author's function: Ray starts it in a file of this name."""
    own = [each for each in threads if "thread_runner.py" in each and "_run_target" in each]
    return next(iter(own or threads), None)


def _file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"raynode-stacks-{pid}.txt"
