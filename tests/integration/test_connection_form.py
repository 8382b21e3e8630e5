"""The connection form and the command line, through Airflow's own API and CLI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

pytestmark = pytest.mark.airflow

TOKEN = "t0ken-of-the-form"
ANSWERS = {
    "/api/version": {"ray_version": "2.60.0"},
    "/api/v0/cluster_metadata": {"data": {"pythonVersion": "3.11.7"}},
    "/api/v0/nodes": {"data": {"result": {"result": []}}},
    "/nodes": {"data": {"summary": []}},
}


class Dashboard(BaseHTTPRequestHandler):
    """Answers what the test of a connection asks of Ray's dashboard, to those who have the token."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        body = json.dumps(ANSWERS[self.path.partition("?")[0]]).encode() if allowed else b"Invalid token"
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a dashboard on this host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def call(airflow_db: None) -> Iterator[Callable[..., Any]]:
    """Call Airflow's REST API: `call("POST", "connections", body)`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        from airflow.api_fastapi.app import create_app, purge_cached_app
        from fastapi.testclient import TestClient

        purge_cached_app()
        client = TestClient(create_app())
        headers = {"Authorization": f"Bearer {client.get('/auth/token').json()['access_token']}"}

        def send(method: str, path: str, body: dict[str, Any] | None = None, status: int = 200) -> Any:
            answer = client.request(method, f"/api/v2/{path}", json=body, headers=headers)
            assert answer.status_code == status, answer.text
            return answer.json() if answer.content else None

        yield send
        purge_cached_app()


def form(**fields: Any) -> dict[str, Any]:
    """What the UI sends: every field, empty ones as empty text, and an empty port as 0."""
    return {
        "connection_id": "typed_by_a_user",
        "conn_type": "ray",
        "description": "",
        "extra": "{}",
        "host": "",
        "login": "",
        "password": TOKEN,
        "port": 0,
        "schema": "",
        **fields,
    }


EMPTY_EXTRAS = {
    "dashboard_port": None,
    "secret_headers": "",
    "verify_tls": True,
    "ca_file": "",
    "catalog": None,
    "runtime_env": {},
}


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "http://127.0.0.1:{port}"},
        {"host": "http://127.0.0.1:{port}", "port": "{port}"},
        {"host": "http://127.0.0.1:{port}", "port": None},
        {"host": "127.0.0.1", "port": "{port}"},
        {"host": "127.0.0.1:{port}"},
        {"host": "ray://127.0.0.1:10001", "port": "{port}"},
        {"host": "ray://127.0.0.1:10001", "extra": '{{"dashboard_port": {port}}}'},
        {"host": " HTTP://127.0.0.1:{port}/\n", "password": f" {TOKEN}\n"},
        {"host": "http://127.0.0.1:{port}", "extra": json.dumps(EMPTY_EXTRAS).replace("{", "{{").replace("}", "}}")},
        {"host": "http://127.0.0.1:{port}", "extra": ""},
        {"host": "http://127.0.0.1:{port}", "extra": '{{"runtime_env": {{"env_vars": {{"A": "b"}}}}}}'},
        {
            "host": "http://127.0.0.1:{port}",
            "extra": '{{"runtime_env": "{{}}", "secret_headers": "{{\\"X\\": \\"y\\"}}"}}',
        },
    ],
)
def test_the_form(fields: dict[str, Any], call: Callable[..., Any], port: int) -> None:
    filled = {key: value.format(port=port) if isinstance(value, str) else value for key, value in fields.items()}
    if "port" in filled:
        filled["port"] = filled["port"] and int(filled["port"])
    answer = call("POST", "connections/test", form(**filled))
    assert answer["status"], answer
    assert answer["message"].startswith(f"Ray 2.60.0, Python 3.11.7 at http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "http://127.0.0.1:1", "port": 2}, "host 'http://127.0.0.1:1' and port 2 both name a port"),
        ({"host": "127.0.0.1", "port": 99999}, "port is 99999, expected a port from 1 to 65535"),
        ({"host": "127.0.0.1", "port": -1}, "port is -1, expected"),
        ({"host": "http://127.0.0.1:99999"}, "its port is '99999', expected 1 to 65535"),
        ({"host": "h", "extra": '{"dashboard_port": 99999}'}, "extra dashboard_port is 99999, expected"),
        ({"host": "http://x://y"}, "host 'http://x://y' has two schemes"),
        ({"host": "127.0.0.1", "password": "***"}, "the token (password) is what Airflow shows in its place"),
        ({"host": "127.0.0.1", "extra": '{"tokn": "x"}'}, "extra has the unknown key 'tokn'"),
        ({"port": 8265}, "port is 8265, but host is empty"),
    ],
)
def test_what_is_wrong_is_said_with_the_id_that_the_user_typed(
    fields: dict[str, Any], message: str, call: Callable[..., Any]
) -> None:
    answer = call("POST", "connections/test", form(**fields))
    assert not answer["status"]
    assert answer["message"].startswith("connection typed_by_a_user") and message in answer["message"]


def test_a_refused_token_names_the_connection(call: Callable[..., Any], port: int) -> None:
    answer = call("POST", "connections/test", form(host=f"http://127.0.0.1:{port}", password="wrong"))
    assert "does not accept the token of connection typed_by_a_user" in answer["message"]


def test_a_saved_connection_is_read_back_and_tested_with_its_masked_secrets(
    call: Callable[..., Any], port: int
) -> None:
    extra = {"secret_headers": '{"X-Api-Key": "k3y"}', "runtime_env": {"env_vars": {"A": "b"}}, "verify_tls": True}
    saved = form(connection_id="saved_ray", host=f"http://127.0.0.1:{port}", extra=json.dumps(extra))
    call("POST", "connections", saved, status=201)
    try:
        shown = call("GET", "connections/saved_ray")
        assert shown["password"] == "***" and "k3y" not in shown["extra"]
        # The list's button sends what it was shown, and an empty port as 0.
        fields = ("connection_id", "conn_type", "host", "password", "extra")
        answer = call("POST", "connections/test", form(**{key: shown[key] for key in fields}))
        assert answer["status"], answer
        call("PATCH", "connections/saved_ray", {**saved, "port": 2})
        answer = call("POST", "connections/test", form(**{key: shown[key] for key in fields}, port=2))
        assert answer["message"].startswith("connection saved_ray: host 'http://127.0.0.1:")
    finally:
        call("DELETE", "connections/saved_ray", status=204)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--conn-uri", f"ray://:{TOKEN}@127.0.0.1:{{port}}"],
        ["--conn-uri", f"ray://http://:{TOKEN}@127.0.0.1:{{port}}"],
        ["--conn-json", json.dumps({"conn_type": "ray", "host": "http://127.0.0.1:PORT", "password": TOKEN})],
        ["--conn-type", "ray", "--conn-host", "http://127.0.0.1:{port}", "--conn-password", TOKEN],
        [
            "--conn-type", "ray", "--conn-host", "127.0.0.1", "--conn-port", "{port}", "--conn-password", TOKEN,
            "--conn-extra", "EXTRA",
        ],
    ],
)  # fmt: skip
def test_the_command_line(
    arguments: list[str],
    airflow_db: None,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from airflow.cli.cli_parser import get_parser

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    texts = {"{port}": str(port), "PORT": str(port), "EXTRA": json.dumps({"catalog": "/tmp/x", "dashboard_port": ""})}

    def filled(argument: str) -> str:
        for key, text in texts.items():
            argument = argument.replace(key, text)
        return argument

    def airflow(*words: str) -> None:
        parsed = get_parser().parse_args(["connections", *words])
        parsed.func(parsed)

    airflow("add", "by_command", *map(filled, arguments))
    try:
        airflow("test", "by_command")
        assert "Connection success!" in capsys.readouterr().out
    finally:
        airflow("delete", "by_command")
