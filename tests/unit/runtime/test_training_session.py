"""One rank of a training: what of its reports and its return value counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.returns import pickled
from airflow_provider_raynode.runtime.training.session import STEP_KEY, TrainingSession
from airflow_provider_raynode.runtime.training.state import Counted, Origin
from airflow_provider_raynode.spec import RunContext


def make(root: Path, rank: int = 0, **changes: Any) -> tuple[TrainingSession, list[Any]]:
    sent: list[Any] = []
    fields: dict[str, Any] = {
        "run": RunContext(dag_id="d", run_id="r", node_id="n"),
        "attempt": 1,
        "catalog": Catalog(str(root)),
        "store": Catalog(str(root)),
        "rank": rank,
        "world_size": 2,
        "local_rank": rank,
        "local_world_size": 2,
        "node_rank": 0,
        "metric": "loss",
        "send": lambda metrics, checkpoint, **options: sent.append((metrics, checkpoint)),
        "find": lambda: None,
    }
    return TrainingSession(**{**fields, **changes}), sent


def test_rank_0s_reports_carry_their_number(tmp_path: Path) -> None:
    session, sent = make(tmp_path)
    session.report({"loss": np.float32(0.5), "curve": [1, 2]}, "c")
    session.report({"loss": 0.25})
    assert [(metrics["loss"], metrics[STEP_KEY], checkpoint) for metrics, checkpoint in sent] == [
        (0.5, 1, "c"),
        (0.25, 2, None),
    ]
    assert "curve" in sent[1][0]["raynode_outputs"], "an output stands until it is given anew"


def test_other_ranks_need_no_metric_and_write_no_outputs(tmp_path: Path) -> None:
    session, sent = make(tmp_path, rank=1)
    session.report({"curve": [1, 2]})
    assert sent == [({}, None)]
    assert session.finish(object()) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"los": 1.0},
            "rank 0, whose reports count: the training's metric 'loss' was not reported .did you mean 'los'",
        ),
        ({"loss": "low"}, "must be a number"),
        ({"loss": 1.0, "training_iteration": 3}, "which Ray itself counts"),
        ([1.0], "takes a dict of metrics"),
    ],
)
def test_a_report_that_cannot_be(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(RayNodeError, match=message):
        make(tmp_path)[0].report(values)


def test_what_rank_0_returns(tmp_path: Path) -> None:
    session, _ = make(tmp_path)
    session.report({"loss": 0.5})
    ended = session.finish({"model": [1]})
    assert ended is not None
    assert (ended["step"], ended["metrics"], list(ended["outputs"])) == (1, {"loss": 0.5}, ["model"])
    session, _ = make(tmp_path)
    session.report({"loss": 0.5})
    ended = session.finish({"accuracy": 0.9})
    assert ended is not None
    assert (ended["step"], ended["metrics"]) == (2, {"loss": 0.5, "accuracy": 0.9}), "metrics of its own are a report"
    alone = make(tmp_path)[0].finish(0.125)
    assert alone is not None
    assert (alone["step"], alone["metrics"]) == (1, {"loss": 0.125})
    for returned, message in ((None, "returned nothing and reported nothing"), ({"x": 1}, "was not reported")):
        with pytest.raises(RayNodeError, match=message):
            make(tmp_path)[0].finish(returned)
    with pytest.raises(RayNodeError, match=r"the function returned a .*float"):
        make(tmp_path, metric=None)[0].finish(0.5)
    with pytest.raises(RayNodeError, match="did not return 'model'"):
        make(tmp_path, returns=(pickled("model"),))[0].finish({"loss": 1.0})


def test_what_was_reported_before_the_checkpoint_stands(tmp_path: Path) -> None:
    last = Counted(step=7, time_total_s=100.0, metrics={"loss": 0.1}, outputs={"model": {"uri": "m"}})
    session, sent = make(tmp_path, origin=Origin(last=last, checkpoint="c"), returns=(pickled("model"),))
    ended = session.finish(None)
    assert ended is not None
    assert (ended["step"], ended["metrics"], ended["outputs"]) == (7, {"loss": 0.1}, {"model": {"uri": "m"}})
    assert ended["time_total_s"] >= 100
    session.report({"loss": 0.05})
    assert sent[0][0][STEP_KEY] == 8
