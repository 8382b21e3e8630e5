"""Secrets reach the function on the cluster, and nothing else."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from airflow.sdk import DAG

from airflow_provider_raynode import context, ray_node

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

PASSWORD = "correct-horse-battery-staple"
API_KEY = "sk-0123456789abcdef"
TOKEN = "extra-token-value-42"
SECRETS = (PASSWORD, API_KEY, TOKEN)
CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}},
        "failure": {"min_successful": 2},
        "checkpoint": {},
    },
    "default_resources": {"num_cpus": 0.5},
}


def train(x: int, folder: str) -> dict[str, Any]:
    """Check what came against digests, print it, and fail with it: none of that may be seen anywhere."""
    import hashlib
    import os
    import time

    my_db = context().connection("my_db")
    found = [my_db.password, context().variable("api_key"), my_db.extra["token"], os.environ["API_KEY"]]
    print("the password is", my_db.password, my_db)
    print(my_db.uri, end="")
    time.sleep(1.0)
    if x == 1:
        raise ValueError(f"cannot log in with {my_db.password}")
    digests = [hashlib.sha256(each.encode()).hexdigest() for each in found]
    return {"score": x, "digests": digests, "who": (my_db.login, my_db.host, my_db.port)}


def holds(data: bytes) -> bool:
    return any(secret.encode() in data for secret in SECRETS)


class Watch(threading.Thread):
    """Looks at the process list and at the cluster's jobs while the node runs."""

    def __init__(self, head: Any) -> None:
        super().__init__(daemon=True)
        self.head = head
        self.found: list[str] = []
        self.looks = 0
        self.listed = ""
        self.over = threading.Event()

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self.head.token}"}
        while not self.over.wait(0.3):
            for process in psutil.process_iter(["pid", "cmdline"]):
                # This test's own process has them: it is the Airflow of this test.
                if holds(" ".join(process.info["cmdline"] or []).encode()):
                    self.found.append(f"command line of {process.info['cmdline'][:3]}")
                folder = Path("/proc", str(process.info["pid"]))
                try:
                    cluster = b"RAYNODE_TEST_HEAD" in (folder / "environ").read_bytes()
                    if cluster and holds((folder / "environ").read_bytes()):
                        self.found.append(f"environment of {process.info['cmdline'][:3]}")
                except OSError:
                    continue
            listed = requests.get(f"{self.head.address}/api/jobs/", headers=headers, timeout=10).text
            self.listed += listed
            self.looks += 1


def test_secrets_are_delivered_and_found_nowhere(
    run_dag: Callable[..., Any],
    ray_head: Any,
    ray_connection: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    connection = {
        "conn_type": "postgres", "host": "db", "login": "me", "password": PASSWORD, "port": 5432,
        "extra": {"token": TOKEN},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_MY_DB", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_VAR_API_KEY", API_KEY)
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(tmp_path / "catalog"))
    with DAG("with_secrets", schedule=None) as dag_object:
        ray_node(
            "search",
            python_callable=train,
            ray_config=CONFIG,
            op_kwargs={"folder": "unused"},
            secrets=["conn:my_db", "var:api_key as API_KEY"],
            poll_interval_s=0.5,
        )
    watch = Watch(ray_head)
    watch.start()
    result = run_dag(dag_object)
    watch.over.set()
    watch.join()
    output = capfd.readouterr()
    assert result.state == "success", output.out[-3000:]
    import hashlib

    digests = [hashlib.sha256(each.encode()).hexdigest() for each in (PASSWORD, API_KEY, TOKEN, API_KEY)]
    fan_in = result.xcom("search.fan_in")
    from airflow_provider_raynode.hooks.catalog import catalog_for

    assert catalog_for().load(fan_in["outputs"]["digests"]) == digests
    assert "the password is ***" in output.out, "what the function prints is masked, and there"
    assert "cannot log in with ***" in output.out + output.err

    assert watch.looks > 3
    assert not watch.found
    assert "RAYNODE_SECRETS_KEY" in watch.listed, "the key is there, and is not enough"
    places = {
        "the task logs": (output.out + output.err).encode(),
        "the jobs' metadata and environment": watch.listed.encode(),
        "XCom": json.dumps([result.xcom(f"search.{name}") for name in ("fan_out", "tune", "fan_in")]).encode(),
    }
    for root in (tmp_path / "catalog", ray_head.temp_dir):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                places[str(path)] = path.read_bytes()
    assert any("search" in place and place.endswith("result.json") for place in places)
    assert any("job-driver" in place for place in places), "Ray's own logs are among them"
    assert not [place for place, data in places.items() if holds(data)]
    left = [place for place in places if re.fullmatch(r"secrets-[0-9a-f]+\.bin", Path(place).name)]
    assert not left, "the ciphertext is deleted when the attempt ends"


def test_a_secret_that_is_not_declared(
    run_dag: Callable[..., Any], ray_connection: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_API_KEY", API_KEY)

    def asks(x: int) -> dict[str, Any]:
        return {"score": context().variable("api_kay")}

    with DAG("undeclared", schedule=None) as dag_object:
        ray_node("search", python_callable=asks, ray_config=CONFIG, secrets=["var:api_key"])
    assert run_dag(dag_object).state == "failed"
    assert "does not declare 'var:api_kay' in secrets; did you mean 'var:api_key'?" in capfd.readouterr().out


def test_a_secret_that_airflow_does_not_have(
    run_dag: Callable[..., Any], ray_connection: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with DAG("undefined", schedule=None) as dag_object:
        ray_node("search", python_callable=train, ray_config=CONFIG, op_kwargs={"folder": ""}, secrets=["conn:nobody"])
    assert run_dag(dag_object).state == "failed"
    assert "the connection 'nobody' is not defined in Airflow" in capfd.readouterr().out
