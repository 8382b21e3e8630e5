"""A DAG's schedule as Argo's: which kind of workflow, which cron lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from airflow.sdk import DAG

Kind = Literal["workflow", "template", "cron"]
_WEEKDAYS = "0-6"


@dataclass(frozen=True)
class Schedule:
    """When a DAG runs.

    `crons` are lines as Argo parses them, empty where nothing is scheduled; `problem` says what Argo cannot do.
    """

    kind: Kind
    crons: tuple[str, ...] = ()
    timezone: str | None = None
    feature: str = ""
    problem: str = ""
    remedy: str = ""


def schedule_of(dag: DAG) -> Schedule:
    """Return the schedule of a DAG, with the problem where Argo has nothing like it."""
    from airflow.sdk.definitions.timetables.assets import AssetTriggeredTimetable
    from airflow.sdk.definitions.timetables.interval import CronDataIntervalTimetable
    from airflow.sdk.definitions.timetables.simple import NullTimetable, OnceTimetable
    from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

    timetable: Any = dag.timetable
    if isinstance(timetable, NullTimetable):
        return Schedule("template")
    if isinstance(timetable, OnceTimetable):
        return Schedule("workflow")
    # The classes themselves: what a subclass adds, Argo would not know.
    if type(timetable) in (CronTriggerTimetable, CronDataIntervalTimetable):
        return _cron([timetable])
    if type(timetable) is MultipleCronTriggerTimetable:
        return _cron(timetable.timetables)
    if isinstance(timetable, AssetTriggeredTimetable):
        return Schedule(
            "template",
            feature="asset-schedule",
            problem="the DAG is scheduled by assets, and Argo has no assets",
            remedy="export with schedule=None and submit the template where the asset is made, or use Argo Events",
        )
    kind = type(timetable).__name__
    return Schedule(
        "template",
        feature="timetable",
        problem=f"the DAG is scheduled by {kind}, which is no cron line",
        remedy="write the schedule as cron lines, or as None and submit the template from outside",
    )


def _cron(timetables: list[Any]) -> Schedule:
    from airflow_provider_raynode.argo.lint.cron import cron_problem

    lines: list[str] = []
    zones = {str(getattr(each.timezone, "name", each.timezone)) for each in timetables}
    for each in timetables:
        line = as_argo_cron(each.expression)
        if problem := cron_problem(line):
            return Schedule(
                "cron",
                feature="cron-syntax",
                problem=f"the schedule {each.expression!r} is not one that Argo parses: {problem}",
                remedy="write it with five fields of numbers, ranges, lists and steps; several lines go in a "
                "MultipleCronTriggerTimetable",
            )
        lines.append(line)
    return Schedule("cron", tuple(dict.fromkeys(lines)), zones.pop() if len(zones) == 1 else None)


def as_argo_cron(expression: str) -> str:
    """Return a cron line with the day of the week as Argo has it: Sunday is 0, and never 7."""
    fields = expression.split()
    if len(fields) != 5:
        return expression
    fields[4] = ",".join(_weekday(part) for part in fields[4].split(","))
    return " ".join(fields)


def _weekday(part: str) -> str:
    if "#" in part or not re.search(r"7", part):
        return part
    body, slash, step = part.partition("/")
    low, dash, high = body.partition("-")
    if not dash:
        return f"0{slash}{step}" if low == "7" else part
    if high != "7" or not low.isdigit():
        return part
    every = int(step) if step.isdigit() else 1
    days = sorted({day % 7 for day in range(int(low), 8, every)})
    return _WEEKDAYS if days == list(range(7)) else ",".join(map(str, days))
