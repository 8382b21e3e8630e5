"""What `raynode run` and `raynode show` write of each kind of node."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from airflow_provider_raynode.record import RunRecord
from airflow_provider_raynode.run.display import RunDisplay
from airflow_provider_raynode.run.records import _done, _facts
from airflow_provider_raynode.run.results import _show
from airflow_provider_raynode.spec import CodeIdentity, JobRef, MapEnd, NodeProgress, TrainingEnd, TrainingProgress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = {"uri": "s3://b/x.pkl", "kind": "pickled", "size": 1, "sha256": "0" * 64}
JOB = JobRef(
    launcher="local",
    submission_id="raynode-d-n-0-a1",
    attempt=1,
    address="local",
    spec_uri="s",
    spec_sha256="0" * 64,
    catalog_uri="c",
    node_prefix="c/d/r/n/-1",
)
SNAPSHOTS: dict[str, dict[str, Any]] = {
    "training": {
        "training": TrainingProgress(step=7, steps=9, metrics={"loss": 0.5}, best_step=5, best_metrics={"loss": 0.25}),
        "metric": "loss",
        "mode": "min",
    },
    "map": {"total": 9, "terminated": 5, "errored": 1},
    "function": {},
}
EXPECTED = {
    "training": ["step 7/9", "loss 0.5", "loss 0.25 (step 5)"],
    "map": ["6/9 items", "1 failed"],
    "function": ["running"],
}


@pytest.mark.parametrize("work", list(SNAPSHOTS))
@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_of_a_running_node(work: str, terminal: bool) -> None:
    display = RunDisplay(io.StringIO(), width=150)
    display.console = Console(file=io.StringIO(), width=150, force_terminal=terminal, highlight=False, no_color=True)
    display.start(["n.run"], "a run")
    display.task_started("n.run", None)
    progress = NodeProgress(work=work, phase="running", updated=NOW, **SNAPSHOTS[work])
    display.progress(JOB, progress)
    if terminal:
        display.console.print(display)
    display.stop()
    written = display.console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in written for text in EXPECTED[work]), written
    assert ("ETA" in written) == (work != "function")


@pytest.mark.parametrize(
    ("output", "texts"),
    [
        (
            {
                "metrics": {"loss": 0.5},
                "best_metrics": {"loss": 0.25},
                "steps": REFERENCE,
                "training": {"ending": "stop_rule", "reports": 7, "best_step": 5},
            },
            ["training stop rule after 7 reports, best report 5", "last metric", "best metric", "loss", "0.25"],
        ),
        (
            {"best_metrics": None, "training": {"ending": "finished", "reports": 0, "best_step": None}},
            ["training finished after 0 reports\n"],
        ),
        ({"value": {"mean": 4}, "metrics": {"rows": 3}}, ["the function has returned", "{'mean': 4}", "rows"]),
        ({"value": None, "metrics": {}}, ["the function has returned"]),
        (
            {"results": REFERENCE, "failed": list(range(50)), "items": {"items": 99, "succeeded": 49, "failed": 50}},
            ["49 of 99 items done, 50 failed (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)"],
        ),
    ],
)
def test_the_results_page(output: dict[str, Any], texts: list[str]) -> None:
    file = io.StringIO()
    _show(Console(file=file, width=200, highlight=False), "n", {**output, "outputs": {}, "run_record": REFERENCE})
    assert all(text in file.getvalue() for text in texts), file.getvalue()


def record(**fields: Any) -> RunRecord:
    return RunRecord(
        dag_id="d",
        run_id="r",
        node_id="n",
        attempt=2,
        submission_id="s",
        launcher="local",
        address="local",
        outcome="succeeded",
        spec={"uri": "s", "sha256": "0" * 64},
        code=CodeIdentity(),
        search_of=1,
        ended=NOW,
        files="f",
        **fields,
    )


def test_the_facts_of_a_record() -> None:
    training = record(
        work="training",
        metric="loss",
        best_metrics={"loss": 0.25},
        best_step=5,
        metrics={"loss": 0.5},
        training=TrainingEnd(world_size=2, reports=7, ending="time_budget", reason="60 s are over", resumed_from=3),
    )
    facts = dict(_facts(training))
    assert facts["training"] == "7 reports on 2 workers"
    assert facts["ended as"] == "time_budget: 60 s are over"
    assert facts["best"] == "loss 0.25 (report 5)"
    assert facts["went on with"] == "the training of attempt 1, from its report 3"
    assert _done(training) == "7 reports"
    items = MapEnd(items=9, succeeded=7, failed=2, ending="all_items")
    mapped = record(work="map", items=items, failed=(1, 4), restored=3)
    assert dict(_facts(mapped))["items"] == "7 of 9 done, 2 failed (1, 4)"
    assert dict(_facts(mapped))["went on with"] == "the map of attempt 1, 3 items finished"
    assert _done(mapped) == "7 of 9 items (2 failed)"
    assert dict(_facts(record(work="function", value=[1])))["value"] == "[1]"
    assert _done(record(work="function")) == "-"
    assert "trials" in dict(_facts(record()))
