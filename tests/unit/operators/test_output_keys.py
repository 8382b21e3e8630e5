"""What fan-in pushes by the kind of the node's work, and what of it can be asked for when the DAG is parsed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._collected import collected, leave_out, told
from airflow_provider_raynode.operators._output import ALL_OUTPUT_KEYS, END_KEYS, OUTPUT_KEYS, KnownOutput
from airflow_provider_raynode.returns import metric, pickled
from airflow_provider_raynode.spec import Best, Completion, MapEnd, NodeResult, TrainingEnd, Versions
from airflow_provider_raynode.task_groups.ray_node import RayNode

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = {"uri": "s3://bucket/prefix/" + "x" * 150, "kind": "pickled", "size": 1, "sha256": "0" * 64}


def result(**fields: Any) -> NodeResult:
    return NodeResult(
        submission_id="raynode-d-n-0-a1",
        attempt=1,
        spec_sha256="0" * 64,
        state="SUCCEEDED",
        metric="loss",
        mode="min",
        started=NOW,
        ended=NOW,
        versions=Versions(python="3.11.0", package="0"),
        **fields,
    )


RESULTS: dict[WorkKind, NodeResult] = {
    "search": result(
        best=Best(trial_id="t", config={"x": 1}, metrics={"loss": 0.1}),
        outputs={"model": REFERENCE},
        front=REFERENCE,
        trials=REFERENCE,
        steps=REFERENCE,
        completion=Completion(asked=1, finished=1, ending="all_trials", reason="all have ended"),
    ),
    "training": result(
        metrics={"loss": 0.2},
        best_metrics={"loss": 0.1},
        best_step=3,
        outputs={"checkpoint": REFERENCE},
        steps=REFERENCE,
        training=TrainingEnd(world_size=2, reports=5, ending="finished", resumed_from=2),
    ),
    "function": result(value=[1, 2], metrics={"loss": 0.1}, outputs={"model": REFERENCE}),
    "map": result(
        items=MapEnd(items=9, succeeded=7, failed=2, ending="all_items"),
        failed=(3, 5),
        outputs={"results": REFERENCE, "errors": REFERENCE},
    ),
}


@pytest.mark.parametrize("work", list(OUTPUT_KEYS))
def test_every_key_that_fan_in_pushes_can_be_asked_for(work: WorkKind) -> None:
    pushed = collected(work, RESULTS[work], {"uri": "run.json"})
    assert tuple(pushed) == OUTPUT_KEYS[work]
    assert all(isinstance(getattr(RayNode, key), property) for key in pushed)
    for key in {*END_KEYS} & {*pushed}:
        assert set(pushed[key]) == set(END_KEYS[key])
        assert "reason" not in pushed[key], "a text of any length stays in the run record"
    assert len(json.dumps(pushed)) < 4096
    assert list(told(work, RESULTS[work]))


def test_many_failed_items_stay_small() -> None:
    many = RESULTS["map"].model_copy(update={"failed": tuple(range(100_000, 200_000))})
    assert len(json.dumps(collected("map", many, REFERENCE))) < 4096


@pytest.mark.parametrize("work", ["training", "search"])
def test_metrics_that_are_too_many_for_an_xcom_are_left_out(work: WorkKind) -> None:
    many = {f"m{number}": float(number) for number in range(500)} | {"loss": 0.5, "taken": 1.0, "text": "x" * 200}
    fields: dict[str, Any] = {"metrics": many, "best_metrics": many}
    if work == "search":
        fields = {"best": Best(trial_id="t", config={}, metrics=many)}
    output = collected(work, RESULTS[work].model_copy(update=fields), {"uri": "run.json"})
    left = leave_out(output, {"loss", "taken"})
    assert len(json.dumps(output)) < 4096
    assert output["best_metrics"]["loss"] == 0.5
    assert output["best_metrics"]["taken"] == 1.0
    assert "text" in left["best_metrics"]
    assert len(left["best_metrics"]) + len(output["best_metrics"]) == len(many)
    assert leave_out(output, ()) == {}


@pytest.mark.parametrize("key", ALL_OUTPUT_KEYS)
def test_a_key_of_another_kind_is_refused_with_the_kind_that_has_it(key: str) -> None:
    for work, keys in OUTPUT_KEYS.items():
        known = KnownOutput("n", work=work)
        if key in keys:
            known.check((key,))
            continue
        with pytest.raises(ConfigError, match=rf"'{key}'.* is not there.*\(the node runs a {work}; it is of a "):
            known.check((key,))
    KnownOutput("n").check((key,))


@pytest.mark.parametrize(
    ("work", "path", "message"),
    [
        ("training", ("training", "world"), r"did you mean 'world_size'\?"),
        ("training", ("outputs", "model"), r"did you mean 'modell'\?"),
        ("training", ("outputs", "accuracy"), r"take output\['metrics'\]\['accuracy'\]"),
        ("training", ("modell",), r"the output 'modell' is output\['outputs'\]\['modell'\]"),
        ("search", ("outputs", "accuracy"), r"take output\['best_metrics'\]\['accuracy'\]"),
        ("map", ("failed", "first"), "failed is the list"),
        ("map", ("items", "done"), "there is 'items', 'succeeded'"),
        ("map", ("outputs", "result"), r"did you mean 'results'\?"),
    ],
)
def test_a_path_that_leads_nowhere(work: WorkKind, path: tuple[str, ...], message: str) -> None:
    known = KnownOutput("n", (pickled("modell"), metric("accuracy")), work=work)
    with pytest.raises(ConfigError, match=message):
        known.check(path)
