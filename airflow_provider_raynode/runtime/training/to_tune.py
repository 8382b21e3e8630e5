"""What goes on from a training to Tune, whose trial it is: each counted report, its checkpoint by reference."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.air.constants import TRAINING_ITERATION
from ray.train._internal.session import _TrainingResult, get_session
from ray.train.constants import CHECKPOINT_DIR_NAME
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from airflow_provider_raynode.runtime.checkpoints import ORIGIN_FILE, origin_of
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, travelling
from airflow_provider_raynode.runtime.training.failure import failure_of_training
from airflow_provider_raynode.runtime.training.session import CARRIED
from airflow_provider_raynode.runtime.training.state import Counted, Origin

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.controller.state import TrainControllerState

# What a trial says of itself, among the lines of its function.
log = logging.getLogger("airflow_provider_raynode.trial")

_LONGEST = 500


@dataclass(frozen=True)
class TrialOrigin:
    """What a trial goes on from, and whether that is another trial's, which PBT gave it."""

    origin: Origin
    foreign: bool = False

    @classmethod
    def found(cls, trial_id: str) -> TrialOrigin:
        """Return the origin that Tune gives this process's trial."""
        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            return cls(Origin())
        kept: dict[str, Any] = {}
        with suppress(ValueError, TypeError):
            kept = json.loads(origin_of(checkpoint) or b"{}")
        last = Counted.model_validate(kept.get("last", {}))
        foreign = kept.get("trial_id") != trial_id
        if foreign:  # they are kept and removed with their own trial
            last = last.model_copy(update={"outputs": {}})
        return cls(Origin(last=last, checkpoint=checkpoint.path), foreign)


class ToTune(ReportCallback, WorkerGroupCallback, WorkerCallback, ControllerCallback):
    """Gives Tune each counted report, and waits until it has heard it: the scheduler may end the trial there.

    What the workers report again, after they were started anew from a checkpoint, has the numbers that it had.
    A copy of it goes to each worker when the workers start, which tells the worker what it goes on from.
    """

    def __init__(self, trial_id: str, begin: TrialOrigin) -> None:
        self._trial_id = trial_id
        self._begin = begin
        self._origin = begin.origin
        # The report that counted last.
        self.last = begin.origin.last
        # Ids of the workers by rank, which name their accounts of a failure.
        self.workers: list[str] = []

    # -- on a worker ---------------------------------------------------------------------------------------------------

    def after_init_train_context(self) -> None:
        """Ray has told the worker its rank: say what it goes on from."""
        from airflow_provider_raynode.runtime.training import worker

        worker.begin_with(self._origin)

    # -- in the trial's process ----------------------------------------------------------------------------------------

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """The workers begin with the last whole checkpoint: what was reported since then, they report again."""
        self.workers = [worker.actor._actor_id.hex() for worker in worker_group.get_workers()]
        self.last = self._origin.last

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Tell that the workers start anew, and why."""
        error = getattr(current_state, "training_failed_error", None)
        if type(current_state).__name__ == "RestartingState" and error is not None:
            failure = failure_of_training(error)
            text = " ".join(f"{failure.type}: {failure.message}".split())
            log.warning("The workers start anew, from report %d: %s", self._origin.last.step, text[:_LONGEST])

    def after_report(self, training_report: _TrainingReport, metrics: list[dict[str, Any]]) -> None:
        """Take a report of all ranks: what rank 0 says counts."""
        checkpoint = training_report.checkpoint
        self.last = last = _counted(metrics[0])
        if checkpoint is not None:
            # Ray itself gives the workers that start anew the checkpoint.
            self._origin = replace(self._origin, last=last, checkpoint=None)
            self._write_origin(checkpoint)
        self._send(last, checkpoint)

    def _write_origin(self, checkpoint: Any) -> None:
        kept = {"trial_id": self._trial_id, "last": self.last.model_dump()}
        with checkpoint.filesystem.open_output_stream(f"{checkpoint.path}/{ORIGIN_FILE}") as stream:
            stream.write(json.dumps(kept).encode())

    def returned(self, value: Mapping[str, Any] | None) -> None:
        """The function has returned on every rank.

        :param value: what rank 0's session made of it.
        """
        if not value or not value["returned"]:
            return
        last = Counted.model_validate(value)
        if self._begin.foreign and last.step == self._begin.origin.last.step:
            return  # it took over a trial that had ended: its own last report stands
        self._send(last, None, returned=True)

    def _send(self, last: Counted, checkpoint: Any, *, returned: bool = False) -> None:
        """Do what `tune.report` does, without its copy of the checkpoint: that lies on storage, and is now Tune's."""
        session = get_session()
        if session is None:
            raise RuntimeError("this process runs no trial of Tune")
        metrics: dict[str, Any] = {travelling(name): value for name, value in last.metrics.items()}
        if last.outputs:
            metrics[OUTPUTS_KEY] = json.dumps(last.outputs)
        if returned:
            metrics[RETURNED_KEY] = True
        metrics[TRAINING_ITERATION] = last.step
        result = session._auto_fill_metrics(metrics)
        result[CHECKPOINT_DIR_NAME] = None if checkpoint is None else PurePosixPath(checkpoint.path).name
        kept = None if checkpoint is None else tune.Checkpoint(checkpoint.path, checkpoint.filesystem)
        session._report_training_result(_TrainingResult(checkpoint=kept, metrics=result))


def _counted(metrics: Mapping[str, Any]) -> Counted:
    from airflow_provider_raynode.runtime.training.session import STEP_KEY, TIME_KEY

    return Counted(
        step=metrics[STEP_KEY],
        time_total_s=metrics[TIME_KEY],
        metrics={name: value for name, value in metrics.items() if name not in CARRIED},
        outputs=json.loads(metrics.get(OUTPUTS_KEY) or "{}"),
    )
