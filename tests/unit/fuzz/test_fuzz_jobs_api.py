"""The Jobs API's answers, whatever they are: a real HTTP server that says anything, and only the documented errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.hooks._cluster import read_cluster
from airflow_provider_raynode.hooks._http import RayHttp
from airflow_provider_raynode.hooks._jobs import RayJobs, Submission
from airflow_provider_raynode.hooks._settings import RaySettings
from airflow_provider_raynode.launchers._base import JobStatus


class Anything:
    """What the server answers next."""

    status = 200
    body = b""
    content_type = "application/json"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.send_response(Anything.status)
        self.send_header("Content-Type", Anything.content_type)
        self.send_header("Content-Length", str(len(Anything.body)))
        self.end_headers()
        self.wfile.write(Anything.body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


words = st.sampled_from(
    ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED", "done", "2.60.0", "3.11.7", "ALIVE", "", "raynode-x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | words,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        words
        | st.sampled_from(
            ["status", "message", "submission_id", "entrypoint", "logs", "data", "summary", "result", "version",
             "ray_version", "raylet", "state", "resourcesTotal", "driver_node_id", "metadata", "nodeManagerHostname"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
bodies = values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60) | st.just(b"<html>login</html>")
statuses = st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 405, 413, 418, 500])


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=statuses, body=bodies, kind=st.sampled_from(["application/json", "text/html", ""]), call=st.integers(0, 3)
)
def test_whatever_the_server_says(url: str, status: int, body: bytes, kind: str, call: int) -> None:
    Anything.status, Anything.content_type = status, kind
    Anything.body = b"" if status == 204 else body
    http = RayHttp(RaySettings(address=url, source="test"), read_timeout_s=5)
    jobs = RayJobs(http)
    try:
        if call == 0:
            found = jobs.get("raynode-x")
            assert found is None or isinstance(found, JobStatus)
        elif call == 1:
            assert isinstance(jobs.log("raynode-x"), str)
        elif call == 2:
            assert isinstance(jobs.stop("raynode-x", 0.0), JobStatus | None)
        else:
            read_cluster(http, retry=False)
    except RayNodeError as error:
        assert str(error)
    finally:
        http.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=30))
def test_an_id_goes_nowhere_but_into_its_place(url: str, name: str) -> None:
    Anything.status, Anything.body = 404, b"does not exist"
    http = RayHttp(RaySettings(address=url, source="test"), read_timeout_s=5)
    allowed = bool(name) and all(
        character.isascii() and (character.isalnum() or character in "-_") for character in name
    )
    try:
        found: Any = RayJobs(http).get(name)
    except RayNodeError:
        assert not allowed
    else:
        assert allowed
        assert found is None
    finally:
        http.close()
    if not allowed:
        with pytest.raises(RayNodeError):
            RayJobs(http).ensure(Submission(name, "python"))
