"""An elastic training on a cluster that grows and shrinks: more or fewer workers, each time from the checkpoint."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from driven import Ran
from staged import stage

from airflow_provider_raynode import context, get_checkpoint, report

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def address() -> Iterator[str]:
    """A cluster of one machine, with room for one worker."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=True)
    try:
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


class Machine:
    """A further machine of the cluster: a raylet of its own, in a process of its own."""

    def __init__(self, address: str) -> None:
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            f"--address={address}",
            "--num-cpus=1",
            "--block",
        ]
        self._process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lose(self) -> None:
        """Kill all that runs on it at once."""
        with suppress(psutil.NoSuchProcess):
            for each in [*self._process.children(recursive=True), self._process]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self._process.wait()


def await_world(seen: Path, size: int, steps: int) -> None:
    """Wait until so many workers have made so many steps, one after the other."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        sizes = [int(line.split()[1]) for line in seen.read_text().splitlines()] if seen.exists() else []
        if sizes[-steps:] == [size] * steps:
            return
        time.sleep(0.2)
    raise AssertionError(f"never {size} workers: {seen.read_text()}")


def test_a_training_grows_and_shrinks_with_its_cluster(address: str, tmp_path: Path) -> None:
    from airflow_provider_raynode.runtime.driver import Driver, read_spec

    seen, enough = tmp_path / "seen", tmp_path / "enough"

    def fit() -> None:
        step = get_checkpoint() or 0
        while True:
            step += 1
            time.sleep(0.2)
            with seen.open("a") as lines:
                lines.write(f"{step} {context().world_size}\n")
            report({"loss": 1 / step}, checkpoint=step)
            if step >= 300 or (context().world_size == 1 and enough.exists()):
                return

    def change() -> None:
        await_world(seen, 1, 3)
        machine = Machine(address)
        try:
            await_world(seen, 2, 6)
        finally:
            machine.lose()
            enough.touch()

    section = {
        "scaling": {
            "num_workers": [1, 2], "resources_per_worker": {"CPU": 1}, "elastic_resize_monitor_interval_s": 1,
        },
        "failure": {"max_failures": 3},
        "metric": "loss",
        "mode": "min",
    }  # fmt: skip
    job, _, node = stage(tmp_path, fit, None, ray_train=section)
    spec, attempt = read_spec(job.spec_uri, job.spec_sha256)
    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    handlers: dict[int, Any] = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        ran = Ran(job, node, Driver(spec, job.spec_sha256, attempt, embedded=False).run())
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    changing.join()
    assert ran.code == 0, ran.result.failure
    end = ran.result.training
    assert end is not None
    assert (end.ending, end.world_size) == ("finished", 1)
    sizes = [int(line.split()[1]) for line in seen.read_text().splitlines()]
    assert {1, 2} <= set(sizes)
    table = node.load(ran.result.steps or {})
    assert list(table["training_iteration"]) == list(range(1, end.reports + 1))
    assert list(table["loss"]) == [1 / step for step in range(1, end.reports + 1)]
