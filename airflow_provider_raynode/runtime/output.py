"""The driver's output: its log, and the lines of its workers; all of them whole, one speaker a line."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

from airflow_provider_raynode.runtime.worker_log import WorkerLog

_HANDLER = "ray_print_logs"


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
    """Standard output and error of this process, watched while the context is open; the workers' lines come to it."""

    def __init__(self) -> None:
        self.workers = WorkerLog(self._show)
        self._lock = threading.Lock()

    def __enter__(self) -> Output:
        self._before = sys.stdout, sys.stderr
        self._streams = WatchedStream(sys.stdout), WatchedStream(sys.stderr)
        sys.stdout, sys.stderr = self._streams
        self._take_from_ray()
        return self

    def __exit__(self, *exc: object) -> None:
        self.workers.close()
        self._give_back_to_ray()
        sys.stdout, sys.stderr = self._before

    def connected(self) -> None:
        """Take over Ray's own log, now that it has set it up."""
        logger = logging.getLogger("ray")
        if logging.getLogger().handlers:  # a driver's process; elsewhere nobody would show it
            logger.handlers.clear()
            logger.propagate = True

    def drain(self, *, quiet_s: float = 0.5, longest_s: float = 10.0) -> None:
        """Wait until every trial's last line is there and nothing was written for `quiet_s`, at most `longest_s`.

        Ray brings the lines of the workers to the driver through files and a service of its own, some tenths of a
        second after they were printed; what has not arrived when the driver disconnects never does.
        """
        start = time.monotonic()
        while (now := time.monotonic()) - start < longest_s:
            last = max(start, *(stream.last_write for stream in self._streams))
            if self.workers.quiet and now - last >= quiet_s:
                return
            time.sleep(0.05)

    def _show(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def _take_from_ray(self) -> None:
        """Have Ray give the workers' lines to this object, in place of its own printer (Ray 2.60)."""
        from ray._private import ray_logging, worker

        self._printer = worker.print_to_stdstream
        worker.print_to_stdstream = self._take
        dispatcher = ray_logging.global_worker_stdstream_dispatcher
        self._connected = any(name == _HANDLER for name, _ in dispatcher.handlers)
        if self._connected:
            dispatcher.remove_handler(_HANDLER)
            dispatcher.add_handler(_HANDLER, self._take)

    def _give_back_to_ray(self) -> None:
        from ray._private import ray_logging, worker

        worker.print_to_stdstream = self._printer
        dispatcher = ray_logging.global_worker_stdstream_dispatcher
        if self._connected:
            printer = self._printer
            dispatcher.remove_handler(_HANDLER)
            dispatcher.add_handler(_HANDLER, lambda data: printer(data, ignore_prefix=False))

    def _take(self, data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
        if data.get("pid") == "autoscaler":
            from ray._private.worker import filter_autoscaler_events

            lines = [line for line in filter_autoscaler_events(data.get("lines", [])) if not line.startswith("Tip: ")]
            data = {**data, "lines": lines}
        self.workers.take(data)
