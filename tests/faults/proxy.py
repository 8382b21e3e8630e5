"""A proxy between Airflow and a Ray head, that can be cut, answer in the head's place, or be slow."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

_HTTP = "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"


class Proxy:
    """Passes bytes on to `target`. `fault` says what it does instead, for connections that are open as well:

    - "": nothing, it passes on;
    - "cut": as an unplugged cable: connections are broken and new ones refused;
    - "500", "401", "garbage": answers each request so;
    - "slow": a submission waits for `delay_s` before it is passed on;
    - "lag": every piece that a client sends waits for `delay_s`.

    With a `token`, only requests with that one are passed on, with `real_token` in its place.
    """

    def __init__(self, target: tuple[str, int], *, token: str = "") -> None:
        self.target = target
        self.fault = ""
        self.delay_s = 0.0
        self.token = token
        self.real_token = ""
        self.held = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The base URL of the Jobs API through the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def break_connections(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def become(self, fault: str) -> None:
        """Change the fault, for open connections as well."""
        self.fault = fault
        if fault:
            self.break_connections()

    def close(self) -> None:
        """End the proxy."""
        self._listener.close()
        self.break_connections()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.fault == "cut":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                return
            first = client.recv(65536)
            head = first.split(b"\r\n\r\n", 1)[0].decode("latin-1")
            if self._refused(head, client):
                return
            self._hold(first)
            with socket.create_connection(self.target) as backend:
                with self._lock:
                    self._open |= {client, backend}
                backend.sendall(first.replace(self.token.encode(), self.real_token.encode()) if self.token else first)
                back = threading.Thread(target=self._pump, args=(backend, client), daemon=True)
                back.start()
                self._pump(client, backend)
                back.join()
                with self._lock:
                    self._open -= {client, backend}

    def _hold(self, data: bytes) -> None:
        """Hold a submission back, be it the first request of its connection or a later one."""
        if self.fault == "slow" and data.startswith(b"POST /api/jobs/ "):
            self.held.set()
            time.sleep(self.delay_s)

    def _refused(self, head: str, client: socket.socket) -> bool:
        answers = {"500": ("500 Internal Server Error", "Traceback: broken"), "garbage": ("200 OK", "<html>hello")}
        status, body = answers.get(self.fault, ("", ""))
        if self.token and f"bearer {self.token}" not in head.lower():
            status, body = "401 Unauthorized", "the token has expired"
        if not status:
            return False
        client.sendall(_HTTP.format(status=status, length=len(body), body=body).encode())
        return True

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._hold(data)
                if self.fault == "lag":
                    time.sleep(self.delay_s)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
