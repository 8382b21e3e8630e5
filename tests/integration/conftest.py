"""One real Ray head for the session, with token authentication on, and nothing of it left behind."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import RayHead, await_node, free_ports, start, stop


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """The session's Ray head, started at its first use: 2 CPUs, token authentication, ports of its own."""
    # Ray puts sockets below it, and a socket's path has at most 107 bytes.
    temp_dir = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    token, mark = secrets.token_hex(32), secrets.token_hex(8)
    try:
        gcs, client, agent, dashboard = free_ports(4)
        process = start(temp_dir, token, mark, gcs=gcs, client=client, agent=agent, dashboard=dashboard)
        try:
            address = f"http://127.0.0.1:{dashboard}"
            await_node(address, token, process, temp_dir / "head.log")
            yield RayHead(address, token, process.pid, temp_dir)
        finally:
            left = stop(process, mark)
            assert not left, f"processes of the Ray head are left: {left}"
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)


@pytest.fixture
def ray_connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> RayHead:
    """The connection `ray_default` names the session's head."""
    host = ray_head.address.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", f"ray://:{ray_head.token}@{host}")
    return ray_head
