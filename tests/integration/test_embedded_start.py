"""The start of the embedded Ray is tried again, and says why where it does not come to its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray._private import services
from staged import result_of, stage

from airflow_provider_raynode.spec import JobRef, NodeResult, digest

pytestmark = pytest.mark.ray

# Ray with one of its executables replaced, and less patience than the real start has.
PREPARED = """
import logging, sys
from ray._private import services
from airflow_provider_raynode.runtime import embedded
setattr(services, sys.argv[1], sys.argv[2])
embedded._PATIENCE_S, embedded._PAUSE_S = float(sys.argv[3]), 0.1
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
"""
START = """
import ray
folder = embedded.start()
print("STARTED", folder.name, ray.get(ray.remote(lambda: 42).remote()), flush=True)
embedded.remove(folder)
"""
DRIVE = """
from airflow_provider_raynode.runtime.driver import main
sys.exit(main(["--local", "--spec", sys.argv[4], "--sha256", sys.argv[5]]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """The launcher's folder; no process of the Ray in it is left."""
    made = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    try:
        yield made
        end = time.monotonic() + 10
        while (left := processes(made)) and time.monotonic() < end:
            time.sleep(0.2)
        assert not left, f"left behind: {left}"
    finally:
        shutil.rmtree(made, ignore_errors=True)


def processes(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{process.pid} {line[:200]}")
    return found


def slow(folder: Path, executable: str, *, times: int) -> Path:
    """One of Ray's executables that does nothing the first so many times."""
    script = folder / "executable"
    script.write_text(
        f"#!/bin/sh\nfor number in $(seq {times}); do\n"
        f'  mkdir "{folder}/$number" 2>/dev/null && exec tail -f "{folder}/executable"\n'
        f'done\nexec "{getattr(services, executable)}" "$@"\n'
    )
    script.chmod(0o755)
    return script


def run(folder: Path, code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARED + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "RAYNODE_TEMP_DIR": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
    )


@pytest.mark.parametrize("executable", ["RAYLET_EXECUTABLE", "GCS_SERVER_EXECUTABLE"])
def test_a_start_that_hangs_is_tried_again(folder: Path, executable: str) -> None:
    script = slow(folder, executable, times=1)
    process = run(folder, START, executable, script, 20)
    text, _ = process.communicate(timeout=150)
    assert process.returncode == 0, text
    assert re.search(r"The embedded Ray did not start \(try 1 of 3, after \d+ s\)", text), text
    assert "load average" in text
    assert "STARTED ray2 42" in text, "in a folder of its own"
    assert not (folder / "ray").exists()


def test_a_start_that_never_comes_says_how_busy_the_machine_is(folder: Path) -> None:
    process = run(folder, START, "GCS_SERVER_EXECUTABLE", "/bin/false", 1)
    text, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "ClusterError: the embedded Ray did not start in 3 tries" in text
    assert "load average" in text
    assert not list(folder.glob("ray*"))


def driven(root: Path, folder: Path, **limits: float) -> tuple[JobRef, subprocess.Popen[str], object]:
    """A driver whose Ray never comes up."""
    job, spec, node = stage(root, lambda x: {"score": x}, {"search_space": {"x": 1}})
    spec = spec.model_copy(update={"limits": spec.limits.model_copy(update=limits)})
    data = spec.to_bytes()
    node.write_bytes(job.spec_uri, data)
    script = slow(folder, "RAYLET_EXECUTABLE", times=9)
    return job, run(folder, DRIVE, "RAYLET_EXECUTABLE", script, 60, job.spec_uri, digest(data)), node


def ended(root: Path, job: JobRef) -> NodeResult:
    from airflow_provider_raynode.catalog import Catalog

    return result_of(job, Catalog(str(root)))


def test_a_start_ends_at_a_stop(folder: Path, tmp_path: Path) -> None:
    job, process, _ = driven(tmp_path, folder)
    end = time.monotonic() + 60
    while not (folder / "1").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=20)
    failure = ended(tmp_path, job).failure
    assert failure is not None, text
    assert failure.type == "Stopped"


def test_a_start_ends_when_its_time_is_over(folder: Path, tmp_path: Path) -> None:
    job, process, _ = driven(tmp_path, folder, startup_timeout_s=8)
    text, _ = process.communicate(timeout=60)
    failure = ended(tmp_path, job).failure
    assert failure is not None, text
    assert failure.type == "StartupTimeout"
    assert "the embedded Ray had not started" in failure.message
    assert "load average" in failure.message
