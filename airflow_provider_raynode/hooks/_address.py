"""What an address of Ray means: the base URL of a cluster's Jobs API, or `local` for the embedded Ray."""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from airflow_provider_raynode.exceptions import ConfigError

LOCAL = "local"
# Not an address of users: the job is a RayJob that Kubernetes runs, and nothing of Ray is spoken to.
RAY_JOB = "rayjob"
DEFAULT_DASHBOARD_PORT = 8265
# Ray's client server: no HTTP is spoken there, so an address that names it means the cluster, not the port.
CLIENT_PORT = 10001
LAST_PORT = 65535
_ENVIRONMENT = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ALLOWED = (
    "http://host:8265 or https://host (Ray's dashboard), ray://host:10001 (the cluster whose dashboard is on the "
    "dashboard port), auto (RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this host) or local (an embedded Ray)"
)


def jobs_api_url(address: str, *, dashboard_port: int | None = None, source: str = "address") -> str:
    """Return the base URL of the Jobs API of the cluster that `address` names, without a slash at its end, or `local`.

    :param address: `http(s)://host[:port][/path]`, `ray://host[:port]`, `host[:port]`, `auto` or `local`.
    :param dashboard_port: port of the dashboard where the address names none, or names Ray's client port; 8265 where
        None. An `http(s)` address without a port keeps its scheme's own port (80, 443) unless this is given.
    :param source: where the address comes from, for the message.
    :raises ConfigError: it is none of these.
    """
    text = address.strip()
    if text in (LOCAL, RAY_JOB):
        return text
    if text == "auto":
        return _of_environment(dashboard_port)
    parts = _split(text if "://" in text else f"//{text}", text, source)
    host = parts.hostname
    if not host:
        raise ConfigError(f"{source}: {text!r} names no host; allowed: {_ALLOWED}")
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme in ("http", "https"):
        port = parts.port or dashboard_port
        return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    if parts.path.strip("/"):
        raise ConfigError(f"{source}: {text!r} has a path, which only an http(s) address may have")
    if parts.scheme == "ray" or parts.port in (None, CLIENT_PORT):
        return f"http://{shown}:{dashboard_port or DEFAULT_DASHBOARD_PORT}"
    return f"http://{shown}:{parts.port}"


def is_loopback(url: str) -> bool:
    """Return whether a base URL names this very machine by a loopback name."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _of_environment(dashboard_port: int | None) -> str:
    for name in _ENVIRONMENT:
        value = os.environ.get(name, "").strip()
        if value in ("", "auto", LOCAL):
            continue
        if "://" not in value:
            # RAY_ADDRESS may be the address of the control store, `host:6379`: the same host has the dashboard.
            value = _split(f"//{value}", value, f"environment variable {name}").hostname or ""
        return jobs_api_url(value, dashboard_port=dashboard_port, source=f"environment variable {name}")
    return f"http://127.0.0.1:{dashboard_port or DEFAULT_DASHBOARD_PORT}"


def _split(url: str, text: str, source: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r} is not an address ({error}); allowed: {_ALLOWED}") from None
    if parts.scheme not in ("", "http", "https", "ray"):
        raise ConfigError(f"{source}: {text!r} is not an address of Ray; allowed: {_ALLOWED}")
    if parts.username is not None or parts.password is not None:
        # The text is left out of the message: it holds a secret.
        raise ConfigError(
            f"{source}: a user or password in the address is not allowed; put the token in the connection"
        )
    port = parts.netloc.rpartition("]")[2].rpartition(":")
    if port[1] and not (port[2].isascii() and port[2].isdigit() and 0 < int(port[2]) <= LAST_PORT):
        raise ConfigError(
            f"{source}: {text!r} is not an address of Ray: its port is {port[2]!r}, expected 1 to {LAST_PORT}"
        )
    if parts.query or parts.fragment or any(character.isspace() for character in text):
        raise ConfigError(f"{source}: {text!r} has white space, a query or a fragment; allowed: {_ALLOWED}")
    return parts
