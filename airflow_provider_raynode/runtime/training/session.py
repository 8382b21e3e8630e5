"""One rank of a training, as its function's reports meet it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.checkpoints import read_checkpoint
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY
from airflow_provider_raynode.runtime.references import ReportCheck
from airflow_provider_raynode.runtime.reporting import ReportingSession, over
from airflow_provider_raynode.runtime.returned import as_mapping
from airflow_provider_raynode.runtime.training.state import Origin

if TYPE_CHECKING:
    from ray.train import Checkpoint

# Keys of a report of rank 0 on its way to the controller, beside its metrics.
STEP_KEY, TIME_KEY = "raynode_step", "raynode_time_total_s"
# In a report of another rank: it came with an object as its checkpoint, which was not sent.
OBJECT_KEY = "raynode_object"
# In what rank 0 returns: why the training stopped before the function returned.
ENDING_KEY = "raynode_ending"
CARRIED = frozenset({STEP_KEY, TIME_KEY, OUTPUTS_KEY, OBJECT_KEY})


@dataclass(kw_only=True)
class TrainingSession(ReportingSession):
    """One rank: what rank 0 reports counts, its metrics and its outputs.

    :param send: makes the report, with Ray's own options: it waits for the other ranks.
    :param find: gives Ray's checkpoint that the rank goes on from.
    :param origin: what the training goes on from.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    metric: str | None
    send: Callable[..., None] = field(repr=False)
    find: Callable[[], Checkpoint | None] = field(repr=False)
    shards: Callable[[str], Any] | None = field(default=None, repr=False)
    check: ReportCheck = field(default_factory=ReportCheck)
    origin: Origin = field(default_factory=Origin)
    _begin: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        # What was reported before the checkpoint stands.
        self.reports = self.origin.last.step
        self.last, self.outputs = dict(self.origin.last.metrics), dict(self.origin.last.outputs)

    @property
    def whose(self) -> str:
        """What the metric belongs to."""
        return "the training"

    def place(self) -> dict[str, Any]:
        """Return which rank this is, and the shards."""
        names = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "shards")
        return {name: getattr(self, name) for name in names}

    def checkpoint(self) -> Any:
        """Return what the rank goes on from: on every rank the same, from storage."""
        return read_checkpoint(self.find())

    def report(self, values: Mapping[str, Any], checkpoint: Any = None, **options: Any) -> None:
        """Report one step, with every other rank.

        :param options: of Ray's own `report`.
        """
        if self.stopped:  # a function that catches its end comes back here
            raise SystemExit(0)
        metrics, outputs = self.split(values, checkpoint=checkpoint is not None)
        if self.rank == 0:
            if self.metric is not None:
                self.check_metric(self.metric, metrics, outputs)
            given = {name: value for name, (value, _) in outputs.items()}
            self.check.check(metrics, given, checkpoint=checkpoint is not None)
            self.keep(metrics, outputs)
        self.reports += 1
        try:
            self.send({**metrics, **(self._carried() if self.rank == 0 else {})}, checkpoint, **options)
        except SystemExit:
            self.stopped = True
            raise

    def check_metric(self, metric: str, metrics: Mapping[str, Any], outputs: Any) -> None:
        """Check that rank 0 reports the metric.

        :raises RayNodeError: it does not.
        """
        try:
            super().check_metric(metric, metrics, outputs)
        except RayNodeError as error:
            if self.world_size == 1:
                raise
            raise RayNodeError(f"rank 0, whose reports count: {error}") from None

    def _carried(self) -> dict[str, Any]:
        carried = {STEP_KEY: self.reports, TIME_KEY: self._time_total_s()}
        return {**carried, OUTPUTS_KEY: json.dumps(self.outputs)} if self.outputs else carried

    def _time_total_s(self) -> float:
        return round(self.origin.last.time_total_s + time.monotonic() - self._begin, 6)

    def finish(self, returned: Any) -> dict[str, Any] | None:
        """Take what rank 0's function returned as its last word; that of other ranks does not count."""
        if self.rank != 0:
            return None
        if self.stopped:
            return self.ended()
        if returned is None:
            if self.reports == 0:
                name = repr(self.metric or "loss")
                raise RayNodeError(
                    f"the function returned nothing and reported nothing: return {{{name}: value}}, or call "
                    f"report({{{name}: value}})"
                )
        else:
            self._take(as_mapping(returned, self.metric))
        self.check_declared()
        return self.ended()

    def _take(self, values: Mapping[Any, Any]) -> None:
        metrics, outputs = self.split(values, checkpoint=False)
        all_metrics = over(self.last, metrics) if self.reports else metrics
        if self.metric is not None:
            self.check_metric(self.metric, all_metrics, outputs)
        self.keep(all_metrics, outputs)
        # What is new of it is a report; outputs alone belong to the one before.
        if metrics or not self.reports:
            self.reports += 1

    def ended(self) -> dict[str, Any]:
        """Return the last counted report."""
        return {
            "step": self.reports,
            "time_total_s": self._time_total_s(),
            "metrics": self.last,
            "outputs": self.outputs,
        }
