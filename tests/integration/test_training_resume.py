"""A training whose driver was killed or stopped goes on from its last whole checkpoint; one that has ended does not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_attempts import Node

from airflow_provider_raynode import context, get_checkpoint, report

pytestmark = pytest.mark.ray

TRAIN = {
    "scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}},
    "metric": "loss",
    "mode": "min",
    "stop": {"training_iteration": 8},
}


def fit(folder: str) -> dict[str, Any]:
    import time

    begun = (get_checkpoint() or {"step": 0})["step"]
    with Path(folder, f"rank-{context().rank}").open("a") as file:
        file.write(f"{begun}\n")
    for step in range(begun, 8):
        while step >= 5 and not Path(folder, "go on").exists():
            time.sleep(0.05)
        report({"loss": 1 / (step + 1)}, checkpoint={"step": step + 1} if step % 2 else None)
    return {"weights": [1, 2]}


def at_step(node: Node, step: int) -> Callable[[], bool]:
    def reached() -> bool:
        progress = node.progress()
        return progress is not None and progress.training is not None and progress.training.step >= step

    return reached


def test_a_killed_driver_and_a_stopped_one(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    node = Node(tmp_path, fit, ray_train=TRAIN, op_kwargs={"folder": str(marks)})
    log = node.run(until=at_step(node, 5))
    progress = node.progress()
    assert progress is not None
    assert progress.training is not None
    assert (progress.training.step, progress.training.steps, progress.training.workers) == (5, 8, 2), log
    # What a rank had given of a checkpoint that the others had not yet.
    [driver] = node.catalog.list(f"{node.spec.experiment_prefix}/{node.spec.experiment_name}")[:1]
    leftover = Path(driver.rstrip("/"), "checkpoint_000006-half")
    leftover.mkdir()
    (leftover / "raynode_object.pkl").write_bytes(b"half of")

    node.next_attempt()
    node.run(until=at_step(node, 5), number=signal.SIGTERM)
    assert not leftover.exists()
    stopped = node.result
    assert stopped.failure is not None
    assert stopped.failure.type == "Stopped"
    assert stopped.training is not None
    assert (stopped.training.ending, stopped.training.reports, stopped.training.resumed_from) == ("stopped", 5, 4)

    (marks / "go on").touch()
    node.next_attempt()
    log = node.run()
    result = node.result
    assert result.state == "SUCCEEDED", log
    assert "going on from report 4" in log
    assert result.training is not None
    # It comes to the bound in the loop, and does not return.
    assert (result.training.ending, result.training.reports, result.training.resumed_from) == ("stop_rule", 8, 4)
    assert result.metrics == {"loss": 1 / 8}
    assert (result.best_step, result.best_metrics) == (8, {"loss": 1 / 8})
    steps = node.catalog.load(result.steps or {})
    assert list(steps["training_iteration"]) == list(range(1, 9)), "no gap, and no step twice"
    assert list(steps["loss"]) == [1 / step for step in range(1, 9)]
    assert list(steps["time_total_s"]) == sorted(steps["time_total_s"])
    assert node.catalog.load(result.outputs["checkpoint"]) == {"step": 8}
    begun = {rank: (marks / f"rank-{rank}").read_text().split() for rank in (0, 1)}
    assert begun == {0: ["0", "4", "4"], 1: ["0", "4", "4"]}

    # Killed before its result was sealed, say: the training has ended, and is not run again.
    node.catalog.delete(f"{node.job.attempt_prefix}/result.json")
    node.next_attempt()
    node.run()
    again = node.result
    assert (again.metrics, again.outputs, again.training) == (result.metrics, result.outputs, result.training)
    assert (marks / "rank-0").read_text().split() == ["0", "4", "4"]
