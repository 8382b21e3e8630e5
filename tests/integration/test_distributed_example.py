"""dags/distributed_training.py as a user runs it, with a worker killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_raynode.catalog import Catalog

pytestmark = [pytest.mark.airflow, pytest.mark.ray]
ROOT = Path(__file__).resolve().parents[2]


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that the run has started."""
    found = psutil.process_iter(["environ", "cmdline"])
    return [process for process in found if (process.info["environ"] or {}).get("RAYNODE_MARK") == mark]


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + 150
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_killed_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    mark = uuid.uuid4().hex
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "airflow_provider_raynode.cli", "run"]
    process = subprocess.Popen(
        [*command, str(ROOT / "dags" / "distributed_training.py")],
        cwd=tmp_path, env=clean | {"RAYNODE_MARK": mark}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    store = tmp_path / ".raynode" / "raynode_catalog"

    def state(restarts: int) -> dict[str, Any] | None:
        for file in store.glob(
            "distributed_training/*/ray_distributed_training/-1/experiment/*/driver_0001/state.json"
        ):
            found: dict[str, Any] = json.loads(file.read_text())
            if found["restarts"] >= restarts:
                return found
        return None

    try:
        first = wait_for(lambda: state(0), process)
        workers = [each for each in marked(mark) if "RayTrainWorker" in " ".join(each.info["cmdline"] or ())]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        second = wait_for(lambda: state(1), process)
        assert second["last"]["step"] > first["last"]["step"]
        output = process.communicate(timeout=240)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    accuracy = re.search(r"test accuracy: ([0-9.]+)", output)
    assert accuracy is not None, output
    assert float(accuracy.group(1)) > 0.9
    (table,) = store.rglob("steps.parquet")
    steps = Catalog(str(store)).load(json.loads(table.with_name("steps.ref.json").read_text()))
    assert list(steps["training_iteration"]) == list(range(1, 21)), "no gap, and no epoch twice"
    assert steps["loss"].iloc[-1] < steps["loss"].iloc[0] / 4
    result = json.loads((table.parent / "result.json").read_text())["body"]
    assert (result["training"]["restarts"], result["training"]["ending"]) == (1, "finished")
    assert not marked(mark)
