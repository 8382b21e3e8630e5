"""One real Ray head for the session, with token authentication on, and nothing of it left behind."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driven import Ran
from ray_head import RayHead, await_node, free_ports, start, stop
from staged import stage


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


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """One embedded Ray for the module; the driver uses the connection that is there."""
    import ray

    os.environ["RAY_DEDUP_LOGS"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    yield
    ray.shutdown()


@pytest.fixture
def run(connected: None, tmp_path: Path) -> Iterator[Callable[..., Ran]]:
    """Stage a function with a search and run its driver to the end."""
    from airflow_provider_raynode.runtime.driver import Driver, read_spec

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ran(function: Any, ray_tune: dict[str, Any] | None = None, **options: Any) -> Ran:
        options.setdefault("resources", {"num_cpus": 0.5})
        if ray_tune is None and "ray_train" not in options:
            ray_tune = {"search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}}}
        job, _, node = stage(tmp_path, function, ray_tune, **options)
        spec, attempt = read_spec(job.spec_uri, job.spec_sha256)
        code = Driver(spec, job.spec_sha256, attempt, embedded=False).run()
        return Ran(job, node, code)

    yield ran
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def train(run: Callable[..., Ran]) -> Callable[..., Ran]:
    """Stage a function with a training of two workers and run its driver to the end."""

    def ran(function: Any, ray_train: dict[str, Any] | None = None, **options: Any) -> Ran:
        section = {"scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}}, **(ray_train or {})}
        return run(function, None, ray_train=section, **options)

    return ran
