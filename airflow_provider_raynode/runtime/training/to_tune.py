"""What goes on from a training to Tune, whose trial it is: each counted report, its checkpoint by reference."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ray import tune
from ray.air.constants import TRAINING_ITERATION
from ray.train._internal.session import _TrainingResult, get_session
from ray.train.constants import CHECKPOINT_DIR_NAME
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.train.v2._internal.execution.worker_group import WorkerGroup


class ToTune(ReportCallback, WorkerGroupCallback):
    """Gives Tune each counted report, and waits until it has heard it: the scheduler may end the trial there.

    What the workers report again, after they were started anew from a checkpoint, has the numbers that it had.

    :param reports: counted reports of the trial at the checkpoint that it goes on from.
    """

    def __init__(self, reports: int) -> None:
        self._reports = self._at_checkpoint = reports
        self.starts = 0

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Go on after the checkpoint that the workers begin with."""
        self._reports = self._at_checkpoint
        self.starts += 1

    def after_report(self, training_report: _TrainingReport, metrics: list[dict[str, Any]]) -> None:
        """Take a report of all ranks: what rank 0 says counts."""
        self._reports += 1
        if training_report.checkpoint is not None:
            self._at_checkpoint = self._reports
        _send({**metrics[0], TRAINING_ITERATION: self._reports}, training_report.checkpoint)


def _send(metrics: dict[str, Any], checkpoint: Any) -> None:
    """Do what `tune.report` does, without its copy of the checkpoint: it lies on storage, and is Tune's from now on."""
    session = get_session()
    if session is None:
        raise RuntimeError("this process runs no trial of Tune")
    result = session._auto_fill_metrics(metrics)
    result[CHECKPOINT_DIR_NAME] = None if checkpoint is None else PurePosixPath(checkpoint.path).name
    kept = None if checkpoint is None else tune.Checkpoint(checkpoint.path, checkpoint.filesystem)
    session._report_training_result(_TrainingResult(checkpoint=kept, metrics=result))
