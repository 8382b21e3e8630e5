"""Which error of several ranks is told, and in which words."""

from __future__ import annotations

import time

import pytest

ray_exceptions = pytest.importorskip("ray.exceptions")

from ray.cloudpickle import dumps, loads  # noqa: E402
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError  # noqa: E402
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError  # noqa: E402

from airflow_provider_raynode.exceptions import RayNodeError  # noqa: E402
from airflow_provider_raynode.runtime.training.failure import (  # noqa: E402
    RankDiedError,
    RankError,
    failure_of_rank,
    failure_of_training,
    is_collateral,
)
from airflow_provider_raynode.spec import NodeFailure  # noqa: E402

LOW = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.3) where the "
    "lease (actor ID: 2a, name=RayTrainWorker.__init__, pid=7) was running was 15.2GB / 16.0GB"
)
GONE = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file."
)


def own(rank: int, kind: str, message: str, at: float = 0.0) -> RankError:
    failure = NodeFailure(type=kind, message=message, rank=rank)
    return RankError(failure.to_bytes().decode(), at or time.time())


def died(rank: int, error: Exception) -> RankDiedError:
    return RankDiedError("A worker health check failed.", error).of(rank, 3, "10.0.0.3, pid 7")


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.3]:4242"


def cause(errors: dict[int, Exception]) -> NodeFailure:
    return failure_of_training(loads(dumps(WorkerGroupError("Ray's words", errors))))


def test_the_process_that_died_before_those_that_it_left_behind() -> None:
    failure = cause(
        {0: own(0, "RuntimeError", GLOO), 1: died(1, ray_exceptions.RayActorError(None, GONE, False, False))}
    )
    assert (failure.type, failure.rank) == ("WorkerDied", 1)
    assert failure.message.startswith("the process of rank 1 (on 10.0.0.3, pid 7) ended after report 3: it crashed")


def test_an_own_error_before_a_death_and_the_first_of_several() -> None:
    failure = cause({
        0: own(0, "ValueError", "late", at=20.0),
        1: died(1, ray_exceptions.RayActorError(None, GONE, False, False)),
        2: own(2, "KeyError", "early", at=10.0),
    })  # fmt: skip
    assert (failure.type, failure.rank) == ("KeyError", 2)


def test_only_what_others_caused() -> None:
    assert cause({0: own(0, "RuntimeError", GLOO)}).rank == 0


def test_killed_for_memory_says_what_to_do() -> None:
    failure = cause({1: died(1, ray_exceptions.OutOfMemoryError(LOW))})
    assert failure.type == "OutOfMemory"
    assert "low on memory" in failure.message
    assert "resources_per_worker: {memory: …}" in failure.message
    assert failure.traceback == LOW


def test_rays_own_errors_without_ours() -> None:
    plain = WorkerHealthCheckFailedError(
        "A worker health check failed.", ray_exceptions.RayActorError(None, GONE, False, False)
    )
    assert failure_of_rank(2, plain).message.startswith("the process of rank 2 ended: it crashed")
    told = failure_of_rank(0, ValueError("as raised"))
    assert (told.type, told.message, told.rank) == ("ValueError", "as raised", 0)


def test_errors_of_the_controller() -> None:
    class OursError(RayNodeError):
        pass

    failure = failure_of_training(ControllerError(OursError("the ranks disagree")))
    assert (failure.type, failure.message) == ("OursError", "the ranks disagree")
    failure = failure_of_training(ray_exceptions.RayActorError(None, GONE, False, False))
    assert failure.type == "ControllerDied"


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("RuntimeError", GLOO, True),
        ("DistBackendError", "NCCL error", True),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer", True),
        ("RuntimeError", "Timed out waiting 8000ms for recv operation to complete", True),
        ("ValueError", "no such column", False),
        ("RankHangs", "rank 1 does not come: connection reset", False),
    ],
)
def test_collateral(kind: str, message: str, expected: bool) -> None:
    assert is_collateral(own(0, kind, message)) is expected
