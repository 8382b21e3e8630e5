"""Reading an Airflow connection: that it cannot be read is never taken for its absence.

Airflow's own look-up asks one place after the other and takes any failure of one for "not there": an API server that
does not answer, a vault that is down, a supervisor that has no asynchronous side (`dag.test()`). A node would then run
without its token, or on the wrong machine. So what Airflow does not find is looked for once more here, one place at a
time.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError, AirflowSecretsBackendAccessDenied
from airflow.sdk.log import amask_secret, mask_secret

from airflow_provider_raynode.exceptions import ConfigError, ConnectionReadError

if TYPE_CHECKING:
    from airflow_provider_raynode.hooks._settings import RaySettings

DEFAULT_CONN_ID = "ray_default"
# Set by `raynode run`, whose metadata database is a fresh one.
OWN_DATABASE = "RAYNODE_RUN_DATABASE"
_VARIABLE_PREFIX = "AIRFLOW_CONN_"
_API = "airflow.api_fastapi.core_api.routes.public.connections"


def read_connection(conn_id: str, shown_id: str | None = None) -> Any:
    """Return the Airflow connection, None for a `ray_default` that is defined nowhere.

    :param shown_id: the id to name in messages, where it is not the same.
    :raises ConfigError: it is defined nowhere, or the task may not read it, or its environment variable is wrong.
    :raises ConnectionReadError: a place where it may be cannot be read now.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        if shown_id not in (None, conn_id):
            # Airflow's API has put the form's fields into a URI that it cannot read itself.
            raise ConfigError(
                f"connection {shown_id}: Airflow cannot read its fields; is the address (host) one of "
                "http(s)://host:8265, ray://host:10001, host:port, auto or local?"
            ) from error
        return _look_again(conn_id, _asked)
    except AirflowSecretsBackendAccessDenied as error:
        raise _denied(conn_id) from error
    except Exception as error:
        raise _unreadable(conn_id, "Airflow", error) from error


async def aread_connection(conn_id: str) -> Any:
    """Return the Airflow connection from an event loop; see `read_connection`."""
    comms = _comms()
    if comms is not None and not hasattr(comms, "asend"):
        # The supervisor of `dag.test()`, in this process: an answer is a function call, and one at a time.
        return read_connection(conn_id)
    try:
        return await BaseHook.aget_connection(conn_id)
    except AirflowNotFoundException:
        pass
    except AirflowSecretsBackendAccessDenied as error:
        raise _denied(conn_id) from error
    except Exception as error:
        raise _unreadable(conn_id, "Airflow", error) from error
    answer: Any = None
    if comms is not None:
        try:
            answer = await comms.asend(_question(conn_id))
        except Exception as error:
            answer = error
    return _look_again(conn_id, lambda _: answer)


def tested_form() -> Any:
    """Return the form that a user tests, None elsewhere: Airflow's API tests it under a random id of its own.

    What it has is `connection_id`, as the user typed it, and the other fields of a connection.
    """
    for frame, _ in traceback.walk_stack(None):
        if frame.f_globals.get("__name__") == _API and frame.f_code.co_name == "test_connection":
            return frame.f_locals.get("test_body")
    return None


def mask(settings: RaySettings) -> None:
    """Mask the secrets of a connection in this task's log."""
    for secret in _secrets(settings):
        mask_secret(secret)


async def amask(settings: RaySettings) -> None:
    """Mask the secrets of a connection in the logs of an event loop."""
    for secret in _secrets(settings):
        await amask_secret(secret)


def variable_of(conn_id: str) -> str:
    """Return the name of the environment variable that Airflow reads a connection from."""
    return f"{_VARIABLE_PREFIX}{conn_id.upper()}"


def places(conn_id: str) -> str:
    """Return where this process looks for a connection, for messages."""
    found = [f"the environment variable {variable_of(conn_id)}"]
    without_database = ""
    for backend in _backends(conn_id):
        name = type(backend).__name__
        if name == "EnvironmentVariablesBackend":
            continue
        if name not in ("ExecutionAPISecretsBackend", "MetastoreBackend"):
            found.append(f"the secrets backend {name}")
        elif os.environ.get(OWN_DATABASE):
            without_database = "; `raynode run` reads no Airflow database"
        elif not getattr(_comms(), "has_database", True):
            without_database = "; a pod has no Airflow database"
        else:
            found.append("Airflow's database")
    if not without_database and "Airflow's database" not in found:
        without_database = "; this process does not read Airflow's database"
    return f"{' and '.join(found)}{without_database}"


def _look_again(conn_id: str, ask: Any) -> Any:
    """Look in each place by itself; the first failure is told, unless another place has the connection."""
    failure: Exception | None = None
    for backend in _backends(conn_id):
        try:
            if type(backend).__name__ == "ExecutionAPISecretsBackend":
                found = _answer(conn_id, ask(conn_id))
            else:
                found = backend.get_connection(conn_id=conn_id)
        except ConfigError:
            raise
        except Exception as error:
            failure = failure or _failure(conn_id, backend, error)
            continue
        if found is not None:
            return found
    if failure is not None:
        raise failure
    if conn_id == DEFAULT_CONN_ID:
        return None
    raise ConfigError(
        f"connection {conn_id} is not defined: add it (airflow connections add {conn_id} --conn-type ray "
        f"--conn-host ..., or export {variable_of(conn_id)}=ray://:TOKEN@head:8265), or leave ray_conn_id out for "
        f"{DEFAULT_CONN_ID}. It was looked for in {places(conn_id)}"
    )


def _asked(conn_id: str) -> Any:
    comms = _comms()
    try:
        return None if comms is None else comms.send(_question(conn_id))
    except Exception as error:
        return error


def _answer(conn_id: str, answer: Any) -> Any:
    """Return the connection that a supervisor has told, None for one that is not defined."""
    from airflow.sdk.definitions.connection import Connection
    from airflow.sdk.exceptions import ErrorType

    if isinstance(answer, AirflowRuntimeError):
        answer = answer.error
    if isinstance(answer, Exception):
        raise answer
    kind = getattr(answer, "error", None)
    if kind is not None:
        if kind == ErrorType.CONNECTION_NOT_FOUND:
            return None
        if kind == ErrorType.PERMISSION_DENIED:
            raise _denied(conn_id)
        raise RuntimeError(f"{kind.value}: {answer.detail}")
    return None if answer is None else Connection(**answer.model_dump(exclude={"type"}, by_alias=True))


def _failure(conn_id: str, backend: Any, error: Exception) -> Exception:
    name = type(backend).__name__
    if name == "EnvironmentVariablesBackend":
        # The text is left out: it holds a secret.
        said = f" ({error})" if isinstance(error, ValueError) and str(error).startswith("Port out of range") else ""
        return ConfigError(
            f"connection {conn_id}: Airflow cannot read the environment variable {variable_of(conn_id)}{said}; write "
            'ray://:TOKEN@host:8265, or JSON: {"conn_type": "ray", "host": "...", "password": "TOKEN"}'
        )
    if name in ("ExecutionAPISecretsBackend", "MetastoreBackend"):
        return _unreadable(conn_id, "Airflow's database", error)
    return _unreadable(conn_id, f"the secrets backend {name}", error)


def _unreadable(conn_id: str, place: str, error: Exception) -> ConnectionReadError:
    said = " ".join(str(error).split())[:300]
    return ConnectionReadError(
        f"connection {conn_id} cannot be read, so it is not known whether it is defined: {place} fails with "
        f"{type(error).__name__}{f': {said}' if said else ''}"
    )


def _denied(conn_id: str) -> ConfigError:
    return ConfigError(f"connection {conn_id}: Airflow does not let this task read it (permission denied)")


def _question(conn_id: str) -> Any:
    from airflow.sdk.execution_time.comms import GetConnection

    return GetConnection(conn_id=conn_id)


def _comms() -> Any:
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None)


def _backends(conn_id: str) -> list[Any]:
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    try:
        return list(ensure_secrets_backend_loaded())
    except Exception as error:
        raise _unreadable(conn_id, "the secrets backend of Airflow's configuration", error) from error


def _secrets(settings: RaySettings) -> list[str]:
    return [secret for secret in (settings.token, *settings.headers.values()) if secret]
