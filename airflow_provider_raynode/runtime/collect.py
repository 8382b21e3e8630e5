"""From Tune's results to the node's: the best trial, its outputs, the trials table, the failure."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import ResultGrid
from ray.tune.experiment import Trial

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.exceptions import CatalogError, NodeFailedError, SpecError
from airflow_provider_raynode.runtime.checkpoints import into_catalog
from airflow_provider_raynode.runtime.completion import CUT_OFF, EARLY_STOPPED, FINISHED, status_of
from airflow_provider_raynode.runtime.failures import told_by_ray
from airflow_provider_raynode.runtime.names import reported_in, travelling
from airflow_provider_raynode.runtime.observer import Observer, Scores, metrics_of
from airflow_provider_raynode.runtime.outputs import sanitised
from airflow_provider_raynode.runtime.references import unheeded
from airflow_provider_raynode.runtime.tables import CONFIG_COLUMN, flat, frame, metric_column, plain
from airflow_provider_raynode.runtime.worker import failure_uri
from airflow_provider_raynode.spec import Best, Completion, NodeFailure, NodeSpec

log = logging.getLogger(__name__)


class SearchFailedError(NodeFailedError):
    """The search has no result; `failure` says why."""

    def __init__(self, failure: NodeFailure, found: Collected) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.found = found


@dataclass
class Collected:
    """What a search left."""

    best: Best | None = None
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    front: dict[str, Any] | None = None
    trials: dict[str, Any] | None = None
    steps: dict[str, Any] | None = None
    completion: Completion | None = None
    trial_states: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def collect(spec: NodeSpec, grid: ResultGrid, observer: Observer, attempt: Catalog) -> Collected:
    """Choose the best trial, write the tables, keep the best outputs and remove what is not to be kept.

    :param attempt: the catalog at the attempt's folder.
    :raises SearchFailedError: the search did not end as its config lets it, no trial has a finite metric, or the best
        one lacks a declared output.
    """
    search = spec.config.ray_tune
    assert search is not None
    scores = observer.scores
    trials: list[Trial] = list(grid._experiment_analysis.trials)
    statuses = {trial.trial_id: status_of(trial, observer.early_stopped(trial.trial_id)) for trial in trials}
    failures = {trial.trial_id: _failure(trial, attempt) for trial in trials if trial.status == Trial.ERROR}
    found = Collected(
        trials=dict(_table(trials, statuses, failures, scores, attempt)),
        trial_states=dict(Counter(statuses.values())),
        completion=observer.end.completion(list(statuses.values())),
    )
    steps, cut = observer.steps.write(statuses) if observer.steps is not None else (None, None)
    found.steps = dict(steps) if steps is not None else None
    found.warnings = (
        *_warnings(trials, failures, scores, found.completion),
        *_unheeded(search, trials, scores),
        *([cut] if cut else []),
    )
    failure = observer.end.failure(found.completion, failures) if found.completion else None
    if failure is not None:
        raise SearchFailedError(failure, found)
    # What a time budget cut off counts with what it had reported.
    counted = [trial_id for trial_id, status in statuses.items() if status in (FINISHED, EARLY_STOPPED, CUT_OFF)]
    best_id = scores.best(counted) if counted else None
    if best_id is None:
        raise SearchFailedError(_no_result(trials, failures, scores), found)
    successful = sum(scores.values(trial_id) is not None for trial_id in counted)
    if successful < search.failure.min_successful:
        raise SearchFailedError(_too_few(successful, search.failure.min_successful, trials, failures), found)
    if statuses[best_id] == CUT_OFF:
        found.warnings += (f"the best trial, {best_id}, was cut off by the end of the search: it had not ended",)
    kept = scores.front(counted) if search.further_metrics else [best_id]
    by_id = {trial.trial_id: (index, trial) for index, trial in enumerate(trials)}
    chosen = []
    for trial_id in kept:
        each = _chosen(*by_id[trial_id], grid, spec, scores, attempt)
        chosen.append(each)
        missing = [name.name for name in spec.returns if name.name not in {*each.outputs, *each.best.metrics}]
        if missing:
            raise SearchFailedError(_stopped_early(by_id[trial_id][1], missing), found)
    found.best, found.outputs = chosen[0].best, chosen[0].outputs
    if search.further_metrics:
        found.front = dict(attempt.put([each.as_json() for each in chosen], "front", kind="json"))
    if search.keep_outputs == "best":
        if observer.steps is not None:
            observer.steps.remove_parts()
        _remove_the_rest(set(kept), spec, attempt, experiment=not search.logger_callbacks)
    return found


@dataclass
class _Chosen:
    """A trial that is part of the result, with its outputs."""

    best: Best
    outputs: dict[str, dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {**self.best.model_dump(mode="json"), "outputs": self.outputs}


def _chosen(index: int, trial: Trial, grid: ResultGrid, spec: NodeSpec, scores: Scores, attempt: Catalog) -> _Chosen:
    report = scores.result(trial.trial_id)
    best = Best(
        trial_id=trial.trial_id, config=sanitised(report.get("config") or trial.config), metrics=metrics_of(report)
    )
    outputs = dict(scores.outputs(trial.trial_id))
    if "checkpoint" not in outputs:
        checkpoint = _checkpoint(grid, index, spec, attempt, trial.trial_id)
        if checkpoint is not None:
            outputs["checkpoint"] = dict(checkpoint)
    return _Chosen(best, outputs)


def _failure(trial: Trial, attempt: Catalog) -> NodeFailure:
    """Return a trial's error: as the worker wrote it, or, where the worker itself died, as Ray tells it."""
    try:
        return NodeFailure.from_bytes(attempt.read_bytes(failure_uri(attempt, trial.trial_id)))
    except (CatalogError, SpecError):
        reports = int((trial.last_result or {}).get("training_iteration") or 0)
        error = trial.get_error()  # a text, whatever its annotation says
        return told_by_ray(None if error is None else str(error), trial.trial_id, reports)


def _no_result(trials: Sequence[Trial], failures: Mapping[str, NodeFailure], scores: Scores) -> NodeFailure:
    reported = any(travelling(scores.metric) in (trial.last_result or {}) for trial in trials)
    if not failures and not reported:
        return NodeFailure(
            type="NoTrialRan",
            message="no trial ran to a first report: the time budget (ray_tune.time_budget_s) was over before, or the "
            "search algorithm proposed none",
        )
    if failures:
        first = next(iter(failures.values()))
        count = "every trial" if len(failures) == len(trials) else f"{len(failures)} of {len(trials)} trials"
        rest = "" if len(failures) == len(trials) else f", and no other has a finite {scores.metric!r}"
        return NodeFailure(
            type="AllTrialsFailed" if len(failures) == len(trials) else "NoFiniteMetric",
            message=f"{count} failed{rest}; the first, {first.trial_id}: {first.type}: {first.message}",
            traceback=first.traceback,
            trial_id=first.trial_id,
        )
    return NodeFailure(
        type="NoFiniteMetric",
        message=f"no trial has a finite {scores.metric!r}: all {len(trials)} trials reported NaN or infinity "
        f"(scope {scores.scope!r})",
    )


def _too_few(successful: int, wanted: int, trials: Sequence[Trial], failures: Mapping[str, NodeFailure]) -> NodeFailure:
    first = next(iter(failures.values()), None)
    reason = f"; the first that failed, {first.trial_id}: {first.type}: {first.message}" if first else ""
    return NodeFailure(
        type="TooFewSuccessful",
        message=f"{successful} of {len(trials)} trials ended with a finite metric, fewer than min_successful "
        f"({wanted}){reason}",
        traceback=first.traceback if first else "",
        trial_id=first.trial_id if first else None,
    )


def _warnings(
    trials: Sequence[Trial],
    failures: Mapping[str, NodeFailure],
    scores: Scores,
    completion: Completion | None,
) -> list[str]:
    warnings = []
    if completion is not None and not completion.whole:
        warnings.append(f"the search ended before all its trials: {completion.reason}. Trials: {completion.summary()}")
    if failures and len(failures) < len(trials):
        first = next(iter(failures.values()))
        warnings.append(
            f"{len(failures)} of {len(trials)} trials failed; the first, {first.trial_id}: "
            f"{first.type}: {first.message}"
        )
    blind = [
        trial.trial_id
        for trial in trials
        if trial.status == Trial.TERMINATED
        and travelling(scores.metric) in (trial.last_result or {})
        and scores.values(trial.trial_id) is None
    ]
    if blind and len(blind) < len(trials):
        warnings.append(f"{len(blind)} trials were left out: their {scores.metric!r} is NaN or infinite")
    return warnings


def _unheeded(search: RayTune, trials: Sequence[Trial], scores: Scores) -> list[str]:
    results = [result for trial in trials if (result := scores.last(trial.trial_id))]
    return unheeded(search, results, sum(trial.has_checkpoint() for trial in trials))


def _stopped_early(best: Trial, missing: Sequence[str]) -> NodeFailure:
    names = ", ".join(map(repr, missing))
    steps = (best.last_result or {}).get("training_iteration", "?")
    return NodeFailure(
        type="MissingOutput",
        message=f"the best trial {best.trial_id} was stopped after step {steps}, before the function returned {names}, "
        "which the node declares in returns. Report it along the way, report({..., "
        f"{missing[0]!r}: value}}), raise the scheduler's max_t above the function's steps, or use the output "
        "'checkpoint' of a reported checkpoint",
        trial_id=best.trial_id,
    )


def _table(
    trials: Sequence[Trial],
    statuses: Mapping[str, str],
    failures: Mapping[str, NodeFailure],
    scores: Scores,
    attempt: Catalog,
) -> CatalogRef:
    """Write one row per trial: id, status, `config/…`, metrics, duration, error."""
    rows = []
    for trial in trials:
        failure = failures.get(trial.trial_id)
        result = scores.last(trial.trial_id)
        metrics = flat(reported_in(result))
        # A trial of PBT that took over another's hyperparameters and ended has not run with them.
        config = result.get("config") or trial.config
        rows.append(
            {
                "trial_id": trial.trial_id,
                "status": statuses[trial.trial_id],
                **flat(config, "config/"),
                **{metric_column(name): value for name, value in metrics.items()},
                CONFIG_COLUMN: json.dumps(sanitised(config)),
                "error": plain(f"{failure.type}: {failure.message}") if failure else None,
            }
        )
    empty = dict.fromkeys(("trial_id", "status", CONFIG_COLUMN, "error"), "str")
    return attempt.put(frame(rows, None if rows else empty), "trials", kind="parquet")


def _checkpoint(grid: ResultGrid, index: int, spec: NodeSpec, attempt: Catalog, trial_id: str) -> CatalogRef | None:
    """Copy a trial's checkpoint into the catalog: the object that was reported, or the folder."""
    search = spec.config.ray_tune
    assert search is not None
    result = grid[index]
    checkpoint = result.checkpoint
    if search.scope == "all" and result.best_checkpoints and search.metric and search.mode:
        checkpoint = result.get_best_checkpoint(search.metric, search.mode) or checkpoint
    if checkpoint is None:
        return None
    name = f"checkpoint-{trial_id}" if search.further_metrics else "checkpoint"
    return into_catalog(checkpoint, attempt, name)


def _remove_the_rest(kept: set[str], spec: NodeSpec, attempt: Catalog, *, experiment: bool) -> None:
    """Remove the other trials' outputs and, where nobody asked for Ray's logs, Tune's own files and checkpoints."""
    try:
        # Trials that an earlier attempt of this search had finished left their outputs in its folder.
        for number in range(spec.search_of or spec.attempt, spec.attempt + 1):
            for uri in attempt.list(f"{spec.node_prefix}/attempt_{number}/outputs"):
                if uri.rpartition("/")[2] not in kept:
                    attempt.delete(uri)
        if experiment:
            _remove_experiments(spec, attempt)
    except CatalogError as error:
        log.warning("Some files that are not needed any more remain: %s", error)


def _remove_experiments(spec: NodeSpec, attempt: Catalog) -> None:
    """Remove the search's experiment and those before it; a later attempt may be at work on one of its own."""
    left = False
    for uri in attempt.list(spec.experiment_prefix):
        match = re.match(r"attempt_(\d+)-", uri.rpartition("/")[2])
        if match and int(match.group(1)) > spec.attempt:
            left = True
        else:
            attempt.delete(uri)
    if not left:
        attempt.delete(spec.experiment_prefix)
