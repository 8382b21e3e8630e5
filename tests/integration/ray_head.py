"""A real Ray head of the tests' own: started, awaited, and killed with all that it started."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

_START_TIMEOUT_S = 90.0
# In the environment of every process of the head, jobs and workers included, whatever session they moved to.
_MARK = "RAYNODE_TEST_HEAD"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class RayHead:
    """A running head: the base URL of its Jobs API, its token, its process and its temporary folder."""

    address: str
    token: str
    pid: int
    temp_dir: Path


def start(temp_dir: Path, token: str, mark: str, **ports: int) -> subprocess.Popen[bytes]:
    """Start a head with 2 CPUs on the ports `gcs`, `client`, `agent` and `dashboard`, with token authentication."""
    token_file = temp_dir / "token"
    token_file.write_text(token)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIRFLOW"))}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # A job's `python` is the first on the head's path.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        _MARK: mark,
    }
    options = {
        "port": ports["gcs"],
        "ray-client-server-port": ports["client"],
        "dashboard-agent-listen-port": ports["agent"],
        "dashboard-port": ports["dashboard"],
        "dashboard-host": "127.0.0.1",
        "num-cpus": 2,
        "temp-dir": temp_dir,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    libc = ctypes.CDLL(None)
    with (temp_dir / "head.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *flags],
            # Not the repository: a job must not find this package in its working directory.
            cwd=temp_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A session that is killed takes the head with it.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )


def await_node(address: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the head has its node."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    headers = {"Authorization": f"Bearer {token}"}
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.RequestException, KeyError, TypeError, ValueError):
            answer = requests.get(f"{address}/nodes?view=summary", headers=headers, timeout=5).json()
            if answer["data"]["summary"]:
                return
        time.sleep(0.2)
    pytest.fail(f"the Ray head did not start:\n{log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes], mark: str) -> list[str]:
    """Kill the head and all that it started, and return what is left. Ray's own stop drains for up to 30 s."""
    process.kill()
    deadline = time.monotonic() + 15
    while (marked := _marked(mark)) and time.monotonic() < deadline:
        for one in marked:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(marked, timeout=1)
    process.wait()
    return [f"{one.pid} {' '.join(one.cmdline())}" for one in _marked(mark)]


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE and one.environ().get(_MARK) == mark:
                found.append(one)
    return found


def free_ports(number: int) -> list[int]:
    """Ports of this host that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
