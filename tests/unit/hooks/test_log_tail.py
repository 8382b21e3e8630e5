"""A log that is followed through real WebSockets: reconnection, skipping, TLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import self_signed
from websockets.sync.server import ServerConnection, serve

from airflow_provider_raynode.hooks.ray import RaySettings
from airflow_provider_raynode.launchers import _log_tail
from airflow_provider_raynode.launchers._log_tail import LogTail

LOG = "".join(f"{'  ' * (number % 3)}line {number} é🎯\n" for number in range(200)) + "unended"


@contextmanager
def tailing(handler: Callable[[ServerConnection], None], certificate: Path | None = None) -> Iterator[RaySettings]:
    """A server whose WebSockets run the handler, and the settings to reach it."""
    import ssl

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = serve(handler, "127.0.0.1", 0, ssl=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    scheme = "https" if certificate else "http"
    address = f"{scheme}://localhost:{server.socket.getsockname()[1]}"
    try:
        yield RaySettings(address, "test", token="t0ken", ca_file=str(certificate) if certificate else None)
    finally:
        server.shutdown()
        thread.join()


def read_all(tail: LogTail, expected: int, timeout_s: float = 20.0) -> str:
    """Read as a launcher does, until `expected` bytes have come."""
    read, deadline = b"", time.monotonic() + timeout_s
    while len(read) < expected and time.monotonic() < deadline:
        data = tail.read(tail.first + len(read))
        assert data == b"" or data.endswith(b"\n")
        read += data
        time.sleep(0.02)
    return (read + tail.read(tail.first + len(read), final=True)).decode()


@pytest.mark.parametrize("secure", [False, True])
def test_the_whole_log_whatever_the_frames(secure: bool, tmp_path: Path) -> None:
    asked: list[str] = []

    def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(f"{connection.request.path} {connection.request.headers['Authorization']}")
        for start in range(0, len(LOG), 7):
            connection.send(LOG[start : start + 7])
        connection.recv(timeout=5)

    with tailing(handler, self_signed(tmp_path) if secure else None) as settings:
        tail = LogTail(settings, "the-job", 0)
        assert read_all(tail, len(LOG.encode()) - len("unended")) == LOG
        tail.close()
    assert asked == ["/api/jobs/the-job/logs/tail Bearer t0ken"]


def test_each_connection_begins_at_the_start_and_nothing_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_tail, "_RECONNECT_S", 0.01)
    connections = 0

    def handler(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        for start in range(0, min(connections * 900, len(LOG)), 100):
            connection.send(LOG[start : start + 100])

    with tailing(handler) as settings:
        tail = LogTail(settings, "j", 0)
        assert read_all(tail, len(LOG.encode()) - len("unended")) == LOG
        tail.close()
    assert connections > 2


def test_it_begins_where_the_reader_was() -> None:
    offset = len(LOG[:1000].encode())
    with tailing(lambda connection: connection.send(LOG)) as settings:
        tail = LogTail(settings, "j", offset)
        assert read_all(tail, len(LOG.encode()) - offset - len("unended")) == LOG[1000:]
        tail.close()


def test_a_slow_reader_makes_the_thread_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_tail, "_MAX_BUFFER", 1000)
    big = "0123456789\n" * 5000

    def handler(connection: ServerConnection) -> None:
        for start in range(0, len(big), 500):
            connection.send(big[start : start + 500])
        connection.recv(timeout=20)

    with tailing(handler) as settings:
        tail = LogTail(settings, "j", 0)
        time.sleep(0.5)
        assert 1000 < len(tail._buffer) < 3000
        assert read_all(tail, len(big)) == big
        tail.close()


def test_a_log_that_never_comes_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_tail, "_RECONNECT_S", 0.01)
    with tailing(lambda connection: None) as settings:
        tail = LogTail(settings, "j", 0)
        deadline = time.monotonic() + 10
        while not tail.broken and time.monotonic() < deadline:
            time.sleep(0.02)
        assert tail.broken
        tail.close()
