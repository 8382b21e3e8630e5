"""From an ended training to the node's result: its metrics, its best checkpoint, or why it failed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.train import Checkpoint
from ray.train.v2.api.exceptions import WorkerGroupError

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, NodeFailedError, SpecError
from airflow_provider_raynode.runtime.checkpoints import into_catalog
from airflow_provider_raynode.runtime.outputs import sanitised
from airflow_provider_raynode.runtime.training.failure import failure_of_training
from airflow_provider_raynode.runtime.training.ledger import Failed, Snapshot
from airflow_provider_raynode.runtime.training.state import Counted, Kept
from airflow_provider_raynode.runtime.training.worker import failure_uri
from airflow_provider_raynode.spec import NodeFailure, NodeSpec, TrainingEnd

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What a training left: fields of NodeResult."""

    metrics: dict[str, Any] | None = None
    best_metrics: dict[str, Any] | None = None
    best_step: int | None = None
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[str, Any] | None = None
    training: TrainingEnd | None = None
    warnings: tuple[str, ...] = ()


class TrainingError(NodeFailedError):
    """The training has no result; `failure` says why, `found` what there is."""

    def __init__(self, failure: NodeFailure, found: Found) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.found = found


def reported(snapshot: Snapshot, end: TrainingEnd) -> Found:
    """Return what is known of a training without reading anything."""
    best = snapshot.best
    return Found(
        metrics=sanitised(snapshot.last.metrics) if snapshot.last.step else None,
        best_metrics=sanitised(best.metrics) if best else None,
        best_step=best.step if best else None,
        training=end,
    )


def best_checkpoint(kept: Sequence[Kept], metric: str | None, mode: str | None) -> tuple[str, Counted] | None:
    """Return the URI and the report of the best checkpoint by the metric, else of the latest one.

    A checkpoint of a step that was reported again later, by a driver that went on from an earlier one, does not count.
    """
    found: list[tuple[str, Counted]] = []
    for each in kept:
        reports = [report for report in each.state.checkpoints if report.checkpoint]
        if reports:
            found = [old for old in found if old[1].step < reports[0].step]
        found += [(f"{each.uri}/{report.checkpoint}", report) for report in reports]
    if not found:
        return None
    sign = -1.0 if mode == "min" else 1.0

    def score(each: tuple[str, Counted]) -> tuple[float, int]:
        value = each[1].metrics.get(metric) if metric is not None else 0.0
        number = float(value) if isinstance(value, int | float) else math.nan
        # Of equal ones the earliest, without a metric the latest.
        return (sign * number, -each[1].step) if metric is not None else (0.0, each[1].step)

    finite = [each for each in found if not math.isnan(score(each)[0])]
    return max(finite, key=score) if finite else found[-1]


def keep_checkpoint(
    kept: Sequence[Kept], spec: NodeSpec, attempt: Catalog, filesystem: Any, path_of: dict[str, str]
) -> tuple[dict[str, Any] | None, Counted | None]:
    """Copy the best checkpoint into the catalog; return its reference and its report, None where there is none.

    :param path_of: path of each driver's folder on the training's storage, by its URI.
    """
    remaining = list(kept)
    while (found := best_checkpoint(remaining, spec.config.metric, spec.config.mode)) is not None:
        uri, report = found
        folder, _, name = uri.rpartition("/")
        if attempt.exists(uri):
            checkpoint = Checkpoint(f"{path_of[folder]}/{name}", filesystem)
            return dict(into_catalog(checkpoint, attempt, "checkpoint")), report
        # Ray keeps as many as the config says.
        remaining = [_without(each, report) for each in remaining]
    return None, None


def _without(kept: Kept, report: Counted) -> Kept:
    left = [each for each in kept.state.checkpoints if each.checkpoint != report.checkpoint]
    return Kept(kept.uri, kept.state.model_copy(update={"checkpoints": left}))


def missing_outputs(spec: NodeSpec, found: Found) -> NodeFailure | None:
    """Return the failure of a training that was ended before its function gave what the node declares."""
    given = {*found.outputs, *(found.metrics or {})}
    missing = [each.name for each in spec.returns if each.name not in given]
    if not missing:
        return None
    names = ", ".join(map(repr, missing))
    return NodeFailure(
        type="MissingOutput",
        message=f"the training ended ({found.training.reason if found.training else ''}) before the function gave "
        f"{names}, which the node declares in returns. Report it along the way, "
        f"report({{..., {missing[0]!r}: value}}), or use the output 'checkpoint' of a reported checkpoint",
    )


# -- how it failed -------------------------------------------------------------------------------------------------


def failure_of(error: BaseException, snapshot: Snapshot, attempt: Catalog) -> NodeFailure:
    """Return why a training failed: the error of the rank that failed first, or the controller's."""
    if isinstance(error, WorkerGroupError):
        last = max((each.number for each in snapshot.failures), default=0)
        failed = [each for each in snapshot.failures if each.number == last]
        if failed:
            return first_failure(failed, snapshot, attempt)
    return failure_of_training(error)


def first_failure(failed: Sequence[Failed], snapshot: Snapshot, attempt: Catalog) -> NodeFailure:
    """Return the failure of the rank that failed first, with the ranks that failed with it in its message."""
    told = [(each, told_failure(each, attempt)) for each in sorted(failed, key=lambda each: each.order)]
    first, *others = told
    also = f" (so did rank {', '.join(str(each.rank) for each, _ in others)})" if others else ""
    failure = first[1]
    return failure.model_copy(
        update={"message": f"rank {first[0].rank} of {snapshot.world_size} failed{also}: {failure.message}"}
    )


def told_failure(failed: Failed, attempt: Catalog) -> NodeFailure:
    """Return a rank's failure: as Ray's controller knows it, or, where its process is gone, what that has left."""
    if failed.failure.type != "WorkerDied":
        return failed.failure
    try:
        return NodeFailure.from_bytes(attempt.read_bytes(failure_uri(attempt, failed.rank, failed.worker)))
    except (CatalogError, SpecError):
        return failed.failure
