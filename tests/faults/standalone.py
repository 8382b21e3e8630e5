"""A real `airflow standalone` of the tests' own: its four parts as processes, and its REST API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import requests

_START_TIMEOUT_S = 240.0
# In the environment of every process that it starts, tasks included.
_MARK = "RAYNODE_TEST_AIRFLOW"


class Standalone:
    """Airflow in a home of its own.

    :param home: AIRFLOW_HOME; its folder `dags` holds the DAG files.
    :param port: of the API server.
    :param env: further environment variables (connections, configuration).
    """

    def __init__(self, home: Path, port: int, env: Mapping[str, str]) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.dags = home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "RAY_"))}
        self.env = kept | {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            _MARK: str(home),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "10",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(port + 1),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port + 2),
            # A killed process is found within seconds, not minutes.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._more: list[subprocess.Popen[bytes]] = []
        self._known: dict[int, psutil.Process] = {}

    # -- its processes ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until every part is healthy."""
        self._process = self._spawn("standalone")
        end = time.monotonic() + _START_TIMEOUT_S
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"airflow standalone did not start:\n{self.log()[-4000:]}")
            time.sleep(1)

    def component(self, name: str) -> list[psutil.Process]:
        """Return the processes of a part: `triggerer`, `scheduler`, `api-server`, the parents first."""
        return [each for each in self.processes() if f"airflow {name}" in " ".join(_cmdline(each)).replace("/", " ")]

    def start_triggerer(self) -> None:
        """Start one more triggerer, as a second replica would be."""
        self._more.append(self._spawn("triggerer"))

    def processes(self) -> list[psutil.Process]:
        """Return every process that this Airflow has started and that still runs.

        By parentage and by the mark in the environment: a process that sets its title (the api-server, tasks)
        overwrites its environment, one whose parent was killed loses it.
        """
        found = {each.pid: each for each in self._known.values() if each.is_running()}
        for root in (self._process, *self._more):
            with suppress(psutil.Error, AttributeError):
                parent = psutil.Process(root.pid)  # type: ignore[union-attr]
                found |= {each.pid: each for each in (parent, *parent.children(recursive=True))}
        for each in psutil.process_iter():
            with suppress(psutil.Error):
                if each.pid not in found and each.environ().get(_MARK) == str(self.home):
                    found[each.pid] = each
        for each in list(found.values()):
            with suppress(psutil.Error):
                found |= {child.pid: child for child in each.children(recursive=True)}
        self._known = found
        return [each for each in found.values() if alive(each)]

    def stop(self) -> list[str]:
        """Kill it with all that it started; return what is left."""
        end = time.monotonic() + 20
        while (found := self.processes()) and time.monotonic() < end:
            for each in found:
                with suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(found, timeout=1)
        for process in (self._process, *self._more):
            if process is not None:
                process.wait()
        return [" ".join(_cmdline(each)) for each in self.processes()]

    def log(self) -> str:
        """Return what its processes have printed."""
        return (self.home / "standalone.log").read_text(errors="replace")

    def _spawn(self, command: str) -> subprocess.Popen[bytes]:
        with (self.home / "standalone.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", command],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _healthy(self) -> bool:
        with suppress(requests.RequestException, ValueError, KeyError, AttributeError):
            health = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
            parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
            return all(health[part]["status"] == "healthy" for part in parts)
        return False

    # -- its REST API ----------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Call the REST API below /api/v2 and return its JSON."""
        for _ in range(8):
            try:
                answer = self._call(method, path, body, params)
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(1)
                continue
            # SQLite: another part holds the lock.
            if answer.status_code < 500:
                break
            time.sleep(1)
        if answer.status_code >= 400:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def _call(self, method: str, path: str, body: Any, params: dict[str, Any]) -> requests.Response:
        if not self._token:
            self._token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        return requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            json=body,
            params=params,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=60,
        )

    def await_dags(self, dag_ids: set[str]) -> None:
        """Wait until the DAGs are there and can be triggered."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            found = {each["dag_id"] for each in self.call("GET", "dags", limit=200)["dags"] if not each["is_paused"]}
            if dag_ids <= found:
                return
            errors = self.call("GET", "importErrors")["import_errors"]
            assert not errors, errors[0]["stack_trace"]
            time.sleep(1)
        raise AssertionError(f"the DAGs did not appear: {dag_ids}")

    def trigger(self, dag_id: str, **body: Any) -> str:
        """Start a run and return its id."""
        run: str = self.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": {}, **body})["dag_run_id"]
        return run

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        state: str = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run by task id, without the group's prefix."""
        listed = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {each["task_id"].rpartition(".")[2]: each for each in listed}

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        """Return the log of one try of a task, a line per event."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, full_content="true", map_index=-1)["content"]
        lines = [each if isinstance(each, str) else each.get("event", json.dumps(each)) for each in content]
        return "\n".join(str(line) for line in lines)

    def mark(self, dag_id: str, run_id: str, state: str) -> None:
        """Set the state of a run, as the UI's button does."""
        self.call("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set the state of a task instance."""
        body = {"new_state": state}
        self.call("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", body)

    def clear(self, dag_id: str, run_id: str, task_ids: list[str], *, downstream: bool = True) -> None:
        """Clear task instances."""
        body = {
            "dag_run_id": run_id,
            "task_ids": task_ids,
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            "include_downstream": downstream,
        }
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", body)


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that its parent has not buried does not."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill(*processes: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Send a signal to processes by pid."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
