"""What a search's config says about names that trials report, held against what they report. Pure: no airflow, no ray.

`stop`, `time_attr` and `checkpoint_score_attribute` name reported values; a name that nobody reports would do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.schedulers import (
    PB2,
    HyperBandForBOHB,
    HyperBandScheduler,
    Measured,
    PopulationBasedTraining,
    ResourceChangingScheduler,
    Scheduler,
)
from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.names import COUNTERS, key_of, listed, nearest, reported_in

_POPULATION = (PopulationBasedTraining, PB2)
_PAUSING = (HyperBandScheduler, HyperBandForBOHB)


@dataclass(frozen=True)
class Reference:
    """One place in the config that names a reported value.

    `at_once`: Ray ends the whole search at a first report without it.
    """

    key: str
    name: str
    role: Literal["stop", "time", "checkpoint"]
    at_once: bool = False


def references(search: RayTune) -> tuple[Reference, ...]:
    """Return every name in the config that refers to something reported, apart from the metric."""
    return tuple(_references(search))


def training_references(config: RayConfig) -> tuple[Reference, ...]:
    """Return every name in `ray_train` that refers to something reported, apart from the metric."""
    section = config.ray_train
    if section is None:
        return ()
    found = [Reference(f"ray_train.stop.{name}", name, "stop") for name in section.stop or ()]
    attribute = section.checkpoint.checkpoint_score_attribute
    if attribute is not None:
        found.append(Reference("ray_train.checkpoint.checkpoint_score_attribute", attribute, "checkpoint"))
    return tuple(found)


def _references(search: RayTune) -> Iterator[Reference]:
    for name in search.stop or ():
        yield Reference(f"ray_tune.stop.{name}", name, "stop")
    attribute = search.checkpoint.checkpoint_score_attribute
    if attribute is not None:
        yield Reference("ray_tune.checkpoint.checkpoint_score_attribute", attribute, "checkpoint")
    where, scheduler = _deciding(search)
    time_attr = getattr(scheduler, "time_attr", None)
    if time_attr is not None:
        at_once = isinstance(scheduler, _POPULATION) and scheduler.require_attrs
        yield Reference(f"{where}.time_attr", time_attr, "time", at_once)


def _deciding(search: RayTune) -> tuple[str, Scheduler | None]:
    """Return the scheduler that decides on the trials, and where the config has it."""
    scheduler, where = search.scheduler, "ray_tune.scheduler"
    if isinstance(scheduler, ResourceChangingScheduler):
        return f"{where}.base_scheduler", scheduler.base_scheduler
    return where, scheduler


@dataclass
class ReportCheck:
    """Holds the reports of one running trial against the config."""

    references: Sequence[Reference] = ()
    _reports: int = 0
    _names: set[str] = field(default_factory=set)
    _times: dict[str, float] = field(default_factory=dict)

    def check(
        self, metrics: Mapping[str, Any], outputs: Mapping[str, Any], *, checkpoint: bool = False, last: bool = False
    ) -> None:
        """Check one report.

        :param outputs: what was reported and is no metric.
        :param checkpoint: whether a checkpoint comes with it.
        :param last: what the function returned, with the metrics of its last report where it names none.
        :raises RayNodeError: a name that the config refers to is missing, or its value is not one to count or compare.
        """
        self._reports += 1
        self._names |= set(metrics)
        for reference in self.references:
            if reference.name in COUNTERS:
                if reference.name in metrics:
                    raise RayNodeError(
                        f"{reference.key}: {reference.name!r} is Tune's own counter, and the function reports a value "
                        "of that name too: report it under another name"
                    )
            elif reference.name in outputs:
                raise RayNodeError(
                    f"{reference.key}: {reference.name!r} is not reported as a number, but as a "
                    f"{type(outputs[reference.name]).__name__}: report the number itself, under a name of its own"
                )
            elif reference.name in metrics:
                self._check_value(reference, metrics[reference.name], checkpoint=checkpoint, last=last)
            elif self._misses(reference, checkpoint=checkpoint):
                raise RayNodeError(f"{reference.key}: {_never(reference.name, self._names)}")

    def _misses(self, reference: Reference, *, checkpoint: bool) -> bool:
        """Whether this report had to have it: one report alone may be all that a function has to say."""
        if reference.role == "time":
            return reference.at_once or self._reports > 1
        if reference.role == "checkpoint" and checkpoint:
            return True
        return self._reports > 1 and reference.name not in self._names

    def _check_value(self, reference: Reference, value: Any, *, checkpoint: bool, last: bool) -> None:
        number = isinstance(value, int | float)
        if reference.role == "time":
            if not number or isinstance(value, bool) or not math.isfinite(value):
                raise RayNodeError(f"{reference.key}: {reference.name!r} must count up, got {value!r:.80}")
            before = self._times.get(reference.name)
            # What is returned at the end repeats the last report.
            if before is not None and (value < before or (value == before and not last)):
                raise RayNodeError(
                    f"{reference.key}: {reference.name!r} must grow from report to report, but went from {before:g} "
                    f"to {value:g}: count a trial's steps with it, or leave time_attr out (Tune counts the reports)"
                )
            self._times[reference.name] = value
        elif not number and not (value is None and not checkpoint):
            raise RayNodeError(
                f"{reference.key}: {reference.name!r} must be a number, got {type(value).__name__}: {value!r:.80}"
            )


def _never(name: str, reported: set[str]) -> str:
    own = ", ".join(sorted(COUNTERS))
    return (
        f"no report has {name!r}{nearest(name, {*reported, *COUNTERS})}; reported: {listed(reported)}; "
        f"Tune itself counts: {own}"
    )


def unheeded(search: RayTune, results: Sequence[Mapping[str, Any]], checkpoints: int) -> list[str]:
    """Return a warning for each setting that did nothing, by what the trials reported.

    :param results: the last Tune result of each trial that reported.
    :param checkpoints: how many trials reported a checkpoint.
    """
    if not results:
        return []
    reported = {name for result in results for name in reported_in(result)}
    warnings = [
        f"{reference.key} had no effect: {_never(reference.name, reported)}"
        for reference in references(search)
        if reference.name not in COUNTERS and reference.name not in reported
    ]
    return warnings + list(_idle_scheduler(search, results, checkpoints))


def _idle_scheduler(search: RayTune, results: Sequence[Mapping[str, Any]], checkpoints: int) -> Iterator[str]:
    where, scheduler = _deciding(search)
    steps = max(int(result.get("training_iteration") or 0) for result in results)
    if isinstance(search.scheduler, ResourceChangingScheduler) and steps > 1 and not checkpoints:
        yield (
            "ray_tune.scheduler: ResourceChangingScheduler ran without checkpoints, so a trial begins anew when its "
            "resources change: report({...}, checkpoint=state), and go on from get_checkpoint()"
        )
    if not isinstance(scheduler, Measured):
        return
    name = scheduler.type
    if steps <= 1:
        does = "change" if isinstance(scheduler, _POPULATION) else "stop"
        yield (
            f"{where}: {name} had nothing to {does}: each trial reported once, at its end. Call report({{...}}) at "
            "each step of the function"
        )
        return
    if isinstance(scheduler, (*_POPULATION, *_PAUSING)) and not checkpoints:
        what = "no trial could go on from a better one" if isinstance(scheduler, _POPULATION) else "a paused trial"
        ending = "" if isinstance(scheduler, _POPULATION) else " begins anew"
        yield (
            f"{where}: {name} ran without checkpoints, so {what}{ending}: report({{...}}, checkpoint=state), and go "
            "on from get_checkpoint()"
        )
    field_name = "perturbation_interval" if isinstance(scheduler, _POPULATION) else "grace_period"
    first = getattr(scheduler, field_name, None)
    times = [result.get(key_of(scheduler.time_attr)) for result in results]
    reached = max((value for value in times if isinstance(value, int | float)), default=None)
    if first is not None and reached is not None and reached < first:
        yield (
            f"{where}: {name} had no effect: the longest trial ended at {scheduler.time_attr} {reached:g}, before "
            f"{field_name} ({first:g})"
        )
