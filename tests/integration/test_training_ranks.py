"""The ranks of a training together, on a real Ray: unequal reports, hangs, deaths, collateral errors, stop rules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest
from driven import Ran

from airflow_provider_raynode import context, report
from airflow_provider_raynode.spec import NodeFailure, TrainingEnd

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SOON = {"report_timeout_s": 2}


def end_of(ran: Ran) -> TrainingEnd:
    assert ran.result.training is not None, ran.result.failure
    return ran.result.training


# -- reports that do not fit each other ----------------------------------------------------------------------------


def test_a_rank_that_returns_early(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        for step in range(3 if context().rank == 1 else 5):
            report({"step": step})

    ran = train(fit)
    assert ran.failure.type == "RanksDisagreeError"
    assert ran.failure.message == (
        "rank 1 returned after 3 reports, rank 0 waits in its 4th report: every rank must call report the same number "
        "of times"
    )
    assert end_of(ran).ending == "incomplete"
    assert end_of(ran).reports == 3


@pytest.mark.parametrize("reporter", [0, 1])
def test_one_rank_alone_reports(train: Callable[..., Ran], reporter: int) -> None:
    def fit() -> None:
        report({"step": 0})
        if context().rank == reporter:
            report({"step": 1})

    # It would do so again each time: no failure that is tried again.
    failure = train(fit, {"failure": {"max_failures": -1}}).failure
    assert failure.message.startswith(
        f"rank {1 - reporter} returned after 1 report, rank {reporter} waits in its 2nd report"
    )


def test_rank_0_alone_does_not_report(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        if context().rank == 1:
            report({"step": 1})

    failure = train(fit).failure
    assert "rank 0 of 2 failed: the function returned nothing and reported nothing" in failure.message


def test_rays_own_report_by_one_rank_alone(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        import ray.train
        import ray.train.collective

        ray.train.report({"step": 1})
        if ray.train.get_context().get_world_rank() == 1:
            ray.train.report({"step": 2})

    assert "rank 0 returned after 1 report, rank 1 waits in its 2nd report" in train(fit).failure.message


def test_a_barrier_that_one_rank_does_not_come_to(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        import ray.train.collective

        report({"step": 1})
        if context().rank == 0:
            ray.train.collective.barrier()

    message = train(fit).failure.message
    assert "rank 1 returned after 1 report, rank 0 waits in ray.train.collective.barrier" in message


def test_a_report_that_meets_a_barrier(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        import ray.train.collective

        if context().rank == 0:
            report({"step": 1})
        else:
            ray.train.collective.barrier()

    assert "rank 1 made 0 reports, rank 0 made 1 report" in train(fit).failure.message


# -- ranks that fail -----------------------------------------------------------------------------------------------


def all_reduce(break_down: Callable[[], Any] | None = None, timeout_s: float = 60) -> None:
    """Meet the other rank in an all-reduce three times; rank 1 breaks down at the second."""
    import socket
    from datetime import timedelta

    import ray.train.collective
    import torch
    import torch.distributed

    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = ray.train.collective.broadcast_from_rank_zero(own.getsockname()[1])
    where = context()
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=where.rank,
        world_size=where.world_size,
        timeout=timedelta(seconds=timeout_s),
    )
    for step in range(3):
        tensor = torch.ones(2)
        if step == 1 and where.rank == 1 and break_down is not None:
            break_down()
        torch.distributed.all_reduce(tensor)
        report({"step": step, "sum": float(tensor.sum())})


def test_one_raises_while_the_other_waits_in_an_all_reduce(train: Callable[..., Ran]) -> None:
    pytest.importorskip("torch")
    failure = train(lambda: all_reduce(lambda: 1 / 0)).failure
    assert (failure.type, failure.rank) == ("ZeroDivisionError", 1)
    assert "all_reduce(lambda: 1 / 0)" in failure.traceback


def test_one_is_killed_while_the_other_waits_in_an_all_reduce(train: Callable[..., Ran]) -> None:
    """Rank 0's "connection closed by peer" is not the cause."""
    pytest.importorskip("torch")
    failure = train(lambda: all_reduce(lambda: os.kill(os.getpid(), 9))).failure
    assert (failure.type, failure.rank) == ("WorkerDied", 1)
    assert "SIGKILL" in failure.message


def test_one_hangs_while_the_other_waits_in_an_all_reduce(train: Callable[..., Ran]) -> None:
    pytest.importorskip("torch")
    failure = train(lambda: all_reduce(lambda: time.sleep(500), timeout_s=4)).failure
    assert "Timed out" in failure.message
    assert "rank 1 on " in failure.traceback
    assert "time.sleep(500)" in failure.traceback


def test_one_raises_while_the_other_waits_in_a_report(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        report({"step": 1})
        if context().rank == 0:
            raise KeyError("column")
        report({"step": 2})

    failure = train(fit).failure
    assert (failure.type, failure.rank) == ("KeyError", 0)


def test_an_error_that_cannot_be_pickled(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        class Odd(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        if context().rank == 1:
            raise Odd("odd one")
        report({"step": 1})

    failure = train(fit).failure
    assert (failure.type, failure.rank) == ("Odd", 1)
    assert "odd one" in failure.message


@pytest.mark.parametrize(
    ("leave", "kind", "text"),
    [
        (lambda: os._exit(3), "ProcessExit", "os._exit(3)"),
        (lambda: exec("import sys; sys.exit(0)"), "SystemExit", "SystemExit(0)"),
        (lambda: os.kill(os.getpid(), 9), "WorkerDied", "SIGKILL"),
    ],
    ids=["os._exit", "sys.exit", "kill"],
)
def test_a_rank_that_ends_its_process(
    train: Callable[..., Ran], leave: Callable[[], None], kind: str, text: str
) -> None:
    def fit() -> None:
        report({"step": 1})
        if context().rank == 1:
            leave()
        report({"step": 2})

    failure = train(fit).failure
    assert (failure.type, failure.rank) == (kind, 1)
    assert text in failure.message


def test_a_killed_rank_is_started_anew(train: Callable[..., Ran], tmp_path: Any) -> None:
    def fit() -> None:
        from airflow_provider_raynode import get_checkpoint

        begin = (get_checkpoint() or {"step": 0})["step"]
        for step in range(begin + 1, 5):
            if step == 3 and context().rank == 1 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), 9)
            report({"loss": 1 / step}, checkpoint={"step": step})

    ran = train(fit, {"failure": {"max_failures": 1}, "metric": "loss", "mode": "min"})
    assert ran.code == 0
    assert (end_of(ran).ending, end_of(ran).restarts, end_of(ran).reports) == ("finished", 1, 4)
    steps = ran.node.load(ran.result.steps or {})
    assert list(steps["loss"]) == [1, 1 / 2, 1 / 3, 1 / 4]


# -- ranks that hang -----------------------------------------------------------------------------------------------


def loop() -> None:
    while True:
        sum(range(1000))


def hold_pythons_lock() -> None:
    import re

    re.match(r"(a+)+$", "a" * 60 + "b")


def test_a_rank_in_an_endless_loop(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        report({"step": 1})
        if context().rank == 1:
            loop()
        report({"step": 2})

    failure = train(fit, SOON).failure
    assert (failure.type, failure.rank) == ("RankHangs", 1)
    assert "rank 1 does not come (report_timeout_s: 2 s): rank 0 has waited" in failure.message
    assert "in its 2nd report; rank 1 came last with its 1st report" in failure.message
    assert "sum(range(1000))" in failure.traceback


def test_a_rank_deep_in_native_code(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        if context().rank == 0:
            hold_pythons_lock()
        report({"step": 1})

    failure = train(fit, SOON).failure
    assert (failure.type, failure.rank) == ("RankHangs", 0)
    assert "native code" in failure.traceback
    assert "in hold_pythons_lock" in failure.traceback


def test_a_stopped_process_is_started_anew(train: Callable[..., Ran], tmp_path: Any) -> None:
    def fit() -> None:
        import signal

        if context().rank == 1 and not (tmp_path / "stopped").exists():
            # Ray has to hear first that the function runs: it waits for that without a limit.
            time.sleep(1.5)
            (tmp_path / "stopped").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        report({"step": 1})

    ran = train(fit, {**SOON, "failure": {"max_failures": 1}})
    assert ran.code == 0
    assert end_of(ran).restarts == 1
    # Nothing is left of the one that was stopped.
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int((tmp_path / "stopped").read_text())).wait(timeout=20)
    [told] = ran.node.list(f"{ran.job.attempt_prefix}/ranks/1")
    failure = NodeFailure.from_bytes(ran.node.read_bytes(told))
    assert "its process is stopped (SIGSTOP, or a debugger)" in failure.traceback


# -- processes and threads of the function's own -------------------------------------------------------------------


def test_forked_processes_and_threads_are_left(train: Callable[..., Ran], tmp_path: Any) -> None:
    def fit() -> dict[str, Any]:
        import threading

        for daemon in (True, False):
            threading.Thread(target=time.sleep, args=(300,), daemon=daemon).start()
        child = os.fork()
        if child == 0:
            return {}  # as in a script, it ends where it comes out of the function
        os.waitpid(child, 0)
        sleeper = os.fork()
        if sleeper == 0:
            time.sleep(300)
            os._exit(0)
        (tmp_path / str(context().rank)).write_text(str(sleeper))
        report({"step": 1})
        return {"step": 2}

    ran = train(fit)
    assert ran.code == 0
    assert ran.result.metrics == {"step": 2}
    pids = [int((tmp_path / str(rank)).read_text()) for rank in range(2)]
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, pids))


def test_a_report_from_a_forked_process(train: Callable[..., Ran], tmp_path: Any) -> None:
    def fit() -> None:
        child = os.fork()
        if child == 0:
            try:
                report({"step": 0})
            except Exception as error:
                (tmp_path / f"error-{context().rank}").write_text(str(error))
            return
        os.waitpid(child, 0)
        report({"step": 1})

    ran = train(fit)
    assert ran.code == 0
    assert end_of(ran).reports == 1
    assert "in a process that the function forked" in (tmp_path / "error-1").read_text()


# -- a training that stops by itself -------------------------------------------------------------------------------


def test_a_stop_rule_ends_every_rank_at_the_same_report(train: Callable[..., Ran], tmp_path: Any) -> None:
    def fit() -> None:
        for step in range(1, 100):
            (tmp_path / str(context().rank)).write_text(str(step))
            try:
                # Rank 1's own values would stop it at once.
                report({"loss": 1 / step if context().rank == 0 else 0.0})
            except Exception:  # a function that guards its step does not hold it up
                continue

    ran = train(fit, {"metric": "loss", "mode": "min", "stop": {"loss": 0.25}})
    assert ran.code == 0
    end = end_of(ran)
    assert (end.ending, end.reports) == ("stop_rule", 4)
    assert end.reason == "loss = 0.25 <= 0.25 (stop) at report 4"
    assert ran.result.metrics == {"loss": 0.25}
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["4", "4"]


def test_a_number_of_reports_for_rays_own_report(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        import ray.train

        while True:
            ray.train.report({"loss": 1.0})

    ran = train(fit, {"stop": {"training_iteration": 3}})
    assert (end_of(ran).ending, end_of(ran).reports) == ("stop_rule", 3)


def test_a_time_budget(train: Callable[..., Ran]) -> None:
    def fit() -> None:
        while True:
            time.sleep(0.2)
            report({"loss": 1.0})

    ran = train(fit, {"time_budget_s": 2})
    end = end_of(ran)
    assert end.ending == "time_budget"
    assert end.reason == f"time_budget_s (2 s) was spent at report {end.reports}"


def test_a_function_that_catches_its_end(train: Callable[..., Ran]) -> None:
    def fit() -> dict[str, Any]:
        for _ in range(5):
            with suppress(BaseException):
                report({"loss": 1.0})
        return {"loss": 2.0}

    ran = train(fit, {"stop": {"training_iteration": 2}})
    assert (end_of(ran).ending, end_of(ran).reports) == ("stop_rule", 2)
    assert ran.result.metrics == {"loss": 1.0}
