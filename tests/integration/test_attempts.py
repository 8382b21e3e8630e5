"""Which attempt comes next: what a node's folder and the cluster say, for fan-out and for the execution task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from staged import stage

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import ConfigError, RayNodeError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.launchers import JobState, JobStatus
from airflow_provider_raynode.operators._attempt import changes, mark, open_attempt, spec_of_attempt
from airflow_provider_raynode.operators._code import function_digest
from airflow_provider_raynode.operators._job_run import JobRun
from airflow_provider_raynode.operators._record import record_earlier
from airflow_provider_raynode.operators.fan_in import RayFanInOperator
from airflow_provider_raynode.record import read_record
from airflow_provider_raynode.spec import (
    NOT_ATTACHED,
    TAKEN_FILE,
    Best,
    JobRef,
    NodeFailure,
    NodeResult,
    NodeSpec,
    Versions,
    seal,
)

log = logging.getLogger(__name__)
SPACE = {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}


def train(x: float) -> dict[str, float]:
    return {"score": x}


class Folder:
    """A node's folder after its first attempt, on the embedded Ray."""

    def __init__(self, root: Path) -> None:
        self.job, self.spec, self.node = stage(root, train, SPACE)
        self.hook = RayHook(address="local")

    def begun(self, attempt: int = 1) -> None:
        spec = spec_of_attempt(self.node, attempt)
        self.node.write_bytes(f"{spec.attempt_prefix}/progress.json", b"{}")
        self.node.write_bytes(f"{spec.experiment_prefix}/{spec.experiment_name}/tuner.pkl", b"x")

    def ended(self, state: Any, attempt: int = 1, kind: str = "E") -> None:
        from datetime import UTC, datetime

        spec = spec_of_attempt(self.node, attempt)
        now = datetime.now(UTC)
        result = NodeResult(
            submission_id=spec.submission_id, attempt=attempt, spec_sha256="0" * 64, state=state, started=now,
            ended=now, versions=Versions(python="3.11.7", package="0"),
            failure=NodeFailure(type=kind, message="m") if state == "FAILED" else None,
        )  # fmt: skip
        self.node.write_bytes(f"{spec.attempt_prefix}/result.json", seal(result))

    def open(self, staged: NodeSpec | None = None, **options: Any) -> JobRef:
        return open_attempt(staged or self.spec, self.node, self.hook, **options)

    def choose(self, job: JobRef | None = None, *, retry: bool) -> tuple[int, int | None]:
        run = JobRun(job or self.job, poll_interval_s=1, grace_s=1, log=log)
        chosen = run.choose_attempt(retry=retry)
        return chosen.attempt, spec_of_attempt(self.node, chosen.attempt).search_of


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# -- fan-out -----------------------------------------------------------------------------------------------------------


def test_fan_out_writes_what_never_began_again(folder: Folder) -> None:
    assert folder.open().attempt == 1


def test_fan_out_goes_on_after_a_failure(folder: Folder) -> None:
    folder.begun()
    folder.ended("FAILED")
    job = folder.open()
    assert job.attempt == 2
    assert spec_of_attempt(folder.node, 2).search_of == 1
    folder.begun(2)
    folder.ended("FAILED", 2)
    assert folder.open().attempt == 3
    assert spec_of_attempt(folder.node, 3).search_of == 1, "the search is that of the first attempt"


def test_fan_out_starts_anew_after_a_success(folder: Folder) -> None:
    folder.begun()
    folder.ended("SUCCEEDED")
    assert folder.open().attempt == 2
    assert spec_of_attempt(folder.node, 2).search_of is None


def test_a_fan_out_that_was_cut_off_keeps_its_own_attempt(folder: Folder) -> None:
    """The job is there, and was even quick enough to succeed: it is not run twice."""
    folder.begun()
    folder.ended("SUCCEEDED")
    assert folder.open(own=1).attempt == 1


def test_a_changed_search_is_refused_by_name(folder: Folder) -> None:
    folder.begun()
    folder.ended("FAILED")
    space = {"ray_tune": {**folder.spec.config.ray_tune.model_dump(mode="json"), "num_samples": 99}}  # type: ignore[union-attr]
    changed = folder.spec.model_copy(update={"config": folder.spec.config.model_validate(space)})
    with pytest.raises(ConfigError, match=r"cannot be gone on with: .*ray_tune.num_samples.* changed"):
        folder.open(changed)
    job = folder.open(changed, on_change="restart")
    assert (job.attempt, spec_of_attempt(folder.node, 2).search_of) == (2, None)


def test_what_may_change_between_attempts(folder: Folder) -> None:
    more = folder.spec.config.model_dump(mode="json")
    more["ray_tune"]["failure"] = {"max_failures": 5}
    more["ray_cluster"] = {"address": "http://elsewhere:8265"}
    again = folder.spec.model_copy(update={"config": folder.spec.config.model_validate(more)})
    assert changes(folder.spec, again) == []
    other = folder.spec.model_copy(update={"op_kwargs": {"a": 1}})
    assert changes(folder.spec, other) == ["op_kwargs"]


# -- the execution task ------------------------------------------------------------------------------------------------


def test_the_first_try_takes_what_fan_out_opened(folder: Folder) -> None:
    assert folder.choose(retry=False) == (1, None)
    folder.ended("FAILED")
    assert folder.choose(retry=False) == (1, None), "a job that has failed by now fails the task, once"


def test_a_first_try_that_came_late_goes_on(folder: Folder) -> None:
    """The job stopped itself because nobody watched it: that costs the task no try."""
    folder.begun()
    folder.ended("FAILED", kind=NOT_ATTACHED)
    assert folder.choose(retry=False) == (2, 1)


def test_a_retry_goes_on_after_a_failure(folder: Folder) -> None:
    folder.begun()
    folder.ended("FAILED")
    assert folder.choose(retry=True) == (2, 1)


def test_a_retry_goes_on_after_a_driver_that_left_nothing(folder: Folder) -> None:
    folder.begun()
    assert folder.choose(retry=True) == (2, 1)
    record = read_record(f"{folder.job.attempt_prefix}/run.json", folder.node)
    assert (record.outcome, record.attempt) == ("failed", 1), "recorded by who came after"


def test_a_retry_starts_what_never_began(folder: Folder) -> None:
    assert folder.choose(retry=True) == (1, None)


def test_a_retry_returns_a_success_that_nobody_has_taken(folder: Folder) -> None:
    folder.begun()
    folder.ended("SUCCEEDED")
    assert folder.choose(retry=True) == (1, None)


def test_a_cleared_task_that_had_succeeded_runs_anew(folder: Folder) -> None:
    folder.begun()
    folder.ended("SUCCEEDED")
    mark(folder.job, folder.node, TAKEN_FILE)
    assert folder.choose(retry=True) == (2, None)


def test_a_first_try_finds_the_attempt_of_a_fan_out_that_was_cleared(folder: Folder) -> None:
    folder.begun()
    folder.ended("SUCCEEDED")
    mark(folder.job, folder.node, TAKEN_FILE)
    job = folder.open()
    assert folder.choose(job, retry=True) == (2, None)


# -- every attempt that ends has its record ----------------------------------------------------------------------------


def whole(folder: Folder, **fields: Any) -> NodeResult:
    """A result as the driver of the first attempt leaves it, with a trials table."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    attempt = folder.node.child("attempt_1")
    result = NodeResult(
        submission_id=folder.job.submission_id, attempt=1, spec_sha256=folder.job.spec_sha256, state="SUCCEEDED",
        best=Best(trial_id="t", config={"x": 1}, metrics={"score": 1}),
        trials=dict(attempt.put({"t": 1}, "trials", kind="json")), started=now, ended=now,
        versions=Versions(python="3.11.7", package="0"),
    )  # fmt: skip
    return result.model_copy(update=fields)


def left(folder: Folder, data: bytes) -> None:
    folder.node.write_bytes(f"{folder.spec.attempt_prefix}/result.json", data)


def unproven(folder: Folder, case: str) -> None:
    """Leave a result that proves nothing."""
    if case == "missing":
        return
    if case == "of another spec":
        left(folder, seal(whole(folder, spec_sha256="1" * 64)))
    elif case == "of another job":
        left(folder, seal(whole(folder, submission_id="other")))
    elif case == "without its trials table":
        result = whole(folder)
        left(folder, seal(result))
        assert result.trials is not None
        folder.node.delete(result.trials["uri"])
    elif case == "says that it failed":
        left(folder, seal(whole(folder, state="FAILED", failure=NodeFailure(type="E", message="m"))))
    else:
        data = seal(whole(folder))
        left(folder, {"cut": data[: len(data) // 2], "altered": data.replace(b'"score":1', b'"score":2')}[case])


_UNPROVEN = (
    "cut", "altered", "missing", "of another spec", "of another job", "without its trials table", "says that it failed",
)  # fmt: skip


@pytest.mark.parametrize("case", _UNPROVEN)
def test_a_green_job_whose_result_proves_nothing_has_its_record(folder: Folder, case: str) -> None:
    folder.begun()
    unproven(folder, case)
    run = JobRun(folder.job, poll_interval_s=1, grace_s=1, log=log)
    with pytest.raises(RayNodeError) as caught:
        run.conclude(JobStatus(JobState.SUCCEEDED))
    record = read_record(f"{folder.job.attempt_prefix}/run.json", folder.node)
    assert record.outcome == "failed"
    assert record.failure is not None
    assert record.failure.message == ("m" if case == "says that it failed" else str(caught.value))
    assert not folder.node.exists(f"{folder.job.attempt_prefix}/{TAKEN_FILE}")


@pytest.mark.parametrize("case", [*_UNPROVEN, "without a best trial"])
def test_what_fan_in_cannot_prove_has_its_record(folder: Folder, case: str) -> None:
    if case == "without a best trial":
        left(folder, seal(whole(folder, best=None)))
    else:
        unproven(folder, case)
    operator = RayFanInOperator(task_id="fan_in", job=folder.job.model_dump(mode="json"))
    with pytest.raises(RayNodeError):
        operator.execute({})
    assert read_record(f"{folder.job.attempt_prefix}/run.json", folder.node).outcome == "failed"
    left(folder, seal(whole(folder)))
    operator.execute({})
    assert read_record(f"{folder.job.attempt_prefix}/run.json", folder.node).outcome == "succeeded"


@pytest.mark.parametrize(("state", "outcome"), [("SUCCEEDED", "succeeded"), ("FAILED", "failed"), (None, "failed")])
def test_who_comes_after_records_what_nobody_has(folder: Folder, state: str | None, outcome: str) -> None:
    """Its task was killed, or its fan-in never ran."""
    folder.begun()
    if state is not None:
        failure = NodeFailure(type="E", message="m") if state == "FAILED" else None
        left(folder, seal(whole(folder, state=state, failure=failure)))
    job = folder.open()
    record_earlier(job, folder.node, folder.hook)
    assert job.attempt == 2
    record = read_record(f"{folder.job.attempt_prefix}/run.json", folder.node)
    assert (record.attempt, record.outcome) == (1, outcome)
    before = folder.node.read_bytes(f"{folder.job.attempt_prefix}/run.json")
    record_earlier(job, folder.node, folder.hook)
    assert folder.node.read_bytes(f"{folder.job.attempt_prefix}/run.json") == before, "written once"


# -- what a function's digest sees -------------------------------------------------------------------------------------


def factor() -> int:
    return 3


def made(scale: int) -> Callable[[float], float]:
    def inner(x: float) -> float:
        return x * scale + factor()

    return inner


def test_a_digest_is_of_the_code_and_of_what_it_refers_to() -> None:
    assert function_digest(made(2)) == function_digest(made(2))
    assert function_digest(made(2)) != function_digest(made(3)), "a closure's value"
    assert function_digest(train) != function_digest(made(2))
    before = function_digest(made(2))
    code = factor.__code__
    try:
        factor.__code__ = (lambda: 4).__code__
        assert function_digest(made(2)) != before, "a function that it calls"
    finally:
        factor.__code__ = code
    assert function_digest(made(2)) == before


def test_a_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "user_code.py").write_text(
        "NAMES = {'a', 'b', 'c', 'd', 'e'}\n"
        "class Model:\n    size = 3\n    def fit(self): return {n for n in NAMES}\n"
        "def train(x, *, mode={'p', 'q', 'r'}):\n    return {'score': x, 'm': Model().fit(), 's': {'u', 'v', 'w'}}\n"
    )
    program = (
        "import user_code; from airflow_provider_raynode.operators._code import function_digest; "
        "print(function_digest(user_code.train))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONHASHSEED": seed, "PATH": ""}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_catalogs_are_not_confused(tmp_path: Path) -> None:
    one, two = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    assert one.node.prefix_uri != two.node.prefix_uri
    assert isinstance(one.node, Catalog)
