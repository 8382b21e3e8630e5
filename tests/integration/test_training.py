"""`ray_train` on a real Ray: what ranks report and return, their checkpoints, what fails and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driven import Ran

from airflow_provider_raynode import context, get_checkpoint, pickled, report
from airflow_provider_raynode.spec import NodeProgress

pytestmark = pytest.mark.ray

BEST = {"metric": "accuracy", "mode": "max"}


def test_reports_outputs_and_the_best_checkpoint(train: Callable[..., Ran]) -> None:
    def fit(scale: int, data: list[int], note: str = "default") -> dict[str, Any]:
        where = context()
        assert (where.world_size, where.local_world_size, where.node_rank) == (2, 2, 0)
        assert where.rank == where.local_rank
        assert get_checkpoint() is None
        for step in range(4):
            # Rank 1's values do not count.
            report({"accuracy": [1, 5, 3, 2][step] * scale - where.rank}, checkpoint={"step": step})
        return {"model": [sum(data), where.rank], "note": note}

    ran = train(fit, BEST, op_kwargs={"scale": 10, "data": [1, 2, 3]}, returns=[pickled("model")])
    assert ran.code == 0
    result = ran.result
    assert result.metrics == {"accuracy": 20, "note": "default"}
    assert (result.best_step, result.best_metrics) == (2, {"accuracy": 50})
    assert ran.output("model") == [6, 0]
    assert ran.output("checkpoint") == {"step": 1}
    assert result.training is not None
    assert (result.training.world_size, result.training.reports, result.training.ending) == (2, 5, "finished")
    steps = ran.node.load(result.steps or {})
    assert list(steps["training_iteration"]) == [1, 2, 3, 4, 5]
    assert list(steps["accuracy"]) == [10, 50, 30, 20, 20]
    progress = NodeProgress.from_bytes(ran.node.read_bytes(f"{ran.job.attempt_prefix}/progress.json"))
    assert (progress.work, progress.phase, progress.metric) == ("training", "done", "accuracy")
    assert progress.training is not None
    assert (progress.training.step, progress.training.best_step, progress.training.workers) == (5, 2, 2)


def test_a_function_that_returns_without_a_report(train: Callable[..., Ran]) -> None:
    ran = train(lambda: {"accuracy": 0.5, "weights": [1, 2]}, BEST)
    assert ran.result.metrics == {"accuracy": 0.5}
    assert ran.output("weights") == [1, 2]
    assert ran.result.training is not None
    assert ran.result.training.reports == 1


def test_nothing_returned_and_nothing_reported(train: Callable[..., Ran]) -> None:
    failure = train(lambda: None, BEST).failure
    assert "returned nothing and reported nothing" in failure.message
    assert failure.rank == 0


def test_rays_own_functions_in_the_same_function(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        import tempfile
        from pathlib import Path

        import ray.train

        rank = ray.train.get_context().get_world_rank()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"part-{rank}.txt").write_text(str(rank))
            ray.train.report({"accuracy": 1.5}, checkpoint=ray.train.Checkpoint.from_directory(folder))
        report({"accuracy": 2.5})

    ran = train(fit, BEST)
    assert ran.result.metrics == {"accuracy": 2.5}
    assert sorted(path.name for path in ran.output("checkpoint").iterdir()) == ["part-0.txt", "part-1.txt"]
    assert "the best report, 2, came without a checkpoint" in ran.result.warnings[0]


def test_a_rank_that_raises_is_named(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        report({"accuracy": 1})
        if context().rank == 1:
            raise ValueError("no good")
        report({"accuracy": 2})

    failure = train(fit, BEST).failure
    assert failure.type == "ValueError"
    assert failure.message == "rank 1 of 2 failed: no good"
    assert failure.rank == 1
    assert "raise ValueError" in failure.traceback


def test_rank_0_without_the_metric(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        report({"accuracy": 1} if context().rank == 1 else {"acuracy": 1})

    failure = train(fit, BEST).failure
    assert "rank 0, whose reports count" in failure.message
    assert "did you mean 'acuracy'" in failure.message


def test_what_the_node_declares_and_a_stop_rule_cut_off(train: Callable[..., Ran]) -> None:
    def fit() -> dict[str, Any]:
        for step in range(5):
            report({"accuracy": step})
        return {"model": [1]}

    stopped = {**BEST, "stop": {"accuracy": 2}}
    assert train(fit, stopped, returns=["model"]).failure.type == "MissingOutput"
    ran = train(fit, stopped)
    assert ran.result.training is not None
    assert (ran.result.training.ending, ran.result.training.reports) == ("stop_rule", 3)
    assert ran.result.metrics == {"accuracy": 2}


def test_a_worker_that_is_killed_goes_on_from_the_checkpoint(train: Callable[..., Ran], tmp_path: Path) -> None:
    def fit(folder: str) -> None:
        import os
        import signal

        begun = get_checkpoint() or {"step": 0}
        with Path(folder, f"rank-{context().rank}").open("a") as file:
            file.write(f"{begun['step']}\n")
        for step in range(begun["step"], 6):
            if step == 4 and context().rank == 1 and begun["step"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            checkpoint = {"step": step + 1} if step % 2 == 1 else None
            report({"accuracy": step, "start": begun["step"]}, checkpoint=checkpoint)

    ran = train(fit, {**BEST, "failure": {"max_failures": 1}}, op_kwargs={"folder": str(tmp_path)})
    assert ran.code == 0, ran.result.failure
    steps = ran.node.load(ran.result.steps or {})
    assert list(steps["training_iteration"]) == [1, 2, 3, 4, 5, 6], "no gap, and no step twice"
    assert list(steps["accuracy"]) == [0, 1, 2, 3, 4, 5]
    # Rank 1's part of the second checkpoint was taken before it died, or not.
    start = list(steps["start"])[-1]
    assert start in (2, 4)
    assert list(steps["start"]) == [0] * start + [start] * (6 - start)
    assert list(steps["time_total_s"]) == sorted(steps["time_total_s"])
    assert ran.result.training is not None
    assert (ran.result.training.restarts, ran.result.training.reports) == (1, 6)
    for rank in (0, 1):
        assert (tmp_path / f"rank-{rank}").read_text().split() == ["0", str(start)], "every rank has the checkpoint"


def test_gradients_are_averaged(train: Callable[..., Ran]) -> None:
    """Two workers on the halves of each batch learn what one learns on the whole of it."""
    pytest.importorskip("torch")

    def fit() -> dict[str, Any]:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        run = context()
        torch.manual_seed(3)
        network: Any = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1)).double()
        if run.world_size > 1:
            network = DistributedDataParallel(network)
        x, y = torch.randn(64, 5).double(), torch.randn(64, 1).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for begin in range(0, 64, 16):
            rows = torch.arange(begin, begin + 16)[run.rank :: run.world_size]
            optimizer.zero_grad()
            loss = ((network(x[rows]) - y[rows]) ** 2).mean()
            loss.backward()
            optimizer.step()
            report({"accuracy": float(loss)})
        weights = [float(value) for each in network.parameters() for value in each.detach().flatten()]
        return {"weights": weights}

    one = {"scaling": {"num_workers": 1, "resources_per_worker": {"CPU": 0.5}}}
    learnt = [train(fit, {**BEST, "trainer": "torch", **workers}).output("weights") for workers in ({}, one)]
    assert max(abs(two - single) for two, single in zip(*learnt, strict=True)) < 1e-6


def test_a_checkpoint_of_a_gigabyte(train: Callable[..., Ran]) -> None:
    def fit(size: int) -> dict[str, Any]:
        import resource
        import time

        import numpy as np

        saved = get_checkpoint()
        begin = 0 if saved is None else 1
        if saved is not None:
            data = np.memmap(saved / "weights.npy", dtype="uint8", mode="r")
            assert len(data) == size
            assert (data[0], data[size // 2], data[-1]) == (1, 2, 3)
        for step in range(begin, 2):
            if step == 1 and begin == 0:
                report({"accuracy": 0.5})  # rank 0 has given its part, and Ray has time to take it
                time.sleep(5)
                raise RuntimeError("once")
            folder = Path("checkpoint")
            folder.mkdir(exist_ok=True)
            if context().rank == 0:
                data = np.memmap(folder / "weights.npy", dtype="uint8", mode="w+", shape=(size,))
                data[0], data[size // 2], data[-1] = 1, 2, 3
                data.flush()
                del data
            report({"accuracy": step}, checkpoint=folder if context().rank == 0 else None)
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    section = {**BEST, "failure": {"max_failures": 1}, "checkpoint": {"num_to_keep": 1}}
    ran = train(fit, section, op_kwargs={"size": 1 << 30})
    assert ran.code == 0, ran.result.failure
    assert ran.result.outputs["checkpoint"]["size"] >= 1 << 30
    assert ran.result.metrics is not None
    assert ran.result.metrics["peak_mb"] < 1500, "a checkpoint is copied in pieces"
    assert ran.result.training is not None
    assert ran.result.training.restarts == 1
