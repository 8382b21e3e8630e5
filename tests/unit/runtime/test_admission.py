"""What a driver that starts makes of the result that it finds."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime import limits
from airflow_provider_raynode.runtime.admission import Admission
from airflow_provider_raynode.runtime.lease import Lease
from airflow_provider_raynode.spec import (
    Completion,
    FunctionRef,
    NodeFailure,
    NodeResult,
    NodeSpec,
    RunContext,
    Versions,
    digest,
    seal,
)


@pytest.fixture
def spec(tmp_path: Path) -> NodeSpec:
    return NodeSpec(
        submission_id="raynode-a1",
        attempt=1,
        context=RunContext(dag_id="dag", run_id="run", node_id="node"),
        function=FunctionRef(name="train", import_path="a:b", python="3.11.7"),
        config={"ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": 1}}},
        catalog_uri=str(tmp_path),
        node_prefix=f"{tmp_path}/dag/run/node/-1",
        staged_by=Versions(python="3.11.7", package="test"),
    )


def gone(reason: str) -> NoReturn:
    raise AssertionError(reason)


class Attempt:
    """An attempt's folder."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.sha256 = digest(spec.to_bytes())
        self.catalog = Catalog(spec.catalog_uri).at(spec.attempt_prefix)
        self.uri = f"{spec.attempt_prefix}/result.json"
        self.drivers = self.catalog.at(spec.drivers_prefix)

    def result(self, failure: str | None = None, **fields: Any) -> NodeResult:
        values: dict[str, Any] = {
            "submission_id": self.spec.submission_id,
            "attempt": self.spec.attempt,
            "spec_sha256": self.sha256,
            "state": "FAILED" if failure else "SUCCEEDED",
            "failure": NodeFailure(type=failure, message="x") if failure else None,
            "started": datetime.now(UTC),
            "ended": datetime.now(UTC),
            "versions": Versions(python="3.11.7", package="test"),
        }
        return NodeResult(**{**values, **fields})

    def write(self, result: NodeResult) -> None:
        self.catalog.write_bytes(self.uri, seal(result))

    def admission(self) -> Admission:
        return Admission(self.spec, self.sha256, self.catalog)

    def lease(self) -> Lease:
        return Lease(self.drivers, self.spec.submission_id, lost=gone)


def test_a_new_attempt_works(spec: NodeSpec) -> None:
    attempt = Attempt(spec)
    admission = attempt.admission()
    assert admission.result() is None
    lease = attempt.lease()
    assert admission.wait(lease)
    lease.release()
    admission.set_aside(attempt.drivers, 1, attempt.catalog.write_bytes)
    assert attempt.drivers.list(attempt.drivers.prefix_uri) == [f"{attempt.drivers.prefix_uri}/0001.json"]


def test_a_success_stands(spec: NodeSpec) -> None:
    attempt = Attempt(spec)
    attempt.write(attempt.result())
    assert attempt.admission().result() == attempt.result(**_times(attempt))


def _times(attempt: Attempt) -> dict[str, Any]:
    from airflow_provider_raynode.spec import unseal

    found = unseal(attempt.catalog.read_bytes(attempt.uri))
    return {"started": found.started, "ended": found.ended}


@pytest.mark.parametrize("failure", ["Stopped", "AllTrialsFailed", "DeadlineExceeded", "ConfigError"])
def test_a_failure_that_was_there_is_gone_on_from(spec: NodeSpec, failure: str) -> None:
    attempt = Attempt(spec)
    attempt.write(attempt.result(failure))
    data = attempt.catalog.read_bytes(attempt.uri)
    admission = attempt.admission()
    assert admission.result() is None
    admission.set_aside(attempt.drivers, 3, attempt.catalog.write_bytes)
    assert not attempt.catalog.exists(attempt.uri), "it must not pass for this driver's"
    assert attempt.catalog.read_bytes(f"{attempt.drivers.prefix_uri}/0003-found-result.json") == data


@pytest.mark.parametrize(
    ("failure", "ends"),
    [
        (None, True),
        ("AllTrialsFailed", True),
        ("ConfigError", True),
        ("Stopped", False),
        ("RunTimeout", False),
        ("StartupTimeout", False),
        ("DeadlineExceeded", False),
        ("NotAttached", False),
    ],
)
def test_who_waited_ends_with_what_the_other_came_to(spec: NodeSpec, failure: str | None, ends: bool) -> None:
    """Not where that one was only ended from outside: there its search goes on."""
    attempt = Attempt(spec)
    attempt.write(attempt.result("TooFewSuccessful"))
    other = attempt.lease()
    assert other.acquire()
    admission = attempt.admission()
    lease = attempt.lease()

    def work() -> None:
        attempt.write(attempt.result(failure))
        other.release()

    lease._sleep = lambda seconds: work()
    held = admission.wait(lease)
    result = admission.result()
    assert (result is not None) is ends
    assert held or ends
    if result is not None:
        assert (result.failure.type if result.failure else None) == failure
    lease.release()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is truncated"),
        (b"{}", "is truncated"),
        (b'{"sha256":"' + b"0" * 64 + b'","body":{}}', "sha256 is"),
        ({"submission_id": "raynode-b1"}, "is the result of job raynode-b1"),
        ({"spec_sha256": "f" * 64}, "(spec ffffffffffff…), this is job raynode-a1"),
    ],
)
def test_a_damaged_or_foreign_result_is_named_and_not_trusted(
    spec: NodeSpec, data: bytes | dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = Attempt(spec)
    found = data if isinstance(data, bytes) else seal(attempt.result(**data))
    attempt.catalog.write_bytes(attempt.uri, found)
    with caplog.at_level(logging.WARNING):
        admission = attempt.admission()
    assert words in caplog.text
    assert attempt.uri in caplog.text
    assert admission.result() is None
    admission.set_aside(attempt.drivers, 1, attempt.catalog.write_bytes)
    assert not attempt.catalog.exists(attempt.uri)
    assert attempt.catalog.read_bytes(f"{attempt.drivers.prefix_uri}/0001-found-result.json") == found


def test_an_attempt_takes_over_the_success_of_the_one_whose_search_it_shares(spec: NodeSpec) -> None:
    first = Attempt(spec)
    second = Attempt(spec.model_copy(update={"attempt": 3, "submission_id": "raynode-a3", "search_of": 1}))
    anew = Attempt(spec.model_copy(update={"attempt": 4, "submission_id": "raynode-a4"}))
    assert second.admission().finished_before() is None
    first.write(first.result("Stopped"))
    assert second.admission().finished_before() is None
    first.write(first.result(completion=Completion(finished=6)))
    assert anew.admission().finished_before() is None
    admission = second.admission()
    earlier = admission.finished_before()
    assert earlier is not None
    adopted = admission.adopted(earlier)
    assert (adopted.submission_id, adopted.attempt, adopted.spec_sha256) == ("raynode-a3", 3, second.sha256)
    assert (adopted.state, adopted.restored) == ("SUCCEEDED", 6)
    assert "attempt 1" in adopted.warnings[0]
    assert first.drivers.prefix_uri == second.drivers.prefix_uri != anew.drivers.prefix_uri


@pytest.mark.parametrize(
    ("deadline", "age", "left"),
    [(86400, 0, 86340), (600, 100, 470), (60, 0, 55), (60, 30, 25), (60, 90, 0), (4, 0, 0)],
)
def test_a_deadline_leaves_time_to_end(deadline: float, age: float, left: float) -> None:
    assert limits.time_left(deadline, age) == left


def test_outside_of_a_cluster_the_deadline_counts_from_the_driver() -> None:
    assert limits.cluster_age() == 0.0
