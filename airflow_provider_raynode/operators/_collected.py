"""What fan-in makes of a proven result, by the kind of the node's work: what it pushes, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.operators._progress import clock, short
from airflow_provider_raynode.spec import Completion, MapEnd, NodeResult, TrainingEnd

# What of a result goes into XCom at most: the run record has all.
_FAILED_SHOWN = 100
_LONGEST = 4_000


def collected(work: WorkKind, result: NodeResult, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fan-in pushes; see `RayFanInOperator`.

    :param record: the reference of the run record.
    """
    return {**_COLLECTED[work](result), "run_record": dict(record)}


def leave_out(output: dict[str, Any], kept: Collection[str], longest: int = _LONGEST) -> dict[str, list[str]]:
    """Leave out of what is pushed the metrics that would make it larger than goes through XCom; the longest go first.

    :param kept: names of metrics that stay: the node's own, and those that other tasks take.
    :return: the names that were left out, by part of the output; the run record has them all.
    """
    left: dict[str, list[str]] = {}
    for part in ("metrics", "best_metrics"):
        metrics = output.get(part)
        if not isinstance(metrics, dict):
            continue
        spare = sorted((name for name in metrics if name not in kept), key=lambda name: -_size(metrics[name], name))
        over = _size(output) - longest
        while over > 0 and spare:
            name = spare.pop(0)
            over -= _size(metrics[name], name)
            left.setdefault(part, []).append(name)
        if part in left:
            output[part] = {name: value for name, value in metrics.items() if name not in left[part]}
    return left


def _size(*values: Any) -> int:
    """Return the bytes of values as JSON, with what stands between them."""
    return sum(len(json.dumps(value)) + 2 for value in values)


def told(work: WorkKind, result: NodeResult) -> Iterator[str]:
    """Yield the lines that fan-in writes into the task's log."""
    yield from _TOLD[work](result)
    for name, reference in result.outputs.items():
        yield f"Output {name} ({reference['kind']}, {reference['size']} bytes): {reference['uri']}"
    yield f"{_summary(work, result)} in {clock((result.ended - result.started).total_seconds())}"


def _search(result: NodeResult) -> dict[str, Any]:
    best = result.best
    assert best is not None
    return {
        "best_trial": best.trial_id,
        "best_config": best.config,
        "best_metrics": best.metrics,
        "outputs": result.outputs,
        # Of one metric there is none.
        **({} if result.front is None else {"front": result.front}),
        "trials": result.trials,
        "steps": result.steps,
        "completion": (result.completion or Completion()).model_dump(mode="json", exclude={"reason"}),
    }


def _training(result: NodeResult) -> dict[str, Any]:
    end = result.training or TrainingEnd()
    told = end.model_dump(mode="json", include={"world_size", "reports", "ending", "restarts", "resumed_from"})
    return {
        "metrics": result.metrics or {},
        "best_metrics": result.best_metrics,
        "outputs": result.outputs,
        "steps": result.steps,
        "training": {**told, "best_step": result.best_step},
    }


def _function(result: NodeResult) -> dict[str, Any]:
    return {"value": result.value, "metrics": result.metrics or {}, "outputs": result.outputs}


def _map(result: NodeResult) -> dict[str, Any]:
    items = (result.items or MapEnd()).model_dump(mode="json", exclude={"reason"})
    return {
        "results": result.outputs.get("results"),
        "failed": list(result.failed[:_FAILED_SHOWN]),
        "items": items,
        "outputs": result.outputs,
    }


_COLLECTED = {"search": _search, "training": _training, "function": _function, "map": _map}


def _told_search(result: NodeResult) -> Iterator[str]:
    best = result.best
    assert best is not None
    yield f"Best trial {best.trial_id}: {result.metric} {short(best.metrics.get(result.metric or ''))}"
    for name, value in best.config.items():
        yield f"    {name} = {short(value)}"


def _told_training(result: NodeResult) -> Iterator[str]:
    if result.best_metrics is not None and result.metric is not None:
        yield f"Best report {result.best_step}: {result.metric} {short(result.best_metrics.get(result.metric))}"
    if result.metrics:
        yield "Last report: " + ", ".join(f"{name} {short(value)}" for name, value in result.metrics.items())


def _told_function(result: NodeResult) -> Iterator[str]:
    if result.metrics:
        yield "Metrics: " + ", ".join(f"{name} {short(value)}" for name, value in result.metrics.items())
    if result.value is not None:
        yield f"Value: {result.value!r:.200}"


def _told_map(result: NodeResult) -> Iterator[str]:
    if result.failed:
        shown = ", ".join(map(str, result.failed[:20]))
        yield f"Failed items: {shown}{', …' if len(result.failed) > 20 else ''}"


_TOLD = {"search": _told_search, "training": _told_training, "function": _told_function, "map": _told_map}


def _summary(work: WorkKind, result: NodeResult) -> str:
    if work == "search":
        return f"Trials: {(result.completion or Completion()).summary()}"
    if work == "training":
        end = result.training or TrainingEnd()
        reason = f" ({end.reason})" if end.reason else ""
        workers = f", {end.world_size} workers" if end.world_size else ""
        return f"Training: {end.ending}{reason}, {end.reports} reports{workers}"
    if work == "map":
        items = result.items or MapEnd()
        kept = f", {items.failed} failed" if items.failed else ""
        return f"Items: {items.succeeded} of {items.items} done{kept}"
    return "Function: returned"
