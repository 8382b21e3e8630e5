"""The settings of a Ray cluster, read from an Airflow connection of type `ray`."""

from __future__ import annotations

import difflib
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_provider_raynode.config._section import path_of, problems_of
from airflow_provider_raynode.config.paths import local_files
from airflow_provider_raynode.config.runtime_env import RuntimeEnv
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._address import CLIENT_PORT, LAST_PORT, LOCAL, is_loopback, jobs_api_url

if TYPE_CHECKING:
    from airflow.sdk import Connection

EXTRAS = ("dashboard_port", "secret_headers", "verify_tls", "ca_file", "catalog", "runtime_env")
# `http` and `https` are what AIRFLOW_CONN_...='https://host:8265' gives.
_CONN_TYPES = ("ray", "http", "https")
_NO_CONNECTION = "no connection"
# What Airflow's API shows of a secret.
MASKED = "***"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class RaySettings:
    """Where a cluster is and how to talk to it. Secrets are not in its repr.

    :param address: base URL of the Jobs API without a slash at its end, or `local`.
    :param source: where the settings come from, for messages.
    :param token: Ray's authentication token.
    :param headers: HTTP headers for every request, for a proxy in front of the cluster.
    :param verify_tls: whether the server's certificate is verified.
    :param ca_file: PEM file of the authority that signed the server's certificate; None for the system's.
    :param catalog: URI of the catalog; None for Airflow's own setting.
    :param runtime_env: Ray's runtime environment that every job gets unless its config says otherwise.
    """

    address: str
    source: str
    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify_tls: bool = True
    ca_file: str | None = None
    catalog: str | None = None
    runtime_env: Mapping[str, Any] | None = None

    @property
    def is_defined(self) -> bool:
        """Whether there is a connection."""
        return self.source != _NO_CONNECTION

    @property
    def verify(self) -> bool | str:
        """What `requests` calls verify: the CA file, or whether to verify at all."""
        return self.ca_file if self.verify_tls and self.ca_file else self.verify_tls

    def tls_context(self) -> ssl.SSLContext | None:
        """Return how TLS is verified, for clients that take a context; None for plain HTTP. It reads the CA files."""
        if not self.address.startswith("https://"):
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def settings_of(connection: Connection | None, conn_id: str, address: str | None) -> RaySettings:
    """Return the settings of a connection, with `address` in the place of its own where that is given.

    :param connection: None where none is defined: then the address is `local` unless given.
    :raises ConfigError: a field is wrong; the message names connection, field, value and what is allowed.
    """
    if connection is None:
        url = jobs_api_url(address or LOCAL, source="ray_cluster.address")
        return RaySettings(url, source=_NO_CONNECTION, token=_process_token(url))
    where = f"connection {conn_id}"
    if connection.conn_type and connection.conn_type not in _CONN_TYPES:
        raise ConfigError(f"{where}: its type is {connection.conn_type!r}, expected 'ray'")
    extra = _extra(connection, where)
    port = checked_port(extra.get("dashboard_port"), "extra dashboard_port", where)
    if address is not None:
        url = jobs_api_url(address, dashboard_port=port, source="ray_cluster.address")
    else:
        url = _connection_url(connection, port, where)
    token = _token(connection, where) or _process_token(url)
    return RaySettings(
        address=url,
        source=where,
        token=token,
        headers=_headers(extra.get("secret_headers"), where),
        verify_tls=_boolean(extra.get("verify_tls"), where),
        ca_file=_ca_file(extra.get("ca_file"), where),
        catalog=_text(extra.get("catalog"), "catalog", where),
        runtime_env=_runtime_env(extra.get("runtime_env"), where),
    )


def _connection_url(connection: Connection, dashboard_port: int | None, where: str) -> str:
    host = _with_path((connection.host or "").strip(), connection, where)
    port = checked_port(connection.port, "port", where)
    if not host or host == LOCAL:
        if port is not None:
            raise ConfigError(
                f"{where}: port is {port}, but host is {host or 'empty'}: name the cluster's host with it, or leave "
                "the port out for an embedded Ray"
            )
        return LOCAL
    if port is not None and dashboard_port is not None and port not in (dashboard_port, CLIENT_PORT):
        raise ConfigError(f"{where}: port is {port} and extra dashboard_port is {dashboard_port}: keep one")
    if host == "auto":
        return jobs_api_url(host, dashboard_port=dashboard_port or port, source=f"{where}, host")
    head, slashes, rest = host.rpartition("://")
    if "://" in head:
        raise ConfigError(f"{where}: host {host!r} has two schemes: write http(s)://host:8265 or ray://host:10001")
    name, slash, path = rest.partition("/")
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    _, colon, named = name.rpartition("]")[2].rpartition(":")
    http = head.lower() in ("http", "https")
    if colon and not (head.lower() == "ray" or (named == str(CLIENT_PORT) and not http)):
        for key, value in (("port", port), ("extra dashboard_port", dashboard_port)):
            if value is not None and str(value) != named:
                raise ConfigError(f"{where}: host {host!r} and {key} {value} both name a port, not the same: keep one")
    elif port is not None and http:
        name = f"{name}:{port}"
    elif port != CLIENT_PORT:
        # Ray's client port is never the dashboard's: who names it means the cluster.
        dashboard_port = dashboard_port or port
    return jobs_api_url(f"{head}{slashes}{name}{slash}{path}", dashboard_port=dashboard_port, source=f"{where}, host")


def _with_path(host: str, connection: Connection, where: str) -> str:
    """Return the host with its scheme and path: in the URI of a connection the path becomes its `schema`."""
    scheme, schema = connection.conn_type, (connection.schema or "").strip().strip("/")
    if scheme in ("http", "https"):
        if schema in ("http", "https"):
            scheme, schema = schema, ""
        if host and "://" not in host:
            host = f"{scheme}://{host}"
    if not schema:
        return host
    if not host.lower().startswith(("http://", "https://")):
        raise ConfigError(f"{where}: schema is {schema!r}: only an http(s) address may have a path")
    return f"{host.rstrip('/')}/{schema}"


def _token(connection: Connection, where: str) -> str | None:
    token = (connection.password or "").strip()
    if token.lower().startswith("bearer "):
        token = token[len("bearer ") :].strip()
    if not token and (connection.login or "").strip():
        # The value is left out of the message: it may be the token.
        raise ConfigError(
            f"{where}: login is set and password is empty: Ray has no users, its token is the password "
            "(ray://:TOKEN@host:8265)"
        )
    if token == MASKED:
        raise ConfigError(f"{where}: the token (password) is what Airflow shows in its place, {MASKED}: type it anew")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{where}: the token (password) has characters that no HTTP header can hold")
    return token or None


def _process_token(url: str) -> str | None:
    """Return the token that Ray's own clients would use in this process, where the connection gives none.

    The token file of this user's home is that of a cluster on this machine: it is sent nowhere else.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "").strip()
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    if not named and not is_loopback(url):
        return None
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        if named:
            raise ConfigError(f"environment variable RAY_AUTH_TOKEN_PATH: {named} cannot be read: {error}") from error
        return None


def _extra(connection: Connection, where: str) -> dict[str, Any]:
    text = connection.extra
    if not text:
        return {}
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: extra is not JSON ({error})") from None
    if not isinstance(extra, dict):
        raise ConfigError(f"{where}: extra must be a JSON object with any of {', '.join(EXTRAS)}")
    for key in extra:
        if key not in EXTRAS:
            near = difflib.get_close_matches(key, EXTRAS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: extra has the unknown key {key!r}; allowed: {', '.join(EXTRAS)}{hint}")
    # The connection form sends empty fields as empty strings or null.
    return {key: value for key, value in extra.items() if value is not None and str(value).strip() != ""}


def checked_port(value: Any, key: str, where: str) -> int | None:
    """Return a port of a connection, None for none.

    :raises ConfigError: it is not one.
    """
    # The connection form sends 0 for an empty port.
    if value is None or (value in (0, "0") and not isinstance(value, bool)):
        return None
    text = str(value).strip()
    if not isinstance(value, bool) and text.isascii() and text.isdigit() and 0 < int(text) <= LAST_PORT:
        return int(text)
    raise ConfigError(f"{where}: {key} is {value!r}, expected a port from 1 to {LAST_PORT}")


def _boolean(value: Any, where: str) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in (*_TRUE, *_FALSE):
        return text in _TRUE
    raise ConfigError(f"{where}: extra verify_tls is {value!r}, expected true or false")


def _text(value: Any, key: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.strip()
    raise ConfigError(f"{where}: extra {key} is {value!r}, expected text")


def _ca_file(value: Any, where: str) -> str | None:
    path = _text(value, "ca_file", where)
    if path is not None and not Path(path).is_absolute():
        raise ConfigError(
            f"{where}: extra ca_file is {path!r}, a relative path, and a connection lies in no folder: give an "
            "absolute one"
        )
    if path is not None and not Path(path).is_file():
        raise ConfigError(f"{where}: extra ca_file is {path!r}, which is not a file on this machine")
    return path


def _object(value: Any, key: str, where: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value.strip() == MASKED:
            raise ConfigError(f"{where}: extra {key} is what Airflow shows in its place, {MASKED}: type it anew")
        try:
            value = json.loads(value)
        except ValueError as error:
            # The text is left out of the message: it may hold a secret.
            raise ConfigError(f"{where}: extra {key} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: extra {key} must be a JSON object")
    return value


def _runtime_env(value: Any, where: str) -> dict[str, Any] | None:
    """Return the default runtime environment: the keys of `ray_cluster.runtime_env`, with absolute paths."""
    given = _object(value, "runtime_env", where)
    if given is None:
        return None
    try:
        parsed = RuntimeEnv.model_validate(given)
    except ValidationError as error:
        lines = (f"{where}: extra runtime_env.{path_of(loc)}: {message}" for loc, message in problems_of(error))
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None

    def absolute(key: str, text: str) -> str:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise ConfigError(
                f"{where}: extra runtime_env.{key}: {text!r} is relative, and a connection lies in no folder: give an "
                "absolute path"
            )
        return str(path)

    return {**parsed.model_dump(mode="json", exclude_unset=True), **local_files(parsed, absolute)}


def _headers(value: Any, where: str) -> dict[str, str]:
    headers = _object(value, "secret_headers", where) or {}
    for name, content in headers.items():
        if not isinstance(content, str) or not content.isascii() or not content.isprintable():
            raise ConfigError(f"{where}: extra secret_headers: the value of {name!r} must be a line of ASCII text")
        if not name or not all(character.isalnum() or character in "-_" for character in name):
            raise ConfigError(f"{where}: extra secret_headers: {name!r} is not the name of a header")
    return headers
