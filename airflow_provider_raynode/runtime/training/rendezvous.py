"""Watches the ranks of a training from Ray's controller: what can never meet ends with an error that names the ranks.

Ray's `report` and its collectives wait, without a limit, until every rank has come. The controller polls each worker
anyway; here it also asks them how often they have met the others. A rank that has returned comes no more, one that is
late for too long hangs, and a rank's error is told before those that it causes in the others. No report costs a call
for that: only a stop rule does, on which the ranks agree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback, WorkerGroupCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.training.failure import RankDiedError, RankError, failure_of_rank, is_collateral
from airflow_provider_raynode.runtime.training.rank import Word, attach, stack_of_rank, word_of_rank
from airflow_provider_raynode.runtime.training.stacks import state_of
from airflow_provider_raynode.runtime.training.stop import Stop
from airflow_provider_raynode.spec import NodeFailure

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.controller.state import TrainControllerState
    from ray.train.v2._internal.execution.worker_group import (
        Worker,
        WorkerGroup,
        WorkerGroupContext,
        WorkerGroupPollStatus,
    )

log = logging.getLogger("airflow_provider_raynode.training")

# Seconds between two questions to the ranks, and between those to ranks that others no longer wait for.
_ASK_S, _ASK_SOON_S = 1.0, 0.2
# Seconds for which a rank's word holds.
_FRESH_S = 5.0
# Seconds for the other ranks' word once one has failed, and for the stack of one that does not answer.
_WORD_S, _STACK_S = 3.0, 10.0
# Ranks that a message names.
_SHOWN = 4


class RanksDisagreeError(RayNodeError):
    """The ranks do not call `report` equally often: no retry mends that."""


class WorkersMissingError(RayNodeError):
    """The workers did not start anew in time."""


@dataclass
class _Group:
    """The workers of one start of the training."""

    workers: list[Worker]
    # Reports that Ray has taken, by rank.
    taken: dict[int, int]
    words: dict[int, Word] = field(default_factory=dict)
    pending: dict[int, Any] = field(default_factory=dict)
    asked: float = float("-inf")
    # By rank: the meeting that it waits for, when that was seen first, and when last.
    waits: dict[int, tuple[int, float, float]] = field(default_factory=dict)


class Rendezvous(ControllerCallback, WorkerGroupCallback, WorkerCallback):
    """A callback for Ray's RunConfig, on the controller and, as the copy that Ray sends along, on each worker.

    :param stop: when the training ends by itself; None: when its function returns.
    :param report_timeout_s: seconds that a rank may let the others wait; None: without end.
    :param start_timeout_s: seconds that the workers may take to start anew; None: without end.
    """

    def __init__(
        self,
        *,
        stop: Stop | None = None,
        report_timeout_s: float | None = None,
        start_timeout_s: float | None = None,
    ) -> None:
        self._stop = stop or None
        self._timeout_s = report_timeout_s
        self._start_timeout_s = start_timeout_s
        self._begin: float | None = None
        self._waiting_since: float | None = None
        # When the function began first: the budget counts from there.
        self._trains_since: float | None = None
        self._group: _Group | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The copy on a worker knows nothing of the group, and of the budget what is left of it."""
        stop = self._stop
        if stop is not None and self._trains_since is not None:
            stop = replace(stop, spent_s=time.monotonic() - self._trains_since)
        left_out = ("_group", "_begin", "_waiting_since", "_trains_since")
        return {**vars(self), "_stop": stop, **dict.fromkeys(left_out)}

    # -- on a worker

    def after_init_train_context(self) -> None:
        """Ray has told the worker its rank."""
        attach(self._stop)

    # -- on the controller

    def before_worker_group_start(self, worker_group_context: WorkerGroupContext) -> None:
        """From here on, workers that do not come are waited for."""
        if self._begin is None:
            self._begin = time.monotonic()

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """A new start: other processes, and as many as there is room for."""
        workers = worker_group.get_workers()
        self._group = _Group(workers, dict.fromkeys(range(len(workers)), 0))

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        """The function runs."""
        if self._trains_since is None:
            self._trains_since = time.monotonic()

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        """These workers end."""
        self._group = None

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Give up where the workers do not come back; that they come at all is another limit's to watch."""
        name = type(current_state).__name__
        if self._begin is None or name in ("RunningState", "PreemptingState") or current_state.is_terminal():
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        waited = time.monotonic() - self._waiting_since
        if self._start_timeout_s is not None and waited > self._start_timeout_s and name != "ShuttingDownState":
            raise WorkersMissingError(
                f"the training's workers did not start anew within {self._start_timeout_s:g} s (startup_timeout_s): "
                f"the cluster has {_resources(ray.cluster_resources())}, free of it: "
                f"{_resources(ray.available_resources())}"
            )

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Look at the ranks, each time that Ray has."""
        group, statuses = self._group, worker_group_status.worker_statuses
        if group is None:
            return
        for rank, status in statuses.items():
            if status.training_report is not None:
                group.taken[rank] += 1
        if worker_group_status.errors:
            _ask_for_errors(group, worker_group_status)
        elif worker_group_status.finished:
            if worker_group_status.get_preemption_info() is None:
                _check_equal(group)
        else:
            some_returned = any(not status.running for status in statuses.values())
            self._ask(group, _ASK_SOON_S if some_returned else _ASK_S)
            _check_returned(group)
            self._check_late(group, worker_group_status)

    def _ask(self, group: _Group, interval_s: float) -> None:
        """Take the ranks' answers that have come, and ask again; nothing waits for them here."""
        now = time.monotonic()
        if group.pending:
            done, _ = ray.wait(list(group.pending.values()), num_returns=len(group.pending), timeout=0)
            for rank in [rank for rank, ref in group.pending.items() if ref in done]:
                self._take(group, rank, group.pending.pop(rank))
        if now - group.asked < interval_s:
            return
        group.asked = now
        for rank, worker in enumerate(group.workers):
            if rank not in group.pending:
                group.pending[rank] = worker.execute_async(word_of_rank)

    def _take(self, group: _Group, rank: int, ref: Any) -> None:
        try:
            word: Word = ray.get(ref)
        except Exception:  # the next poll tells of a worker that died
            return
        group.words[rank] = word
        now = time.monotonic()
        before = group.waits.pop(rank, None)
        if word.waits_in:
            first = before[1] if before is not None and before[0] == word.meetings else now
            group.waits[rank] = (word.meetings, first, now)

    def _check_late(self, group: _Group, status: WorkerGroupPollStatus) -> None:
        """End the start of a training in which a rank hangs; the config says whether another one follows."""
        now, limit = time.monotonic(), self._timeout_s
        if limit is None:
            return
        for waiting, (meeting, first, last) in group.waits.items():
            # A word that is old says nothing of this moment: what runs native code may not answer.
            if now - first <= limit or now - last > _FRESH_S:
                continue
            late = [rank for rank in group.taken if not _has_come(group.words.get(rank), meeting)]
            if late:
                found = f"rank {waiting} has waited {now - first:.0f} s in {_where(group.words[waiting])}"
                for rank, error in _hang(group, late, found, limit).items():
                    status.worker_statuses[rank].error = error
                return


def _check_returned(group: _Group) -> None:
    """Raise where a rank waits for one that has returned."""
    ended = [word for word in group.words.values() if word.ended and word.failure is None]
    for word in group.words.values():
        gone = [other for other in ended if other.meetings < word.meetings]
        if word.waits_in and gone:
            raise RanksDisagreeError(_disagreement(word, gone))


def _disagreement(word: Word, gone: list[Word]) -> str:
    returned = "; ".join(f"rank {each.rank} returned after {_reports(each.reports)}" for each in gone[:_SHOWN])
    more = f" (and {len(gone) - _SHOWN} more)" if len(gone) > _SHOWN else ""
    return (
        f"{returned}{more}, rank {word.rank} waits in {_where(word)}: every rank must call "
        f"{word.waits_in} the same number of times"
    )


def _check_equal(group: _Group) -> None:
    """Raise where all have returned, and one made fewer reports: it met the others in something else."""
    most = max(group.taken.values())
    short = [rank for rank, count in group.taken.items() if count < most]
    if short:
        told = "; ".join(f"rank {rank} made {_reports(group.taken[rank])}" for rank in short[:_SHOWN])
        full = next(rank for rank, count in group.taken.items() if count == most)
        raise RanksDisagreeError(
            f"{told}, rank {full} made {_reports(most)}: every rank must call report the same number of times"
        )


def _has_come(word: Word | None, meetings: int) -> bool:
    return word is not None and word.meetings >= meetings


def _hang(group: _Group, late: list[int], found: str, limit: float) -> dict[int, RankError]:
    """Return the errors of the ranks that do not come, with what each of them does."""
    names = ", ".join(f"rank {rank}" for rank in late[:_SHOWN])
    names += f" and {len(late) - _SHOWN} more" if len(late) > _SHOWN else ""
    verb = "does" if len(late) == 1 else "do"
    lasts = "; ".join(f"rank {rank} {_last(group, rank)}" for rank in late[:_SHOWN])
    message = f"{names} {verb} not come (report_timeout_s: {limit:g} s): {found}; {lasts}"
    where = _whereabouts(group, late)
    told = {rank: NodeFailure(type="RankHangs", message=message, traceback=where, rank=rank) for rank in late}
    return {rank: RankError(failure.to_bytes().decode(), time.time()) for rank, failure in told.items()}


def _last(group: _Group, rank: int) -> str:
    count = _made(group, rank)
    return f"came last with its {_nth(count)} report" if count else "has made no report"


def _made(group: _Group, rank: int) -> int:
    """Return how many reports a rank has made, as far as is known: where another is at its fourth, all made three."""
    own = group.words.get(rank)
    others = [word.reports - (word.waits_in == "report") for word in group.words.values() if word.waits_in]
    return max([group.taken[rank], own.reports if own is not None else 0, *others])


def _whereabouts(group: _Group, ranks: list[int]) -> str:
    """Return where the functions of `ranks` are: each by its own word, or, where it does not answer, its machine's."""
    workers = {rank: group.workers[rank] for rank in ranks[:_SHOWN]}
    asked: dict[int, Any] = {rank: worker.execute_async(stack_of_rank) for rank, worker in workers.items()}
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_WORD_S)
    texts: list[str] = []
    for rank, worker in workers.items():
        try:
            text = ray.get(asked[rank]) if asked[rank] in done else _state(worker)
        except Exception as error:
            text = f"(it cannot be asked: {type(error).__name__})"
        texts.append(f"rank {rank} on {worker.metadata.node_ip} (pid {worker.metadata.pid}) is at:\n{text}")
    return "\n".join(texts)


def _state(worker: Worker) -> str:
    there = NodeAffinitySchedulingStrategy(worker.metadata.node_id, soft=False)
    task = ray.remote(state_of).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return str(ray.get(task.remote(worker.metadata.pid), timeout=_STACK_S))


def _ask_for_errors(group: _Group, status: WorkerGroupPollStatus) -> None:
    """Have every rank's error at hand, also of one that Ray has not heard of yet: the first is the cause."""
    statuses = status.worker_statuses
    silent = [rank for rank, each in statuses.items() if each.error is None]
    asked: dict[int, Any] = {rank: group.workers[rank].execute_async(word_of_rank) for rank in silent}
    done = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_WORD_S)[0] if asked else []
    for rank, ref in asked.items():
        if ref not in done:
            continue
        try:
            word: Word = ray.get(ref)
        except (RayActorError, OutOfMemoryError, NodeDiedError) as error:
            statuses[rank].running = False
            statuses[rank].error = WorkerHealthCheckFailedError("A worker health check failed.", failure=error)
        except Exception:
            continue
        else:
            group.words[rank] = word
            if word.failure is not None:
                statuses[rank].error = RankError(word.failure.to_bytes().decode(), time.time())
    for rank, each in statuses.items():
        if isinstance(each.error, WorkerHealthCheckFailedError):
            metadata = group.workers[rank].metadata
            died = RankDiedError(str(each.error), each.error.health_check_failure)
            each.error = died.of(rank, _made(group, rank), f"{metadata.node_ip}, pid {metadata.pid}")
    found = dict(status.errors)
    still = [rank for rank in statuses if rank not in found]
    if still and found and all(is_collateral(error) for error in found.values()):
        # Nobody has failed by itself: whom they waited for is told by where it is.
        text = _whereabouts(group, still)
        for rank, collateral in found.items():
            failure = failure_of_rank(rank, collateral)
            told = failure.model_copy(update={"traceback": f"{failure.traceback}\n{text}".strip()})
            statuses[rank].error = RankError(told.to_bytes().decode(), time.time())


def _where(word: Word) -> str:
    return f"its {_nth(word.reports)} report" if word.waits_in == "report" else f"ray.train.collective.{word.waits_in}"


def _reports(count: int) -> str:
    return f"{count} report{'' if count == 1 else 's'}"


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = "th" if number % 100 in (11, 12, 13) else endings.get(number % 10, "th")
    return f"{number}{ending}"


def _resources(amounts: dict[str, float]) -> str:
    kept: Iterable[tuple[str, float]] = (
        (name, amount) for name, amount in sorted(amounts.items()) if not name.startswith(("node:", "object_store"))
    )
    return ", ".join(f"{name} {amount:g}" for name, amount in kept) or "nothing"
