"""Small real HTTP servers that answer in the place of a Ray dashboard."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, str], bytes]

VERSION = {"version": "4", "ray_version": "2.60.0"}
METADATA = {"result": True, "data": {"rayVersion": "2.60.0", "pythonVersion": "3.11.7"}}


def as_json(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def text(status: int, body: str, **headers: str) -> Answer:
    return status, {"Content-Type": "text/plain", **headers}, body.encode()


def dashboard(version: str = "2.60.0", *, nodes: list[dict[str, Any]] | None = None) -> Callable[..., Answer]:
    """What a dashboard answers to a look at the cluster."""
    listed = nodes if nodes is not None else [node("n1", "10.9.8.7", CPU=4.0, memory=2.0**31)]
    answers = {
        "/api/version": {**VERSION, "ray_version": version},
        "/api/v0/cluster_metadata": METADATA,
        "/api/v0/nodes": {"data": {"result": {"result": listed}}},
        "/nodes": {"data": {"summary": [{"hostname": "elsewhere", "raylet": {"nodeId": "n1"}}]}},
    }

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        path = request.path.partition("?")[0]
        return as_json(answers[path]) if path in answers else text(404, "404: Not Found")

    return answer


def node(node_id: str, ip: str, *, state: str = "ALIVE", **resources: float) -> dict[str, Any]:
    total = {"node:__internal_head__": 1.0, **resources}
    return {"node_id": node_id, "node_ip": ip, "is_head_node": True, "state": state, "resources_total": total}


@contextmanager
def serving(answer: Callable[..., Answer], certificate: Path | None = None) -> Iterator[str]:
    """Serve on a free port of this host and give the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = answer(self, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = respond

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{scheme}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
