"""What an address of Ray means."""

from __future__ import annotations

import pytest

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._address import is_loopback, jobs_api_url


@pytest.mark.parametrize(
    ("address", "dashboard_port", "expected"),
    [
        ("local", None, "local"),
        (" local ", 1234, "local"),
        ("http://head:8265", None, "http://head:8265"),
        ("http://head:8265/", None, "http://head:8265"),
        ("http://head:8265", 9999, "http://head:8265"),
        ("http://head", None, "http://head"),
        ("http://head", 9999, "http://head:9999"),
        ("https://gateway/ray/team", None, "https://gateway/ray/team"),
        ("https://Gateway:8443/ray/", None, "https://gateway:8443/ray"),
        ("ray://head:10001", None, "http://head:8265"),
        ("ray://head:10001", 9999, "http://head:9999"),
        ("ray://head", None, "http://head:8265"),
        ("head", None, "http://head:8265"),
        ("head:10001", None, "http://head:8265"),
        ("head:18265", None, "http://head:18265"),
        ("[::1]:8265", None, "http://[::1]:8265"),
        ("http://[fd00::7]:8265", None, "http://[fd00::7]:8265"),
    ],
)
def test_addresses(address: str, dashboard_port: int | None, expected: str) -> None:
    assert jobs_api_url(address, dashboard_port=dashboard_port) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "http://127.0.0.1:8265"),
        ({"RAY_ADDRESS": "auto"}, "http://127.0.0.1:8265"),
        ({"RAY_ADDRESS": "head:6379"}, "http://head:8265"),
        ({"RAY_ADDRESS": "ray://head:10001"}, "http://head:8265"),
        ({"RAY_ADDRESS": "http://head:1234"}, "http://head:1234"),
        ({"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "http://b:2"}, "http://b:2"),
    ],
)
def test_auto_asks_the_environment(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert jobs_api_url("auto") == expected


def test_an_explicit_address_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:2")
    assert jobs_api_url("http://head:8265") == "http://head:8265"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "names no host"),
        ("ftp://head", "'ftp://head' is not an address of Ray; allowed: http"),
        ("http://", "names no host"),
        ("http://head:port", "is not an address"),
        ("http://head:0", "is not an address of Ray"),
        ("http://head:99999", "is not an address"),
        ("ray://head:10001/path", "has a path"),
        ("http://head:8265?x=1", "a query or a fragment"),
        ("http://he ad", "white space"),
    ],
)
def test_what_is_no_address(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as caught:
        jobs_api_url(address, source="ray_cluster.address")
    assert str(caught.value).startswith("ray_cluster.address: ")


def test_a_secret_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="put the token in the connection") as caught:
        jobs_api_url("http://me:hunter2@head:8265")
    assert "hunter2" not in str(caught.value)


def test_loopback() -> None:
    assert is_loopback("http://127.0.0.1:8265") and is_loopback("http://localhost") and is_loopback("http://[::1]:1")
    assert not is_loopback("http://127.0.0.1.example.com:8265") and not is_loopback("http://10.0.0.1:8265")
