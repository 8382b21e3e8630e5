"""What the workers wrote, as it reaches the driver through Ray: put together again, one line each."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_raynode.runtime.noise import is_noise
from airflow_provider_raynode.runtime.relay import BEGIN, END, LAST, MORE

# A line says who speaks: a trial by its id, all else of Ray by this name.
RAY = "Ray"
_LAST_OF = re.compile(rf"{BEGIN}\[(.*)\] {LAST}", re.DOTALL)
_TAG = re.compile(rf"{BEGIN}\[([^\]]*)\] ")
# How long in seconds what is said of a trial waits for the trial's own last lines.
_WAIT_S = 5.0


class WorkerLog:
    """Takes the batches of lines that Ray's log monitors send, and gives whole lines to `show`.

    A log monitor cuts where it finds the end of a file at that moment: the marks of the relay say where a line ends.

    :param show: takes a line, without its newline.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._lock = threading.RLock()
        self._begun: dict[tuple[Any, ...], str] = {}
        # Trials whose lines are coming, each with what is to be said after its last.
        self._open: dict[str, list[str]] = {}
        self._ended: set[str] = set()

    @property
    def quiet(self) -> bool:
        """Whether the lines of every trial that has begun to write have come to their end."""
        with self._lock:
            return not self._open and not self._begun

    def take(self, data: Mapping[str, Any]) -> None:
        """Take a batch: lines of one file of one process."""
        with self._lock:
            source = (data.get("ip"), data.get("pid"), data.get("is_err"))
            for line in data.get("lines", ()):
                self._take(source, data, line)

    def after(self, trial_id: str, line: str) -> None:
        """Show `line`, after the last lines of the trial that it is about, for which it waits a little."""
        with self._lock:
            if trial_id in self._ended:
                self._show(line)
                return
            self._open.setdefault(trial_id, []).append(line)
        timer = threading.Timer(_WAIT_S, self._release, [trial_id])
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Show what is left."""
        with self._lock:
            begun, self._begun = self._begun, {}
            for text in begun.values():
                self._show(_plain(text))
            for trial_id in list(self._open):
                self._release(trial_id)

    def _release(self, trial_id: str) -> None:
        with self._lock:
            for line in self._open.pop(trial_id, ()):
                self._show(line)

    def _take(self, source: tuple[Any, ...], data: Mapping[str, Any], line: str) -> None:
        whole = self._begun.pop(source, "") + line
        if not whole.startswith(BEGIN):
            self._take_foreign(data, whole)
        elif whole.endswith(MORE):
            self._begun[source] = whole[:-1]
        elif whole.endswith(LAST):
            self._last(whole)
        elif not whole.endswith(END):
            self._begun[source] = whole
        else:
            self._whole(whole)

    def _whole(self, whole: str) -> None:
        match = _TAG.match(whole)
        if match is not None and match.group(1) not in self._open:
            self._open[match.group(1)] = []
            self._ended.discard(match.group(1))
        text = _plain(whole)
        if not is_noise(text[match.end() - 1 :] if match else text, of_trial=True):
            self._show(text)

    def _last(self, whole: str) -> None:
        match = _LAST_OF.fullmatch(whole)
        if match is not None:
            self._ended.add(match.group(1))
            self._release(match.group(1))

    def _take_foreign(self, data: Mapping[str, Any], line: str) -> None:
        """Take a line that no trial wrote: of Ray's own processes, or of a worker before its first trial."""
        if is_noise(line):
            return
        pid = data.get("pid")
        if pid == "autoscaler":
            self._show(f"{RAY}: autoscaler: {line}")
        elif isinstance(pid, int):
            where = "" if data.get("ip") == data.get("localhost") else f" on {data.get('ip')}"
            self._show(f"{RAY}: worker {pid}{where}: {line}")
        else:
            for each in line.strip("\n").split("\n"):
                self._show(f"{RAY}: {each}")


def _plain(whole: str) -> str:
    """Return a line without the marks, those of its pieces among them."""
    for mark in (BEGIN, END, MORE):
        whole = whole.replace(mark, "")
    return whole
