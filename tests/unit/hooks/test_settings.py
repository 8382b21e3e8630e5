"""The settings that a connection gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks.ray import RayHook

ENV = "AIRFLOW_CONN_RAY_DEFAULT"


def define(monkeypatch: pytest.MonkeyPatch, name: str = ENV, **fields: Any) -> None:
    monkeypatch.setenv(name, json.dumps({"conn_type": "ray", **fields}))


def test_no_connection_is_the_embedded_ray() -> None:
    settings = RayHook().resolve()
    assert settings.address == "local" and settings.source == "no connection" and settings.token is None


def test_no_connection_but_an_address() -> None:
    assert RayHook(address="http://head:8265").resolve().address == "http://head:8265"


def test_a_missing_connection_of_another_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="connection my_ray is not defined: add it"):
        RayHook("my_ray").resolve()


def test_a_connection_that_airflow_cannot_read_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, "ray://:s3cret@https://head:443")
    with pytest.raises(ConfigError, match="cannot read the environment variable AIRFLOW_CONN_RAY_DEFAULT") as caught:
        RayHook().resolve()
    assert "s3cret" not in str(caught.value)


def test_all_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    define(
        monkeypatch,
        host="ray://head:10001",
        password="s3cret-token",
        extra={
            "dashboard_port": "9000",
            "secret_headers": '{"X-Api-Key": "k3y"}',
            "verify_tls": "true",
            "ca_file": str(authority),
            "catalog": "s3://bucket/x",
            "runtime_env": {"pip": ["a"]},
        },
    )
    settings = RayHook().resolve()
    assert settings.address == "http://head:9000"
    assert settings.token == "s3cret-token"
    assert settings.headers == {"X-Api-Key": "k3y"}
    assert settings.verify == str(authority)
    assert settings.catalog == "s3://bucket/x"
    assert settings.runtime_env == {"pip": ["a"]}
    assert "s3cret" not in repr(settings) and "k3y" not in repr(settings)


def test_the_configs_address_wins_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, host="head", password="t", extra={"catalog": "s3://b"})
    settings = RayHook(address="https://other").resolve()
    assert (settings.address, settings.token, settings.catalog) == ("https://other", "t", "s3://b")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("ray://head:8265", "http://head:8265"),
        ("ray://head:10001", "http://head:8265"),
        ("ray://head", "http://head:8265"),
        ("ray://https://head:443", "https://head:443"),
        ("https://head", "https://head"),
        ("http://head:8265", "http://head:8265"),
        ("ray://local", "local"),
        ("ray://", "local"),
        ("ray://:token@/?catalog=s3%3A%2F%2Fb", "local"),
    ],
)
def test_connections_as_uris(uri: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, uri)
    assert RayHook().resolve().address == address


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "postgres", "host": "h"}, "its type is 'postgres', expected 'ray'"),
        ({"host": "ftp://h"}, "connection ray_default, host: 'ftp://h' is not an address of Ray"),
        ({"host": "http://h:1", "port": 2}, "host 'http://h:1' and port 2 both name a port"),
        ({"host": "http://h:1", "extra": {"dashboard_port": 2}}, "'http://h:1' and extra dashboard_port 2 both name"),
        ({"host": "h", "port": 1, "extra": {"dashboard_port": 2}}, "port is 1 and extra dashboard_port is 2: keep one"),
        ({"host": "h", "port": 99999}, "port is 99999, expected a port from 1 to 65535"),
        ({"host": "h:99999"}, "'h:99999' is not an address of Ray: its port is '99999', expected 1 to 65535"),
        ({"host": "http://h:99999"}, "its port is '99999'"),
        ({"host": "ray://h:65536"}, "its port is '65536'"),
        ({"host": "http://[::1]:70000"}, "its port is '70000'"),
        ({"host": "h:0x50"}, "its port is '0x50'"),
        ({"host": "", "port": 8265}, "port is 8265, but host is empty: name the cluster's host"),
        ({"host": "local", "port": 8265}, "port is 8265, but host is local"),
        ({"host": "h", "login": "s3cret"}, "login is set and password is empty: Ray has no users"),
        ({"host": "h", "schema": "ray"}, "schema is 'ray': only an http.s. address may have a path"),
        ({"host": "h", "password": "***"}, r"the token .password. is what Airflow shows in its place, \*\*\*: type it"),
        ({"host": "h", "extra": {"secret_headers": "***"}}, "extra secret_headers is what Airflow shows in its place"),
        ({"extra": "{"}, "extra is not JSON"),
        ({"extra": "[]"}, "extra must be a JSON object with any of dashboard_port"),
        ({"extra": {"verify": False}}, "unknown key 'verify'; allowed: .*did you mean 'verify_tls'"),
        ({"extra": {"dashboard_port": "eighty"}}, "dashboard_port is 'eighty', expected a port from 1 to 65535"),
        ({"extra": {"dashboard_port": 70000}}, "dashboard_port is 70000"),
        ({"extra": {"verify_tls": "maybe"}}, "verify_tls is 'maybe', expected true or false"),
        ({"extra": {"ca_file": "/no/such.pem"}}, "ca_file is '/no/such.pem', which is not a file"),
        ({"extra": {"catalog": 7}}, "catalog is 7, expected text"),
        ({"extra": {"runtime_env": "{"}}, "runtime_env is not JSON"),
        ({"extra": {"runtime_env": "[1]"}}, "runtime_env must be a JSON object"),
        ({"extra": {"secret_headers": {"X": 1}}}, "value of 'X' must be a line of ASCII"),
        ({"extra": {"secret_headers": {"X Y": "1"}}}, "'X Y' is not the name of a header"),
        ({"extra": {"secret_headers": {"X": "a\nb"}}}, "value of 'X' must be a line"),
        ({"password": "with space"}, "the token .password. has characters"),
    ],
)
def test_wrong_connections(fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **fields)
    with pytest.raises(ConfigError, match=message) as caught:
        RayHook().resolve()
    assert str(caught.value).startswith("connection ray_default")
    ok, shown = RayHook().test_connection()
    assert not ok and shown == str(caught.value)


def test_the_connections_token_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, host="head", password="of-the-connection")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-process")
    assert RayHook().resolve().token == "of-the-connection"


def test_the_process_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    define(monkeypatch, host="head")
    monkeypatch.delenv("RAY_AUTH_MODE")
    (tmp_path / "token").write_text("of-the-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert RayHook().resolve().token == "of-the-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-process")
    assert RayHook().resolve().token == "of-the-process"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert RayHook().resolve().token is None


def test_the_users_own_token_file_goes_to_this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("mine")
    assert RayHook(address="http://127.0.0.1:8265").resolve().token == "mine"
    assert RayHook(address="auto").resolve().token == "mine"
    assert RayHook(address="http://elsewhere:8265").resolve().token is None


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    define(monkeypatch, host="h", password="tok3n-abcdef", extra={"secret_headers": {"X-Key": "h3ader-abcdef"}})
    RayHook().resolve()
    assert redact("a tok3n-abcdef and a h3ader-abcdef") == "a *** and a ***"


def test_a_local_address_has_no_jobs_api() -> None:
    with pytest.raises(ConfigError, match="the address is local, an embedded Ray that has no Jobs API"):
        RayHook().get_job("x")


def test_the_embedded_ray_is_tested_without_importing_it() -> None:
    ok, message = RayHook().test_connection()
    assert ok and message.startswith("local: an embedded Ray 2.60")


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        # As the form sends an empty port.
        ({"host": "http://h:8365", "port": 0}, "http://h:8365"),
        ({"host": "http://h:8365", "port": 8365}, "http://h:8365"),
        ({"host": "h:8365", "port": 8365}, "http://h:8365"),
        ({"host": "http://h", "port": 8365}, "http://h:8365"),
        ({"host": "https://h/ray/", "port": 443}, "https://h:443/ray"),
        ({"host": "http://h:1", "extra": {"dashboard_port": 1}}, "http://h:1"),
        ({"host": "h", "port": 1, "extra": {"dashboard_port": "1"}}, "http://h:1"),
        ({"host": "h", "extra": {"dashboard_port": 0}}, "http://h:8265"),
        # What an address of the client names is never the dashboard's port.
        ({"host": "ray://h:10001", "port": 9000}, "http://h:9000"),
        ({"host": "ray://h", "port": 9000}, "http://h:9000"),
        ({"host": "ray://h:10001", "port": 10001}, "http://h:8265"),
        ({"host": "h:10001", "port": 9000}, "http://h:9000"),
        ({"host": "h", "port": 10001, "extra": {"dashboard_port": 9000}}, "http://h:9000"),
        ({"host": "::1", "port": 9000}, "http://[::1]:9000"),
        ({"host": "[::1]:9000", "port": 9000}, "http://[::1]:9000"),
        ({"host": "http://[::1]", "port": 9000}, "http://[::1]:9000"),
        ({"host": " HTTP://h:1/ \n", "port": None}, "http://h:1"),
        ({"host": "https://h", "schema": "ray"}, "https://h/ray"),
        ({"host": "auto", "port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "local", "port": 0}, "local"),
    ],
)
def test_places_of_a_port(fields: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, **fields)
    assert RayHook().resolve().address == address


@pytest.mark.parametrize("token", ["t0ken", " t0ken\n", "Bearer t0ken", "bearer  t0ken "])
def test_a_pasted_token(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, host="h", password=token)
    assert RayHook().resolve().token == "t0ken"


def test_empty_extras_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"dashboard_port": None, "secret_headers": "", "ca_file": " ", "catalog": "", "runtime_env": None}
    define(monkeypatch, host="h", extra={**empty, "verify_tls": None})
    settings = RayHook().resolve()
    assert (settings.address, settings.headers, settings.verify, settings.catalog) == ("http://h:8265", {}, True, None)


def test_a_wrong_port_in_a_uri_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, "ray://:s3cret@head:99999")
    with pytest.raises(ConfigError, match=r"AIRFLOW_CONN_RAY_DEFAULT \(Port out of range 0-65535\)") as caught:
        RayHook().resolve()
    assert "s3cret" not in str(caught.value)


def test_the_connections_test_says_where_it_was_looked_for() -> None:
    ok, message = RayHook().test_connection()
    assert ok and "ray_default is not defined in the environment variable AIRFLOW_CONN_RAY_DEFAULT" in message
