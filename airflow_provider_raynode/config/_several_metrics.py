"""A search with several metrics: how a file says them, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._section import Problem, as_validation_error
from airflow_provider_raynode.config._values import shown

if TYPE_CHECKING:
    from airflow_provider_raynode.config.tune import RayTune

_MODES = ("min", "max")


def with_further_metrics(data: dict[str, Any]) -> dict[str, Any]:
    """Return the section with lists of metrics and modes, here or in the search algorithm, as `further_metrics`.

    :raises ValidationError: the lists do not fit each other.
    """
    algorithm = data.get("search_algorithm")
    if isinstance(algorithm, Mapping) and any(isinstance(algorithm.get(name), list) for name in ("metric", "mode")):
        # Ray's way: its OptunaSearch takes the lists itself.
        for name in ("metric", "mode"):
            own = algorithm.get(name)
            if own is not None and data.get(name) not in (None, own):
                raise as_validation_error(
                    "ray_tune",
                    [
                        (
                            ("search_algorithm", name),
                            f"{shown(own)} contradicts {shown(data[name])} in another place: say it once, in "
                            f"ray_tune.{name}",
                        )
                    ],
                )
            data[name] = own if own is not None else data.get(name)
        data["search_algorithm"] = {key: each for key, each in algorithm.items() if key not in ("metric", "mode")}
    metrics, modes = data.get("metric"), data.get("mode")
    if not isinstance(metrics, list) and not isinstance(modes, list):
        return data
    problem = _list_problem(metrics, modes)
    if problem is None and data.get("further_metrics"):
        problem = ("further_metrics",), "cannot be beside a list of metrics: say them once"
    if problem is not None:
        raise as_validation_error("ray_tune", [problem])
    assert isinstance(metrics, list)
    every = dict(zip(metrics, modes if isinstance(modes, list) else [modes] * len(metrics), strict=True))
    data["metric"], data["mode"] = next(iter(every.items()))
    further = dict(list(every.items())[1:])
    return {**data, "further_metrics": further} if further else data


def _list_problem(metrics: Any, modes: Any) -> Problem | None:
    if not isinstance(metrics, list):
        return ("mode",), f"{shown(modes)} is a list, but metric is not: a mode for each of a list of metrics"
    if not metrics or not all(isinstance(name, str) and name for name in metrics):
        return ("metric",), f"{shown(metrics)} is not a list of names"
    twice = next((name for name in metrics if metrics.count(name) > 1), None)
    if twice is not None:
        return ("metric",), f"{twice!r} is there twice"
    if isinstance(modes, list) and len(modes) != len(metrics):
        return ("mode",), f"has {len(modes)} entries, metric has {len(metrics)}: a mode for each metric"
    for index, mode in enumerate(modes if isinstance(modes, list) else [modes]):
        if mode not in _MODES:
            where = ("mode", index) if isinstance(modes, list) else ("mode",)
            return where, "is missing: min or max" if mode is None else f"{shown(mode)} is not allowed: min or max"
    return None


def several_metrics_problems(tune: RayTune) -> Iterator[Problem]:
    """Yield what does not go with several metrics, below `ray_tune`."""
    if not tune.further_metrics:
        return
    # Imported here: only a file that needs them pays for them.
    from airflow_provider_raynode.config.schedulers import FIFOScheduler
    from airflow_provider_raynode.config.searchers import BasicVariantGenerator, OptunaSearch

    where = ("further_metrics",)
    if tune.metric in tune.further_metrics:
        yield (*where, str(tune.metric)), "is ray_tune.metric itself"
    if tune.scheduler is not None and not isinstance(tune.scheduler, FIFOScheduler):
        yield (
            ("scheduler", "type"),
            f"{tune.scheduler.type} compares trials by one metric: leave it out with several, or leave "
            f"{', '.join(tune.further_metrics)} out",
        )
    searcher = tune.search_algorithm
    if isinstance(searcher, OptunaSearch):
        if searcher.sampler is not None and not getattr(searcher.sampler, "several_metrics", True):
            yield ("search_algorithm", "sampler", "type"), f"{searcher.sampler.type} takes one metric, not several"
        if searcher.evaluated_rewards is not None:
            yield ("search_algorithm", "evaluated_rewards"), "has one value per point: not with several metrics"
    elif searcher is not None and not isinstance(searcher, BasicVariantGenerator):
        yield (
            ("search_algorithm", "type"),
            f"{searcher.type} learns from one metric: OptunaSearch and BasicVariantGenerator take several",
        )
    if tune.scope != "last":
        yield ("scope",), f"{tune.scope} is for one metric: with several, trials are compared by their last reports"
