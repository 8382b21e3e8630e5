"""The contracts: canonical bytes, digests, versions, submission ids."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_raynode.exceptions import SpecError
from airflow_provider_raynode.spec import (
    Best,
    FunctionRef,
    JobRef,
    NodeFailure,
    NodeProgress,
    NodeResult,
    NodeSpec,
    RunContext,
    Versions,
    digest,
    seal,
    submission_id,
    unseal,
)


@pytest.fixture
def spec() -> NodeSpec:
    return NodeSpec(
        submission_id="raynode-x",
        attempt=2,
        context=RunContext(dag_id="dag", run_id="manual__2026", node_id="node", params={"ü": 1}),
        function=FunctionRef(name="f", import_path="pkg.mod:f", python="3.11.7"),
        op_kwargs={"text": "größe ✓"},
        config={
            "ray_tune": {"metric": "m", "mode": "max", "search_space": {"a": {"type": "uniform", "low": 0, "high": 1}}}
        },
        catalog_uri="/catalog",
        node_prefix="/catalog/dag/manual__2026/node/-1",
        staged_by=Versions(python="3.11.7", package="0.1.0"),
    )


@pytest.fixture
def result() -> NodeResult:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return NodeResult(
        submission_id="raynode-x",
        attempt=1,
        spec_sha256="0" * 64,
        state="SUCCEEDED",
        started=now,
        ended=now,
        versions=Versions(python="3.11.7", package="0.1.0"),
    )


def test_spec_round_trips_byte_for_byte(spec: NodeSpec) -> None:
    data = spec.to_bytes()
    again = NodeSpec.from_bytes(data, sha256=digest(data))
    assert again == spec
    assert again.to_bytes() == data
    assert spec.attempt_prefix == "/catalog/dag/manual__2026/node/-1/attempt_2"


def test_spec_with_another_digest_is_refused(spec: NodeSpec) -> None:
    data = spec.to_bytes()
    with pytest.raises(SpecError, match="altered or truncated"):
        NodeSpec.from_bytes(data + b" ", sha256=digest(data), source="spec.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "upgrade airflow-provider-raynode"),
        ({"surprise": 1}, "surprise"),
        ({"attempt": 0}, "attempt"),
        ({"submission_id": "../../etc"}, "submission_id"),
        ({"function": {"name": "f", "import_path": "os; rm", "python": "3"}}, "import_path"),
    ],
)
def test_spec_that_is_not_valid_is_refused_by_field(spec: NodeSpec, change: dict, message: str) -> None:
    raw = json.loads(spec.to_bytes()) | change
    with pytest.raises(SpecError, match=re.escape(message)):
        NodeSpec.from_bytes(json.dumps(raw).encode(), source="spec.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe"])
def test_what_is_no_spec_is_refused(data: bytes) -> None:
    with pytest.raises(SpecError):
        NodeSpec.from_bytes(data)


def test_result_round_trips_through_its_seal(result: NodeResult) -> None:
    assert unseal(seal(result)) == result


def test_every_truncation_of_a_result_is_seen(result: NodeResult) -> None:
    sealed = seal(result)
    for length in range(len(sealed)):
        with pytest.raises(SpecError):
            unseal(sealed[:length])


def test_an_altered_result_is_seen(result: NodeResult) -> None:
    with pytest.raises(SpecError, match="altered"):
        unseal(seal(result).replace(b'"attempt":1', b'"attempt":2'))


_text = st.text(min_size=1, max_size=300)


@given(_text, _text, _text, st.integers(-1, 1023), st.integers(1, 99))
def test_submission_id_is_always_one_that_ray_takes(dag: str, run: str, node: str, index: int, attempt: int) -> None:
    identity = submission_id(dag, run, node, index, attempt)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", identity)
    assert identity == submission_id(dag, run, node, index, attempt)


def test_submission_ids_differ_in_every_part() -> None:
    base = ("dag", "run", "node", 0, 1)
    others = [("dag.", "run", "node", 0, 1), ("dag", "run2", "node", 0, 1), ("dag", "run", "n", 0, 1)]
    others += [("dag", "run", "node", 1, 1), ("dag", "run", "node", 0, 2), ("da", "grun", "node", 0, 1)]
    assert len({submission_id(*each) for each in [base, *others]}) == 7
    assert submission_id(*base, "/one") != submission_id(*base, "/two"), "two Airflows run the same DAG on one cluster"


def test_job_ref_is_small_json() -> None:
    job = JobRef(
        launcher="local",
        submission_id=submission_id("d" * 200, "r" * 200, "n" * 200, 1023, 1),
        attempt=1,
        address="local",
        spec_uri="/c/spec.json",
        spec_sha256="0" * 64,
        catalog_uri="/c",
        node_prefix="/c/d",
    )
    assert JobRef.model_validate(json.loads(job.to_bytes())) == job
    assert len(job.to_bytes()) < 1024


def test_what_a_job_tells_can_always_be_written() -> None:
    name = os.fsdecode(b"data\xe9")
    failure = NodeFailure(type="E", message=name, traceback=f"in {name}")
    best = Best(trial_id="t", config={name: [name, {"deep": name}]}, metrics={"note": name})
    progress = NodeProgress(phase="running", best=best, updated=datetime.now(UTC))
    for contract in (failure, best, progress):
        assert type(contract).from_bytes(contract.to_bytes()) == contract
        assert b"data\\\\udce9" in contract.to_bytes()
    assert best.config == {"data\\udce9": ["data\\udce9", {"deep": "data\\udce9"}]}


def test_a_long_failure_is_cut_once() -> None:
    failure = NodeFailure(type="E" * 1000, message="m" * 10_000_000, traceback="first" + "t" * 10_000_000 + "last")
    assert len(failure.to_bytes()) < 30_000
    assert failure.traceback.startswith("first")
    assert failure.traceback.endswith("last")
    assert NodeFailure.from_bytes(failure.to_bytes()) == failure


def test_a_spec_keeps_texts_that_are_no_unicode_and_refuses_such_names(spec: NodeSpec) -> None:
    name = os.fsdecode(b"data\xe9")
    context = RunContext(dag_id="dag", run_id="r", node_id="n", params={"file": name})
    kept = NodeSpec.from_bytes(spec.model_copy(update={"context": context, "op_kwargs": {"file": [name]}}).to_bytes())
    assert kept.context.params == {"file": name}
    assert kept.op_kwargs == {"file": [name]}
    with pytest.raises(ValueError, match=r"the name 'data\\udce9' is not valid Unicode"):
        RunContext(dag_id="dag", run_id="r", node_id="n", params={"deep": [{name: 1}]})
