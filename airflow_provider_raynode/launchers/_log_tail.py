"""A job's log as it grows: one WebSocket in a thread, so that a long log is not downloaded anew at each look."""

from __future__ import annotations

import logging
import socket
import threading

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from airflow_provider_raynode.hooks.ray import RaySettings

log = logging.getLogger(__name__)

# A reader that falls behind by this much, in bytes, makes the thread wait.
_MAX_BUFFER = 8 * 1024 * 1024
_OPEN_TIMEOUT_S = 10.0
_RECONNECT_S, _MAX_RECONNECT_S = 1.0, 15.0


class LogTail:
    """Follows the log of one job from `offset` bytes on.

    Ray sends the log from its start at each connection; what was received before is skipped by its length. Offsets are
    in bytes of the UTF-8 text that Ray sends.
    """

    def __init__(self, settings: RaySettings, submission_id: str, offset: int) -> None:
        self.submission_id = submission_id
        self.first = offset
        self._settings = settings
        self._buffer = bytearray()
        # The log's offset of the buffer's first byte.
        self._start = offset
        self._changed = threading.Condition(threading.RLock())
        self._stopped = threading.Event()
        self._fruitless = 0
        self._thread = threading.Thread(target=self._run, name=f"log of {submission_id}", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        """Whether several connections in a row brought nothing new: Ray cannot send, or nothing is written."""
        return self._fruitless >= 3

    def read(self, offset: int, *, final: bool = False) -> bytes:
        """Return the whole lines that have come after `offset`; with `final`, an unended last line as well."""
        with self._changed:
            # What the reader has seen is not needed any more.
            seen = max(0, min(offset - self._start, len(self._buffer)))
            del self._buffer[:seen]
            self._start += seen
            self._changed.notify_all()
            if self._start != offset:
                return b""
            return bytes(self._buffer) if final else bytes(self._buffer[: self._buffer.rfind(b"\n") + 1])

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=3.0)

    def _run(self) -> None:
        while not self._stopped.is_set():
            before = self._start + len(self._buffer)
            try:
                self._follow()
            except (OSError, WebSocketException) as error:
                log.debug("log of %s: %s", self.submission_id, error)
            except Exception:
                # The final read is complete without this thread: a surprise here must not end the task.
                log.exception("log of %s cannot be followed", self.submission_id)
                return
            self._fruitless = 0 if self._start + len(self._buffer) > before else self._fruitless + 1
            self._stopped.wait(min(_RECONNECT_S * 2**self._fruitless, _MAX_RECONNECT_S))

    def _follow(self) -> None:
        with self._connect() as connection:
            _keep_alive(connection.socket)
            position = 0
            while not self._stopped.is_set():
                try:
                    message = connection.recv(timeout=1.0)
                except TimeoutError:
                    continue
                data = message.encode() if isinstance(message, str) else message
                position += len(data)
                self._take(data, position)

    def _take(self, data: bytes, position: int) -> None:
        """Keep what is new of `data`, which ends at `position` of the log."""
        with self._changed:
            new = position - (self._start + len(self._buffer))
            if new > 0:
                self._buffer += data[-new:]
            while len(self._buffer) > _MAX_BUFFER and b"\n" in self._buffer and not self._stopped.is_set():
                self._changed.wait(timeout=1.0)

    def _connect(self) -> ClientConnection:
        settings = self._settings
        headers = dict(settings.headers)
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        # Ray's dashboard forwards the compression offer to a backend whose answer it then cannot read, and never
        # answers a ping: with either, the connection dies (seen with Ray 2.60).
        return connect(
            f"ws{settings.address.removeprefix('http')}/api/jobs/{self.submission_id}/logs/tail",
            additional_headers=headers,
            ssl=settings.tls_context(),
            compression=None,
            ping_interval=None,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=0.2,
            max_size=None,
        )


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out that the other side is gone, and keep address translation on the way alive."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
