"""Every place of a connection with the ways to run a DAG in one process, and signals that end such a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.sdk import DAG

from airflow_provider_raynode import ray_node

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

CONFIG: dict[str, Any] = {
    "ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": {"type": "grid_search", "values": [1, 2]}}},
    "default_resources": {"num_cpus": 0.5},
}
TWO_NODES = """
import time
from airflow.sdk import dag
from airflow_provider_raynode import ray_node

CONFIG = {config!r}

def train(x):
    time.sleep(120)
    return {{"score": x}}

@dag(schedule=None, default_args={{"retries": 2}})
def stopped():
    for name in ("first", "second"):
        ray_node(name, python_callable=train, ray_config=CONFIG, ray_conn_id="in_database", deferrable={deferrable})

stopped()
"""


@pytest.fixture
def in_database(ray_head: Any, airflow_db: None) -> Iterator[str]:
    """A connection to the session's head in Airflow's database; gives its id."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    conn_id = "in_database"
    with create_session() as session:
        session.add(Connection(conn_id=conn_id, conn_type="ray", host=ray_head.address, password=ray_head.token))
    yield conn_id
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == conn_id).delete()


@pytest.fixture
def in_file(ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection to the session's head in a secrets backend; gives its id."""
    path = tmp_path / "connections.json"
    fields = {"conn_type": "ray", "host": ray_head.address, "password": ray_head.token}
    path.write_text(json.dumps({"in_file": fields}))
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", backend)
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps({"connections_file_path": str(path)}))
    _forget_backends()
    return "in_file"


@pytest.fixture(autouse=True)
def forgotten_backends() -> Iterator[None]:
    yield
    _forget_backends()


def _forget_backends() -> None:
    from airflow.sdk import configuration

    configuration._secrets_backend_cache.clear()


def jobs(head: Any) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=10).json()
    return {job["submission_id"]: job["status"] for job in answer if job["submission_id"]}


@pytest.mark.parametrize("place", ["in_database", "in_file"])
def test_dag_test_reads_a_connection_wherever_it_is(
    place: str, request: pytest.FixtureRequest, run_dag: Callable[..., Any]
) -> None:
    def train(x: int) -> dict[str, int]:
        return {"score": x}

    with DAG(f"with_{place}", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=train,
            ray_config=CONFIG,
            ray_conn_id=request.getfixturevalue(place),
            poll_interval_s=0.5,
            # A wait for a token that cannot be read would take as long.
            grace_s=600,
        )
    result = run_dag(dag_object)
    assert result.state == "success"
    assert result.xcom("search.fan_in")["best_config"] == {"x": 2}


@pytest.mark.parametrize(
    ("number", "deferrable"),
    [(signal.SIGTERM, True), (signal.SIGINT, False)],
)
def test_a_signal_ends_airflow_dags_test_and_all_its_jobs(
    number: signal.Signals, deferrable: bool, tmp_path: Path, ray_head: Any, in_database: str
) -> None:
    (tmp_path / "stopped.py").write_text(TWO_NODES.format(config=CONFIG, deferrable=deferrable))
    before = set(jobs(ray_head))
    log = tmp_path / "log"
    with log.open("wb") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", "stopped"],
            env=os.environ | {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def states() -> list[str]:
        return [state for name, state in jobs(ray_head).items() if name not in before]

    try:
        end = time.monotonic() + 120
        while states().count("RUNNING") < 2 or "trials" not in log.read_text():
            assert run.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        run.send_signal(number)
        code = run.wait(30)
    finally:
        run.kill()
    assert code == (128 + signal.SIGTERM if number is signal.SIGTERM else -signal.SIGINT), log.read_text()[-3000:]
    assert states() == ["STOPPED", "STOPPED"]
