"""What Ray's controller writes down of a training: the counted reports, the best of them, the whole checkpoints.

A callback of Ray Train. It lives in the controller's process, and a copy of it goes to each worker when the workers
start, which tells the worker what it goes on from.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.training_report import _TrainingReport

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY
from airflow_provider_raynode.runtime.training.failure import causes, failure_of_rank
from airflow_provider_raynode.runtime.training.session import CARRIED, ENDING_KEY, OBJECT_KEY, STEP_KEY, TIME_KEY
from airflow_provider_raynode.runtime.training.state import Counted, DriverState, Origin
from airflow_provider_raynode.runtime.training.steps import StepLog
from airflow_provider_raynode.runtime.training.stop import Ending
from airflow_provider_raynode.spec import NodeFailure

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.controller.state import TrainControllerState
    from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failed:
    """A rank that failed.

    :param worker: id of its worker, which names the file with its account of the failure.
    :param failure: what is known of it without that file.
    :param order: the least is the cause of the others.
    :param number: which failure of the training this is, from 1; ranks that fail together have the same.
    """

    rank: int
    worker: str
    failure: NodeFailure
    order: tuple[int, float, int]
    number: int


@dataclass(frozen=True)
class Snapshot:
    """How far a training is."""

    last: Counted = field(default_factory=Counted)
    best: Counted | None = None
    # The report of the last whole checkpoint, of this driver or an earlier one.
    checkpoint_step: int | None = None
    world_size: int = 0
    starts: int = 0
    restarts: int = 0
    failures: tuple[Failed, ...] = ()


class Ledger(ReportCallback, WorkerGroupCallback, WorkerCallback, ControllerCallback):
    """Writes down one driver's part of a training.

    :param catalog_uri: root of the catalog.
    :param folder: URI of the driver's folder.
    :param origin: what the training goes on from.
    :param metric: what the best is chosen by, with its mode.
    """

    def __init__(
        self,
        catalog_uri: str,
        folder: str,
        origin: Origin,
        metric: str | None,
        mode: str | None,
    ) -> None:
        self.origin = origin
        self._catalog_uri = catalog_uri
        self._folder = folder
        self._metric = metric
        self._sign = -1.0 if mode == "min" else 1.0
        self._last, self._best = origin.last, origin.best
        # As they were at the last whole checkpoint: workers that start anew begin there.
        self._kept_last, self._kept_best = origin.last, origin.best
        self._checkpoints: list[Counted] = []
        self._world_size = 0
        self._starts = self._restarts = 0
        self._failures: list[Failed] = []
        self._workers: list[str] = []
        self._steps_log: StepLog | None = None
        self._finished = False
        self._ending: Ending | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The copy on a worker, made when the workers start, needs what it goes on from and nothing else."""
        checkpoint = self._checkpoints[-1].checkpoint if self._checkpoints else None
        kept: dict[str, Any] = {"_steps_log": None, "_checkpoints": [], "_failures": [], "_workers": []}
        if checkpoint is not None:
            # Ray gives the worker the checkpoint itself.
            kept["origin"] = Origin(last=self._kept_last, best=self._kept_best)
        return {**vars(self), **kept}

    # -- on a worker -----------------------------------------------------------------------------------------------

    def after_init_train_context(self) -> None:
        """Ray has told the worker its rank: say what it goes on from."""
        from airflow_provider_raynode.runtime.training import worker

        worker.begin_with(self.origin)

    # -- in the controller -----------------------------------------------------------------------------------------

    @property
    def _steps(self) -> StepLog:
        if self._steps_log is None:
            self._steps_log = StepLog(self._catalog, self._folder)
        return self._steps_log

    @property
    def _catalog(self) -> Catalog:
        return Catalog(self._catalog_uri)

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """The workers begin with the last whole checkpoint: what was reported since then, they report again."""
        self._workers = [worker.actor._actor_id.hex() for worker in worker_group.get_workers()]
        self._steps.forget()
        self._last, self._best = self._kept_last, self._kept_best
        self._world_size = len(self._workers)

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        """The function runs."""
        self._starts += 1

    def after_report(self, training_report: _TrainingReport, metrics: list[dict[str, Any]]) -> None:
        """Take a report of all ranks: what rank 0 says counts."""
        checkpoint = training_report.checkpoint
        if checkpoint is None:
            self._refuse_lost_object(metrics)
        report = _counted(metrics[0], None if checkpoint is None else checkpoint.path.rstrip("/").rpartition("/")[2])
        self._count(report)
        if checkpoint is not None:
            self._steps.flush()
            self._checkpoints.append(report)
            self._keep()

    def _refuse_lost_object(self, metrics: list[dict[str, Any]]) -> None:
        ranks = [rank for rank, each in enumerate(metrics) if each.get(OBJECT_KEY)]
        if ranks:
            raise RayNodeError(
                f"rank {ranks[0]} reported an object as checkpoint, and rank 0 none: of objects, rank 0's is the "
                "checkpoint. Report it from rank 0, or report folders, of which all ranks' files become one"
            )

    def _count(self, report: Counted) -> None:
        self._last = report
        self._steps.add(report.step, report.time_total_s, report.metrics)
        if self._metric is not None and self._better(report):
            self._best = report

    def _better(self, report: Counted) -> bool:
        value = _number(report.metrics.get(self._metric or ""))
        if not math.isfinite(value):
            return False
        return self._best is None or self._sign * value > self._sign * _number(
            self._best.metrics.get(self._metric or "")
        )

    def _keep(self) -> None:
        """Write down how far the training is; Ray goes on with the checkpoint only after this."""
        self._kept_last, self._kept_best = self._last, self._best
        state = DriverState(
            last=self._last,
            best=self._best,
            checkpoints=self._checkpoints,
            finished=self._finished,
            ending=("finished" if self._ending is None else self._ending.kind) if self._finished else "incomplete",
            reason="" if self._ending is None else self._ending.reason,
            world_size=self._world_size,
            restarts=self._restarts,
        )
        self._catalog.write_bytes(f"{self._folder}/state.json", state.to_bytes())

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Keep which ranks failed."""
        errors = worker_group_status.errors
        number = self._restarts + 1
        if not errors or any(each.number == number for each in self._failures):
            return
        for rank, error in errors.items():
            worker = self._workers[rank] if rank < len(self._workers) else ""
            failure = failure_of_rank(rank, error)
            self._failures.append(Failed(rank, worker, failure, causes(rank, error), number))

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Count the restarts."""
        if type(current_state).__name__ == "RestartingState":
            self._restarts += 1

    def finished(self, returned: Mapping[str, Any] | None) -> None:
        """The function has returned on every rank.

        :param returned: what rank 0's worker made of it.
        """
        if self._finished:
            return
        self._finished = True
        if returned:
            if returned.get(ENDING_KEY):
                self._ending = Ending(*returned[ENDING_KEY])
            last = Counted.model_validate(returned)
            if last.step > self._last.step:
                self._count(last)
            else:
                self._last = self._last.model_copy(update={"metrics": last.metrics, "outputs": last.outputs})
        self._steps.flush()
        self._keep()

    def snapshot(self) -> Snapshot:
        """Return how far the training is."""
        with_checkpoint = self._checkpoints or ([self.origin.last] if self.origin.checkpoint else [])
        return Snapshot(
            last=self._last,
            best=self._best,
            checkpoint_step=with_checkpoint[-1].step if with_checkpoint else None,
            world_size=self._world_size,
            starts=self._starts,
            restarts=self._restarts,
            failures=tuple(self._failures),
        )


def _counted(metrics: Mapping[str, Any], checkpoint: str | None) -> Counted:
    return Counted(
        step=metrics[STEP_KEY],
        time_total_s=metrics[TIME_KEY],
        metrics={name: value for name, value in metrics.items() if name not in CARRIED},
        outputs=json.loads(metrics.get(OUTPUTS_KEY) or "{}"),
        checkpoint=checkpoint,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
