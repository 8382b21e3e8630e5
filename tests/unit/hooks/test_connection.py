"""Reading a connection: not found is one thing, and not readable is another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider_raynode.exceptions import ConfigError, ConnectionReadError
from airflow_provider_raynode.hooks._connection import aread_connection, read_connection


class Supervisor:
    """Answers as the supervisor of a task does, or fails as one does that reaches no API server."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def send(self, msg: Any) -> Any:
        if type(msg).__name__ != "GetConnection":
            return None
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AsyncSupervisor(Supervisor):
    async def asend(self, msg: Any) -> Any:
        return self.send(msg)


@pytest.fixture(params=["send", "asend", "send only"])
def read(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Any], Any]]:
    """Read a connection in a task, in the triggerer, and in the trigger of `dag.test()`."""
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    kind = Supervisor if request.param == "send only" else AsyncSupervisor

    def run(conn_id: str, answer: Any) -> Any:
        with set_supervisor_comms(kind(answer)):
            return read_connection(conn_id) if request.param == "send" else asyncio.run(aread_connection(conn_id))

    yield run


def error(kind: ErrorType, **detail: Any) -> Any:
    from airflow.sdk.execution_time.comms import ErrorResponse

    return ErrorResponse(error=kind, detail=detail)


def test_it_is_read(read: Callable[[str, Any], Any]) -> None:
    from airflow.sdk.execution_time.comms import ConnectionResult

    empty = dict.fromkeys(("description", "login", "schema", "extra", "port"))
    answer = ConnectionResult(conn_id="mine", conn_type="ray", host="http://head:8265", password="t0ken", **empty)
    assert read("mine", answer).password == "t0ken"


def test_not_defined(read: Callable[[str, Any], Any]) -> None:
    answer = error(ErrorType.CONNECTION_NOT_FOUND)
    assert read("ray_default", answer) is None
    with pytest.raises(ConfigError, match=r"connection mine is not defined.*AIRFLOW_CONN_MINE and Airflow's database"):
        read("mine", answer)


@pytest.mark.parametrize("conn_id", ["ray_default", "mine"])
@pytest.mark.parametrize(
    "answer",
    [
        ConnectionError("the API server is gone"),
        error(ErrorType.API_SERVER_ERROR, status_code=500, message="the API server is gone"),
        AirflowRuntimeError(error(ErrorType.GENERIC_ERROR, message="the API server is gone")),
    ],
    ids=["raised", "answered", "raised by the SDK"],
)
def test_not_readable_is_not_taken_for_not_defined(answer: Any, conn_id: str, read: Callable[[str, Any], Any]) -> None:
    with pytest.raises(ConnectionReadError, match=f"connection {conn_id} cannot be read.*the API server is gone"):
        read(conn_id, answer)


def test_not_allowed(read: Callable[[str, Any], Any]) -> None:
    with pytest.raises(ConfigError, match="connection ray_default: Airflow does not let this task read it"):
        read("ray_default", error(ErrorType.PERMISSION_DENIED))


def test_a_broken_secrets_backend_is_named_unless_another_place_has_it(
    read: Callable[[str, Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import configuration

    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", backend)
    missing = str(tmp_path / "nothing.json")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps({"connections_file_path": missing}))
    monkeypatch.setattr(configuration, "_secrets_backend_cache", {})
    answer = error(ErrorType.CONNECTION_NOT_FOUND)
    with pytest.raises(ConnectionReadError, match=r"the secrets backend LocalFilesystemBackend fails.*nothing\.json"):
        read("ray_default", answer)
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", "ray://head:8265")
    assert read("ray_default", answer).host == "head"


def test_an_environment_variable_that_airflow_cannot_read(
    read: Callable[[str, Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", "ray://:s3cret@https://head:443")
    with pytest.raises(ConfigError, match="cannot read the environment variable AIRFLOW_CONN_RAY_DEFAULT") as caught:
        read("ray_default", error(ErrorType.CONNECTION_NOT_FOUND))
    assert "s3cret" not in str(caught.value)


def test_a_pod_of_argo_says_that_it_has_no_database() -> None:
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    from airflow_provider_raynode.argo.task_sdk._comms import CatalogComms

    missing: Any = None
    with (
        set_supervisor_comms(CatalogComms(missing, missing, missing, "task", -1)),
        pytest.raises(ConfigError, match=r"connection mine is not defined.*a pod has no Airflow database"),
    ):
        read_connection("mine")
