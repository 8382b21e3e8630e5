"""Two drivers on one search, one after the other or together: one works, and nothing is done twice or overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_jobs import await_end, python
from ray_head import RayHead
from staged import result_of, stage

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.hooks.ray import RayHook, Submission
from airflow_provider_raynode.launchers import JobState
from airflow_provider_raynode.launchers.jobs_api import entrypoint
from airflow_provider_raynode.launchers.local import LocalLauncher
from airflow_provider_raynode.operators._attempt import as_attempt
from airflow_provider_raynode.spec import JobRef, NodeProgress, NodeResult, digest

pytestmark = pytest.mark.ray

VALUES = list(range(6))
# What a driver does that is not heard of is tried with a lease of seconds.
_HASTY = """
import sys
from functools import partial
from airflow_provider_raynode.runtime import driver
driver.Lease = partial(driver.Lease, life_s=5.0, fence_s=3.5, renewal_s=0.5)
sys.exit(driver.main())
"""


def train(x: int, folder: str) -> dict[str, Any]:
    """Leave a mark; from 3 on, wait until the file `go` is there."""
    import pathlib
    import tempfile
    import time as clock

    here = pathlib.Path(folder)
    while x >= 3 and not (here.parent / "go").exists():
        clock.sleep(0.05)
    tempfile.mkstemp(prefix=f"{x}-", dir=folder)
    return {"score": x, "squares": [x, x * x]}


class Drivers:
    """A staged node and the drivers that a test starts on it."""

    def __init__(self, root: Path, head: RayHead) -> None:
        self.marked = root / "marks"
        self.marked.mkdir()
        space = {"search_space": {"x": {"type": "grid_search", "values": VALUES}}, "max_concurrent_trials": 2}
        options: dict[str, Any] = {"op_kwargs": {"folder": str(self.marked)}, "returns": ["squares"]}
        self.job, self.spec, self.node = stage(root / "catalog", train, space, resources={"num_cpus": 0.5}, **options)
        port = next(word for word in psutil.Process(head.pid).cmdline() if word.startswith("--port="))
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "RAY_ADDRESS": f"127.0.0.1:{port.removeprefix('--port=')}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": head.token,
        }
        self._logs = root
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, job: JobRef | None = None, *, hasty: bool = False, options: tuple[str, ...] = ()) -> int:
        """Start a driver and return its number."""
        job = job or self.job
        program = ["-c", _HASTY] if hasty else ["-m", "airflow_provider_raynode.runtime"]
        command = [sys.executable, "-u", *program, "--spec", job.spec_uri, "--sha256", job.spec_sha256, *options]
        with (self._logs / f"{len(self.started)}.log").open("wb") as log:
            self.started.append(
                subprocess.Popen(command, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )
        return len(self.started) - 1

    def log(self, number: int) -> str:
        return (self._logs / f"{number}.log").read_text(errors="replace")

    def ended(self, number: int) -> int:
        """Return a driver's exit code, when it has one."""
        try:
            return self.started[number].wait(timeout=120)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver {number} does not end:\n{self.log(number)}")

    def until(self, number: int, happens: Callable[[], object]) -> None:
        """Wait for something while a driver runs."""
        end = time.monotonic() + 120
        while not happens():
            assert time.monotonic() < end, self.log(number)
            assert self.started[number].poll() is None, self.log(number)
            time.sleep(0.05)

    def three_ended(self) -> bool:
        """Whether the trials that do not wait have ended, also for the driver and its state on disk."""
        uri = f"{self.spec.attempt_prefix}/progress.json"
        if not self.node.exists(uri) or NodeProgress.from_bytes(self.node.read_bytes(uri)).terminated < 3:
            return False
        time.sleep(2)
        return True

    def go_on(self, number: int) -> None:
        """Let the trials go on when a driver has taken up the search: Ray has ended the last one's workers by then."""
        self.until(number, lambda: "Going on with the search" in self.log(number))
        self.go()

    def go(self) -> None:
        (self.marked.parent / "go").touch()

    def marks(self) -> Counter[str]:
        return Counter(path.name.partition("-")[0] for path in self.marked.iterdir())

    def second_attempt(self) -> JobRef:
        """Write the attempt that goes on with the search of the first."""
        spec = as_attempt(self.spec, 2).model_copy(update={"search_of": 1})
        data, uri = spec.to_bytes(), f"{spec.attempt_prefix}/spec.json"
        self.node.write_bytes(uri, data)
        fields = {"attempt": 2, "submission_id": spec.submission_id, "spec_uri": uri, "spec_sha256": digest(data)}
        return self.job.model_copy(update=fields)

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in Path(self.spec.node_prefix).rglob("*") if path.is_file()}

    @property
    def result(self) -> NodeResult:
        return result_of(self.job, self.node)

    def check(self, job: JobRef | None = None) -> NodeResult:
        """Check that the result is whole, and that no finished trial ran twice."""
        result = result_of(job or self.job, self.node)
        assert result.state == "SUCCEEDED", result.failure
        assert result.trial_states == {"TERMINATED": len(VALUES)}
        assert result.best is not None
        assert result.best.config == {"x": 5}
        assert Catalog(self.spec.catalog_uri).load(result.outputs["squares"]) == [5, 25]
        assert self.marks() == {str(value): 1 for value in VALUES}
        return result


@pytest.fixture
def drivers(tmp_path: Path, ray_head: RayHead) -> Iterator[Drivers]:
    made = Drivers(tmp_path, ray_head)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_after_a_success_nothing_is_done_again(drivers: Drivers) -> None:
    drivers.go()
    assert drivers.ended(drivers.start()) == 0
    drivers.check()
    before = drivers.files()
    begin = time.monotonic()
    assert drivers.ended(drivers.start()) == 0
    print(f"the second driver took {time.monotonic() - begin:.1f} s")
    assert "no trial is run" in drivers.log(1)
    assert drivers.files() == before
    drivers.check()


def test_every_launcher_ends_with_the_result_that_there_is(drivers: Drivers, ray_connection: RayHead) -> None:
    """A second job of a spec on the cluster, and an embedded driver: neither runs a trial, the latter starts no Ray."""
    drivers.go()
    assert drivers.ended(drivers.start()) == 0
    drivers.check()
    before = drivers.files()
    hook = RayHook()
    again = f"again-{uuid.uuid4().hex[:8]}"
    hook.ensure_job(Submission(again, entrypoint(drivers.job)))
    assert await_end(hook, again).state is JobState.SUCCEEDED
    assert "no trial is run" in hook.job_log(again)
    assert drivers.files() == before
    # Where a job has its deadline from.
    age = f"age-{uuid.uuid4().hex[:8]}"
    code = "from airflow_provider_raynode.runtime.limits import cluster_age; print('age', cluster_age())"
    hook.ensure_job(Submission(age, python(code)))
    await_end(hook, age)
    line = next(each for each in hook.job_log(age).splitlines() if each.startswith("age "))
    assert time.time() - psutil.Process(ray_connection.pid).create_time() > float(line.removeprefix("age ")) > 1
    with LocalLauncher() as launcher:
        launcher.ensure(drivers.job)
        while not launcher.status(drivers.job).state.ended:
            time.sleep(0.05)
        assert launcher.status(drivers.job).state is JobState.SUCCEEDED
        assert "no trial is run" in launcher.read_log(drivers.job, 0, final=True).text
    log = f"{drivers.job.attempt_prefix}/driver.log"
    assert {name: data for name, data in drivers.files().items() if name != log} == before
    hook.close()


def test_of_two_that_start_together_one_works(drivers: Drivers) -> None:
    both = drivers.start(), drivers.start()
    end = time.monotonic() + 120
    while not any("waiting: the driver of job" in drivers.log(each) for each in both):
        assert time.monotonic() < end, [drivers.log(each) for each in both]
        time.sleep(0.1)
    drivers.go()
    assert [drivers.ended(each) for each in both] == [0, 0]
    drivers.check()
    assert sorted("no trial is run" in drivers.log(each) for each in both) == [False, True]
    assert drivers.log(0).count("waiting:") + drivers.log(1).count("waiting:") == 1


def test_who_waits_goes_on_when_the_other_is_killed(drivers: Drivers) -> None:
    first = drivers.start()
    drivers.until(first, drivers.three_ended)
    second = drivers.start()
    drivers.until(second, lambda: "waiting:" in drivers.log(second))
    drivers.started[first].kill()
    drivers.go_on(second)
    assert drivers.ended(second) == 0
    assert drivers.check().restored == 3


def test_who_was_stopped_writes_nothing_when_it_goes_on(drivers: Drivers) -> None:
    first = drivers.start(hasty=True)
    drivers.until(first, drivers.three_ended)
    drivers.started[first].send_signal(signal.SIGSTOP)
    second = drivers.start(hasty=True)
    drivers.until(second, lambda: "taking over its search" in drivers.log(second))
    drivers.started[first].send_signal(signal.SIGCONT)
    assert drivers.ended(first) == 1
    assert "has taken over the search; this driver ends, and leaves all as it is" in drivers.log(first)
    drivers.go()
    assert drivers.ended(second) == 0
    result = drivers.result
    assert result.state == "SUCCEEDED"
    assert result.restored == 3
    marks = drivers.marks()
    # A trial that ran on a worker while its driver was stopped may have come to its end there as well.
    assert {name: count for name, count in marks.items() if int(name) < 3} == {"0": 1, "1": 1, "2": 1}
    assert set(marks) == {str(value) for value in VALUES}


def test_a_second_attempt_waits_for_the_first_and_takes_over_its_result(drivers: Drivers) -> None:
    first = drivers.start()
    drivers.until(first, drivers.three_ended)
    job = drivers.second_attempt()
    second = drivers.start(job)
    drivers.until(second, lambda: f"waiting: the driver of job {drivers.job.submission_id}" in drivers.log(second))
    drivers.go()
    assert [drivers.ended(first), drivers.ended(second)] == [0, 0]
    drivers.check()
    result = drivers.check(job)
    assert (result.attempt, result.submission_id) == (2, job.submission_id)
    assert "that of attempt 1" in result.warnings[-1]


def test_a_stopped_one_is_gone_on_from_and_its_result_is_set_aside(drivers: Drivers) -> None:
    first = drivers.start()
    drivers.until(first, drivers.three_ended)
    begin = time.monotonic()
    drivers.started[first].terminate()
    assert drivers.ended(first) == 1
    assert time.monotonic() - begin < 10
    assert drivers.result.failure is not None
    assert drivers.result.failure.type == "Stopped"
    stopped = drivers.node.read_bytes(f"{drivers.spec.attempt_prefix}/result.json")
    second = drivers.start()
    drivers.go_on(second)
    assert drivers.ended(second) == 0
    assert drivers.check().restored == 3
    assert drivers.node.read_bytes(f"{drivers.spec.drivers_prefix}/0002-found-result.json") == stopped


def test_who_waits_is_ended_at_once_and_leaves_nothing(drivers: Drivers) -> None:
    first = drivers.start()
    drivers.until(first, drivers.three_ended)
    for options, number in (((), signal.SIGTERM), (("--deadline", "6"), None)):
        second = drivers.start(options=options)
        drivers.until(second, lambda each=second: "waiting:" in drivers.log(each))
        if number is not None:
            drivers.started[second].send_signal(number)
        assert drivers.ended(second) == 1
        assert not drivers.node.exists(f"{drivers.spec.attempt_prefix}/result.json")
    assert "DeadlineExceeded: the job's deadline (6 s" in drivers.log(2)
    drivers.go()
    assert drivers.ended(first) == 0
    drivers.check()


def test_a_driver_ends_before_its_deadline(drivers: Drivers) -> None:
    assert drivers.ended(drivers.start(options=("--deadline", "30"))) == 1
    result = drivers.result
    assert result.failure is not None
    assert result.failure.type == "DeadlineExceeded"
    job = drivers.second_attempt()
    second = drivers.start(job)
    drivers.go_on(second)
    assert drivers.ended(second) == 0
    finished = 0 if result.completion is None else result.completion.finished
    assert drivers.check(job).restored == finished
