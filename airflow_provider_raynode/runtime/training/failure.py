"""Why a training failed: of the errors of several ranks the first cause, in words, with its rank and machine."""

from __future__ import annotations

import re
import traceback
from typing import Any, Self

from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.failures import describe, end_of_process, error_of_search
from airflow_provider_raynode.spec import NodeFailure

# What a rank's library says when another rank is gone, or does not come.
_COLLATERAL = re.compile(
    r"gloo|nccl|c10d|TCPStore|process group|socket|rabit|tracker|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe"
    r"|[Tt]imed out waiting|LightGBMError: .*(Socket|linkers)"
)
_COLLATERAL_TYPES = (
    "ConnectionResetError", "ConnectionAbortedError", "ConnectionRefusedError", "BrokenPipeError", "EOFError",
    "DistBackendError", "DistNetworkError", "DistStoreError",
)  # fmt: skip
_MEMORY = (
    "Give the workers more (resources_per_worker: {memory: …} keeps as many from one machine), load less at once, or "
    "take machines with more memory"
)


class RankError(RayNodeError):
    """A rank's own error as it leaves the worker: in words, since Ray may not be able to pass on what was raised.

    :param data: a NodeFailure as JSON.
    :param at: when it was raised, in seconds since the epoch: of several the first is the cause.
    """

    def __init__(self, data: str, at: float) -> None:
        super().__init__(data, at)
        self.at = at

    @property
    def failure(self) -> NodeFailure:
        """What went wrong."""
        return NodeFailure.from_bytes(self.args[0].encode())

    def __str__(self) -> str:
        failure = self.failure
        return f"rank {failure.rank}: {failure.type}: {failure.message}\n{failure.traceback}".rstrip()


class RankDiedError(WorkerHealthCheckFailedError):
    """A rank whose process is gone: Ray's own error, which its failure policy knows, with what is known of the rank."""

    rank, reports, where = 0, 0, ""

    def of(self, rank: int, reports: int, where: str) -> Self:
        """Say which one it was, and how far it had come."""
        self.rank, self.reports, self.where = rank, reports, where
        return self

    def __reduce__(self) -> Any:
        return _died, (self._message, self.health_check_failure, self.rank, self.reports, self.where)


def _died(message: str, failure: Exception, rank: int, reports: int, where: str) -> RankDiedError:
    return RankDiedError(message, failure).of(rank, reports, where)


def failure_of_training(error: BaseException) -> NodeFailure:
    """Return why a training failed.

    :param error: what Ray's `fit()` raised.
    """
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        rank = min(error.worker_failures, key=lambda each: causes(each, error.worker_failures[each]))
        return failure_of_rank(rank, error.worker_failures[rank])
    if isinstance(error, ControllerError):
        return _of_controller(error.controller_failure)
    if isinstance(error, PreemptionError):
        ranks = ", ".join(map(str, error.preemption_info.preempted_ranks))
        return NodeFailure(
            type="Preempted",
            message=f"the machine of rank {ranks} was taken away, more often than failure.max_preemption_failures lets",
        )
    if isinstance(error, RayActorError):
        end = end_of_process(str(error))
        how = f": {end[1]}" if end is not None else ""
        return NodeFailure(
            type="ControllerDied",
            message=f"the training's controller, a process of Ray's, is gone{how}",
            traceback=str(error),
        )
    return error_of_search(error)


def causes(rank: int, error: BaseException) -> tuple[int, float, int]:
    """Return what orders the errors of several ranks: the first one is the cause.

    A rank's own error stands before the end of a process, and that before what says that another rank is gone.
    """
    died = isinstance(error, WorkerHealthCheckFailedError)
    kind = 2 if is_collateral(error) else 1 if died else 0
    return kind, error.at if isinstance(error, RankError) else float("inf"), rank


def is_collateral(error: BaseException) -> bool:
    """Return whether a rank's error says no more than that another rank is gone or late."""
    if isinstance(error, WorkerHealthCheckFailedError | WorkerHealthCheckTimeoutError):
        return False
    failure = failure_of_rank(0, error)
    if failure.type == "RankHangs":
        return False
    return failure.type in _COLLATERAL_TYPES or _COLLATERAL.search(f"{failure.type}: {failure.message}") is not None


def failure_of_rank(rank: int, error: BaseException) -> NodeFailure:
    """Return the failure of one rank."""
    if isinstance(error, RankError):
        return error.failure
    if isinstance(error, WorkerHealthCheckFailedError):
        return _of_death(rank, error)
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return NodeFailure(
            type="RankHangs", message=f"the process of rank {rank} does not answer Ray any more: {error}", rank=rank
        )
    told = describe(error, rank=rank)
    # What was raised elsewhere has lost its frames on the way.
    return told if told.traceback else told.model_copy(update={"traceback": _shown(error)})


def _of_death(rank: int, error: WorkerHealthCheckFailedError) -> NodeFailure:
    text = str(error.health_check_failure)
    kind, words = end_of_process(text) or ("WorkerDied", "Ray does not say why")
    if kind == "OutOfMemory":
        words = f"{words}. {_MEMORY}"
    after, where = "", ""
    if isinstance(error, RankDiedError):
        after = f" after report {error.reports}" if error.reports else " before its first report"
        where = f" (on {error.where})" if error.where else ""
    return NodeFailure(
        type=kind, message=f"the process of rank {rank}{where} ended{after}: {words}", traceback=text, rank=rank
    )


def _of_controller(error: BaseException) -> NodeFailure:
    own = _own(error)
    if own is not None:
        return NodeFailure(type=type(own).__name__, message=str(own))
    died = next((each for each in (error, error.__cause__) if isinstance(each, RayActorError)), None)
    end = end_of_process(str(died)) if died is not None else None
    message = str(error) if end is None else f"a worker's process ended while it started: {end[1]}"
    return NodeFailure(type=type(error).__name__, message=message, traceback=_shown(error))


def _own(error: BaseException) -> RayNodeError | None:
    """Return our own error in one of Ray's, where there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RayNodeError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _shown(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error).format())
