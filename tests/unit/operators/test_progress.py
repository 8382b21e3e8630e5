"""The progress table and its pace."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_raynode.operators import _progress
from airflow_provider_raynode.operators._progress import Pace, bar, clock, headline, table
from airflow_provider_raynode.spec import Best, NodeProgress, TrainingProgress


def snapshot(**fields: object) -> NodeProgress:
    base = {"phase": "running", "metric": "accuracy", "mode": "max", "updated": datetime(2026, 1, 1, tzinfo=UTC)}
    return NodeProgress.model_validate(base | fields)


def test_table_shows_counts_best_and_eta() -> None:
    best = Best(trial_id="t7", config={"lr": 0.00123456, "size": 64}, metrics={"accuracy": 0.98765432})
    lines = table(
        snapshot(total=20, terminated=5, running=2, errored=1, pending=12, elapsed_s=61, eta_s=3725, best=best)
    )
    assert lines[0].split() == ["trials", "done", "running", "pending", "failed", "of", "elapsed", "ETA"]
    assert lines[1].split() == ["5", "2", "12", "1", "20", "1:01", "1:02:05"]
    assert lines[2] == "best    accuracy 0.98765 (trial t7: lr=0.0012346, size=64)"
    assert len(lines[0]) == len(lines[1])


def test_table_before_the_first_result() -> None:
    lines = table(snapshot(total=None))
    assert "?" in lines[1]
    assert lines[2] == "best    -"


def test_each_line_of_the_table_stands_out_in_a_log() -> None:
    shown = _progress.lines(snapshot(total=3))
    assert [line.removeprefix("progress | ") for line in shown] == table(snapshot(total=3))
    assert all(line.startswith("progress | ") for line in shown)


@pytest.mark.parametrize(("seconds", "text"), [(None, "-"), (0, "0:00"), (59.6, "1:00"), (3600, "1:00:00")])
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_pace_shows_news_only_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    pace = Pace(first_s=5, last_s=60)
    assert pace.due(snapshot(terminated=1))
    assert not pace.due(snapshot(terminated=1))
    now[0] += 1
    assert not pace.due(snapshot(terminated=2))
    now[0] += 5
    assert pace.due(snapshot(terminated=2))
    now[0] += 5
    assert not pace.due(snapshot(terminated=3)), "the distance grows"
    assert pace.due(snapshot(phase="done", terminated=3)), "the end is always shown"


def test_a_long_search_prints_few_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    pace = Pace()
    shown = 0
    for second in range(8 * 3600):
        now[0] = second
        shown += pace.due(snapshot(terminated=second))
    assert shown < 300


def test_a_training_shows_steps_metrics_and_workers() -> None:
    training = TrainingProgress(
        step=7,
        steps=50,
        metrics={"epoch": 7, "accuracy": 0.91, "note": "x" * 500, **{f"m{n}": n for n in range(20)}},
        best_step=5,
        best_metrics={"accuracy": 0.93},
        workers=2,
        restarts=1,
    )
    shown = snapshot(work="training", training=training, elapsed_s=61, eta_s=3725)
    lines = table(shown)
    assert lines[0].split() == ["training", "step", "of", "workers", "restarts", "elapsed", "ETA"]
    assert lines[1].split() == ["7", "50", "2", "1", "1:01", "1:02:05"]
    assert lines[2].startswith("now       accuracy 0.91, epoch 7, note xxxx")
    assert lines[2].endswith(", …")
    assert lines[3] == "best      accuracy 0.93 (step 5)"
    assert max(map(len, lines)) < 200
    assert headline(shown) == "step 7/50, 2 workers, 1 restarts"
    assert bar(shown) == (7, 50)


def test_a_training_without_metric_or_known_length() -> None:
    shown = snapshot(work="training", metric=None, mode=None, training=TrainingProgress(step=3, workers=1))
    assert [line.split()[0] for line in table(shown)] == ["training", "3", "now"]
    assert headline(shown) == "step 3, 1 workers"
    assert bar(shown) == (3, None)
    starting = snapshot(work="training", phase="starting")
    assert table(starting)[1].split() == ["0", "?", "0", "0:00", "-"]


def test_a_map_counts_items_and_a_function_only_its_time() -> None:
    shown = snapshot(work="map", metric=None, mode=None, total=9, terminated=5, running=2, errored=1, pending=1)
    assert table(shown)[0].split()[:2] == ["items", "done"]
    assert len(table(shown)) == 2
    assert headline(shown) == "6/9 items, 2 running, 1 failed"
    function = snapshot(work="function", metric=None, mode=None, elapsed_s=5)
    assert [line.split() for line in table(function)] == [["function", "phase", "elapsed"], ["running", "0:05"]]


def test_each_report_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    pace = Pace(first_s=5)
    assert pace.due(snapshot(work="training", training=TrainingProgress(step=1)))
    now[0] += 6
    assert not pace.due(snapshot(work="training", training=TrainingProgress(step=1), elapsed_s=6))
    assert pace.due(snapshot(work="training", training=TrainingProgress(step=2)))
