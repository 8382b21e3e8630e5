"""The embedded launcher with real signals: whatever ends, nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from staged import result_of, stage

from airflow_provider_raynode.launchers import JobState, JobStatus, local
from airflow_provider_raynode.launchers.local import LocalLauncher
from airflow_provider_raynode.runtime.embedded import available_cpus

pytestmark = pytest.mark.ray

GRID = {"search_space": {"x": {"type": "grid_search", "values": [1, 2]}}}


def slow(x: int) -> dict[str, int]:
    import time

    print(f"    trial {x} runs", flush=True)
    time.sleep(600)
    return {"score": x}


def quick(x: int) -> dict[str, int]:
    for line in range(500):
        print(f"    line {line} of trial {x} ünïcode")
    return {"score": x}


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A word in the environment of all that the test starts; afterwards nothing that has it is alive."""
    word = uuid.uuid4().hex
    monkeypatch.setenv("RAYNODE_TEST_MARK", word)
    yield word
    assert not family(word)


def family(word: str) -> list[psutil.Process]:
    """The living processes, but this one, that have the mark."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if (process.info["environ"] or {}).get("RAYNODE_TEST_MARK") == word:
            found.append(process)
    return found


def gone(word: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not family(word):
            return True
        time.sleep(0.2)
    return False


def wait(launcher: LocalLauncher, job: Any, seconds: float = 90) -> JobStatus:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = launcher.status(job)
        if status.state.ended:
            return status
        time.sleep(0.1)
    raise AssertionError(f"not ended: {launcher.read_log(job, 0, final=True).text}")


def wait_for_trial(launcher: LocalLauncher, job: Any) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if "trial 1 runs" in launcher.read_log(job, 0).text:
            launcher.status(job)
            return
        assert launcher.status(job).state is JobState.RUNNING, launcher.read_log(job, 0, final=True).text
        time.sleep(0.2)
    raise AssertionError(launcher.read_log(job, 0, final=True).text)


def greedy(x: int) -> dict[str, int]:
    """Leave a reservation behind, as a library may, or a fault of Ray's: the next trial does not fit beside it."""
    import ray

    ray.util.placement_group([{"CPU": 1}], lifetime="detached", name=f"left by {x}")
    return {"score": x}


def test_a_search_whose_resources_never_come_back_ends(tmp_path: Path, mark: str) -> None:
    section = {**GRID, "max_concurrent_trials": 1, "reuse_actors": False, "failure": {"stall_timeout_s": 1.5}}
    cpus = available_cpus()
    job, _, node = stage(tmp_path, greedy, section, resources={"num_cpus": cpus})
    with LocalLauncher() as launcher:
        launcher.ensure(job)
        assert wait(launcher, job, 120).state is JobState.FAILED
    failure = result_of(job, node).failure
    assert failure is not None
    assert failure.type == "SearchStalled"
    assert f"for 15 s no trial ran, and those that wait get no resources: CPU {cpus - 1} of {cpus} free" in (
        failure.message
    )
    assert "1 of 2 finished" in failure.message


def temp_folders() -> set[Path]:
    """The folders of launchers; those that killed ones left, of other tests, may go at any time."""
    return set(Path("/tmp").glob("rn-*"))


def test_a_search_beside_another_ray(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither attaches to a Ray that the environment names, nor disturbs one on the host."""
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ray; ray.init(address='local', include_dashboard=False, num_cpus=1)\n"
            "print(ray.get_runtime_context().gcs_address, flush=True); input(); print(ray.cluster_resources())",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert other.stdout is not None
    try:
        monkeypatch.setenv("RAY_ADDRESS", other.stdout.readline().strip())
        folders = temp_folders()
        job, _, node = stage(tmp_path, quick, GRID)
        with LocalLauncher() as launcher:
            assert launcher.ensure(job)
            assert not launcher.ensure(job)
            assert wait(launcher, job).state is JobState.SUCCEEDED
            text = launcher.read_log(job, 0, final=True).text
        result = result_of(job, node)
        assert result.best is not None
        assert result.best.config == {"x": 2}
        assert result.resources["CPU"] >= 1
        for x in (1, 2):
            counts = [text.count(f"    line {line} of trial {x} ünïcode\n") for line in range(500)]
            assert counts == [1] * 500, "a line is lost or came twice"
        assert node.read_bytes(f"{job.attempt_prefix}/driver.log").decode() == text
        assert temp_folders() <= folders
        answer, _ = other.communicate("\n", timeout=60)
        assert "CPU" in answer
        assert other.returncode == 0
    finally:
        other.kill()
        assert gone(mark, 10)


def test_stop_ends_a_running_search_with_a_result_that_says_so(tmp_path: Path, mark: str) -> None:
    job, _, node = stage(tmp_path, slow, GRID)
    with LocalLauncher() as launcher:
        launcher.ensure(job)
        wait_for_trial(launcher, job)
        command_lines = " ".join(" ".join(process.cmdline()) for process in family(mark))
        token = family(mark)[0].environ()["RAY_AUTH_TOKEN"]
        assert token not in command_lines
        start = time.monotonic()
        assert launcher.stop(job).state is JobState.STOPPED
        assert time.monotonic() - start < 10
        assert not family(mark)
    result = result_of(job, node)
    assert (result.state, result.failure and result.failure.type) == ("FAILED", "Stopped")


def test_a_killed_driver_is_a_failed_job_and_leaves_nothing(tmp_path: Path, mark: str) -> None:
    folders = temp_folders()
    job, _, _ = stage(tmp_path, slow, GRID)
    with LocalLauncher() as launcher:
        launcher.ensure(job)
        wait_for_trial(launcher, job)
        assert launcher._process is not None
        launcher._process.kill()
        status = wait(launcher, job, 15)
        assert status.state is JobState.FAILED
        assert "SIGKILL" in status.message
        assert gone(mark, 5)
    assert temp_folders() <= folders


PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from pathlib import Path
from staged import stage
from test_local_launcher import GRID, slow
from airflow_provider_raynode.launchers.local import LocalLauncher
job, _, _ = stage(Path({root!r}), slow, GRID)
launcher = LocalLauncher()
launcher.ensure(job)
while "trial 1 runs" not in launcher.read_log(job, 0).text:
    time.sleep(0.1)
print(launcher._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("both", [False, True], ids=["the parent", "parent and driver"])
def test_a_killed_parent_takes_everything_with_it(tmp_path: Path, mark: str, both: bool) -> None:
    folders = temp_folders()
    code = textwrap.dedent(PARENT).format(folder=str(Path(__file__).parent), root=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        driver = int(parent.stdout.readline())
        parent.send_signal(signal.SIGSTOP)  # nothing of the launcher's own clean-up can run
        if both:
            os.kill(driver, signal.SIGKILL)
        parent.kill()
        parent.wait()
        assert gone(mark, 12), [process.cmdline() for process in family(mark)]
    finally:
        parent.kill()
        for process in family(mark):
            process.kill()
    if both:
        # Nobody was left to remove it: the next launcher does, when it is old enough not to be in use.
        (left,) = temp_folders() - folders
        os.utime(left, (0, 0))
        local._remove_stale_folders()
    assert temp_folders() <= folders


def test_a_folder_in_use_stays_whatever_its_pid_says() -> None:
    """Containers that share a /tmp do not see each other's processes."""
    folder = Path(f"/tmp/rn-{2**22 + 1}-{uuid.uuid4().hex[:8]}")  # more than any pid
    folder.mkdir()
    try:
        lock = local.hold(folder)
        os.utime(folder, (0, 0))
        local._remove_stale_folders()
        assert folder.exists()
        lock.close()
        local._remove_stale_folders()
        assert not folder.exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
