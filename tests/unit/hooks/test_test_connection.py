"""What the connection's test says of servers that are there, are not, or are something else."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from servers import Answer, as_json, dashboard, node, serving, text

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks.ray import ClusterUnreachableError, RayHook


def define(monkeypatch: pytest.MonkeyPatch, host: str, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray", "host": host, **fields}))


def test_a_dashboard() -> None:
    with serving(dashboard()) as url:
        assert RayHook(address=url).test_connection() == (
            True,
            f"Ray 2.60.0, Python 3.11.7 at {url}: 1 node, 4 CPU, 2.0 GiB memory",
        )
        info = RayHook(address=url).cluster_info()
    assert info.resources == {"CPU": 4.0, "memory": 2.0**31}
    assert not info.is_this_host


def test_dead_nodes_do_not_count_and_resources_add_up() -> None:
    nodes = [node("a", "10.0.0.1", CPU=4, GPU=1), node("b", "10.0.0.2", CPU=8), node("c", "x", state="DEAD", CPU=99)]
    with serving(dashboard(nodes=nodes)) as url:
        ok, message = RayHook(address=url).test_connection()
    assert ok and "2 nodes, 12 CPU, 1 GPU" in message


@pytest.mark.parametrize(
    ("version", "remedy"),
    [("2.9.3", "upgrade the cluster"), ("2.61.0", "upgrade airflow-provider-raynode"), ("3.0.0rc1", "upgrade airflow")],
)
def test_version_skew(version: str, remedy: str) -> None:
    with serving(dashboard(version)) as url:
        ok, message = RayHook(address=url).test_connection()
    assert not ok and f"the cluster runs Ray {version}, this provider supports Ray 2.60: {remedy}" in message


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Hello</html>"),
        as_json({"service": "something"}),
        as_json([1, 2]),
        text(404, "nothing here"),
    ],
)
def test_a_server_that_is_no_ray_dashboard(answer: Answer) -> None:
    with serving(lambda *_: answer) as url:
        ok, message = RayHook(address=url).test_connection()
    assert not ok and message.startswith(f"{url} is not a Ray dashboard: ") and "port 8265 of the head" in message


def test_a_login_page_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: text(302, "", Location="https://login.example.com/")) as url:
        ok, message = RayHook(address=url).test_connection()
    assert not ok and "redirects /api/version to https://login.example.com/" in message and "secret_headers" in message


def test_a_proxy_without_its_cluster() -> None:
    with serving(lambda *_: text(503, "no healthy upstream")) as url:
        ok, message = RayHook(address=url).test_connection()
        assert not ok and "the proxy in front of the cluster answers 503: no healthy upstream" in message
        with pytest.raises(ClusterUnreachableError):
            RayHook(address=url).get_job("x")


def test_a_refused_port_and_its_second_tries() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    begin = time.monotonic()
    ok, message = RayHook(address=url).test_connection()
    once = time.monotonic() - begin
    assert not ok and f"{url} (no connection) refuses the connection" in message and "--dashboard-host" in message
    begin = time.monotonic()
    with pytest.raises(ClusterUnreachableError, match="refuses the connection"):
        RayHook(address=url).cluster_info()
    assert time.monotonic() - begin > max(once, 0.7), "the form does not wait and try again"


def test_an_unknown_host() -> None:
    ok, message = RayHook(address="http://no-such-host.invalid:8265").test_connection()
    assert not ok and "the host name is not known to DNS" in message


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_raynode.hooks import ray

    monkeypatch.setattr(ray, "_TEST_TIMEOUTS_S", (0.3, 0.3))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ok, message = RayHook(address=f"http://127.0.0.1:{silent.getsockname()[1]}").test_connection()
    assert not ok and "took the request but gave no answer in time" in message


def test_a_port_that_speaks_no_http() -> None:
    import threading

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def close_at_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\x00\x00\x12\x04\x00\x00\x00")

        threading.Thread(target=close_at_once, daemon=True).start()
        ok, message = RayHook(address=f"http://127.0.0.1:{server.getsockname()[1]}").test_connection()
    assert not ok and "the connection broke" in message


def test_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    # The environment's authorities must not win over the connection's.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    with serving(dashboard(), certificate) as url:
        define(monkeypatch, url)
        ok, message = RayHook().test_connection()
        assert not ok and "the TLS certificate cannot be verified" in message and "ca_file" in message
        define(monkeypatch, url, extra={"ca_file": str(certificate)})
        ok, message = RayHook().test_connection()
        assert ok, message
        define(monkeypatch, url, extra={"verify_tls": False})
        assert RayHook().test_connection()[0]


def test_https_on_a_plain_port() -> None:
    with serving(dashboard()) as url:
        ok, message = RayHook(address=url.replace("http", "https")).test_connection()
    assert not ok and "speaks no TLS: use http://" in message


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The token and the headers of the connection, never what a netrc file has."""
    seen: list[dict[str, str]] = []
    (tmp_path / ".netrc").write_text("machine localhost login me password other")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    answer = dashboard()

    def record(request: Any, body: bytes) -> Answer:
        seen.append(dict(request.headers))
        return answer(request, body)

    with serving(record) as url:
        define(monkeypatch, url, password="t0ken", extra={"secret_headers": {"X-Api-Key": "k3y"}})
        assert RayHook().test_connection()[0]
        define(monkeypatch, url)
        assert RayHook().test_connection()[0]
    assert seen[0]["Authorization"] == "Bearer t0ken" and seen[0]["X-Api-Key"] == "k3y"
    assert seen[0]["User-Agent"].startswith("airflow-provider-raynode/")
    assert "Authorization" not in seen[-1] and "X-Api-Key" not in seen[-1]


def test_an_upload_that_is_too_large_says_so() -> None:
    from airflow_provider_raynode.hooks.ray import Submission

    def answer(request: Any, body: bytes) -> Answer:
        return (
            text(413, "Maximum request body size exceeded")
            if request.command == "PUT"
            else text(404, "Job x does not exist")
        )

    with serving(answer) as url, pytest.raises(ClusterError, match="larger than what it takes in one request"):
        RayHook(address=url).ensure_job(Submission("x", "true"))


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "a.b", "x" * 201, "../x", "a\n"])
def test_ids_that_ray_cannot_hold(name: str) -> None:
    with pytest.raises(ClusterError, match="only letters, digits, _ and - are allowed"):
        RayHook(address="http://127.0.0.1:1").get_job(name)
