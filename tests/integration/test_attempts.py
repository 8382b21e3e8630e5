"""Which attempt comes next: what a node's folder and the cluster say, for fan-out and for the execution task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from staged import stage

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.operators._attempt import changes, mark, open_attempt, spec_of_attempt
from airflow_provider_raynode.operators._code import function_digest
from airflow_provider_raynode.operators._job_run import JobRun
from airflow_provider_raynode.record import read_record
from airflow_provider_raynode.spec import (
    NOT_ATTACHED,
    TAKEN_FILE,
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
        run = JobRun(job or self.job, work="search", poll_interval_s=1, grace_s=1, log=log)
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
