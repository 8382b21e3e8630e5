"""A node's secrets on the Airflow side: the names checked at parse time, the values read and masked at run time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime.secrets import SecretName, secret_texts

# In a template: `{{ conn.my_db.password }}`, `{{ var.value.api_key }}`.
_ASKS = re.compile(r"\{[{%].*?\b(conn|var)\b", re.DOTALL)


def parse_secrets(entries: Iterable[str]) -> tuple[SecretName, ...]:
    """Return the names in a node's `secrets`.

    :raises ConfigError: an entry is not of the form, stands there twice, or two share an environment variable.
    """
    found: dict[SecretName, None] = {}
    variables: dict[str, SecretName] = {}
    for entry in entries:
        name = SecretName.parse(entry)
        if name in found:
            raise ConfigError(f"secrets: {entry!r} is declared twice")
        if name.env is not None and variables.setdefault(name.env, name) != name:
            raise ConfigError(f"secrets: {variables[name.env].id} and {name.id} cannot both be {name.env}")
        found[name] = None
    return tuple(found)


def read_secrets(names: Iterable[SecretName]) -> dict[str, Any]:
    """Read the values from Airflow, and have them masked in the task's log.

    :return: by id: a connection's fields, a variable's text.
    :raises ConfigError: not defined, or a connection whose extra is not a JSON object.
    """
    values = {name.id: _connection(name.key) if name.kind == "conn" else _variable(name.key) for name in names}
    _mask(values)
    return values


def mask_secrets(names: Iterable[SecretName]) -> None:
    """Have the values masked in this process, which shows what the job prints; what cannot be read is left alone.

    It talks to Airflow synchronously: call it in a task, not in a trigger's event loop.
    """
    for name in names:
        with suppress(Exception):  # the job that needs the value says what is wrong with it
            read_secrets([name])


def _connection(conn_id: str) -> dict[str, Any]:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise ConfigError(
            f"secrets: the connection {conn_id!r} is not defined in Airflow: add it, e.g. with airflow connections add "
            f"{conn_id}, or remove 'conn:{conn_id}' from the node's secrets"
        ) from None
    return {
        "conn_type": found.conn_type,
        "host": found.host,
        "login": found.login,
        "password": found.password,
        "port": found.port,
        "schema": found.schema,
        "extra": _extra(found),
    }


def _extra(connection: Any) -> dict[str, Any]:
    """Return a connection's extra; Airflow itself takes one that it cannot read for none at all."""
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigError(f"secrets: the extra of the connection {connection.conn_id!r} is not a JSON object")
    return extra


def _variable(key: str) -> str:
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

    try:
        value = Variable.get(key)
    except AirflowRuntimeError as error:
        if error.error.error != ErrorType.VARIABLE_NOT_FOUND:
            raise
        raise ConfigError(
            f"secrets: the variable {key!r} is not defined in Airflow: add it, e.g. with airflow variables set {key}, "
            f"or remove 'var:{key}' from the node's secrets"
        ) from None
    return str(value)


def _mask(values: dict[str, Any]) -> None:
    from airflow.sdk.log import mask_secret

    for text in dict.fromkeys(secret_texts(values)):
        if text:
            mask_secret(text)


def asks_for_secrets(value: Any) -> bool:
    """Whether a template in a value, at any depth, asks for a connection or a variable of Airflow's."""
    if isinstance(value, str):
        return _ASKS.search(value) is not None
    if isinstance(value, Mapping):
        return any(asks_for_secrets(each) for each in value.values())
    return isinstance(value, list | tuple) and any(asks_for_secrets(each) for each in value)


def check_clear(places: Mapping[str, str]) -> None:
    """Refuse a secret of Airflow's in what Ray shows to all who see its dashboard.

    :param places: rendered texts by the name of their place, of arguments that `asks_for_secrets`: in others a word
        that is somebody's password as well would be taken for it.
    :raises ConfigError: see above; the message names the place and not the secret.
    """
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    for place, text in places.items():
        if redact(text) != text:
            raise ConfigError(
                f"{place}: holds a secret of Airflow's (what its log masks), and Ray shows it with the job: give it as "
                "secrets=['conn:my_db as DB_URI'] or ['var:api_key as API_KEY'], and read that environment variable"
            )
