"""A DAG's schedule as Argo's: which kind of workflow, which cron lines, in which zone, between which dates."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_raynode.argo.lint.cron import FIELDS, cron_problem, field_values, timezone_problem

if TYPE_CHECKING:
    from airflow.sdk import DAG

Kind = Literal["workflow", "template", "cron"]
_DAY, _WEEKDAY = 2, 4
# croniter's R and H: an hour of its own choice, another one at each parsing.
_BY_CHANCE = re.compile(r"(^|[,\s])[rh](\(|[/,\s]|$)", re.IGNORECASE)
_REMEDY = (
    "write it with five fields of numbers, names, ranges, lists and steps; several lines go in a "
    "MultipleCronTriggerTimetable"
)
# A controller's clock may be a little ahead of ours; two times of a schedule are a minute apart or more.
_SLACK = timedelta(seconds=30)


@dataclass(frozen=True)
class ScheduleProblem:
    """What Argo cannot do of a schedule."""

    feature: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Schedule:
    """When a DAG runs.

    `crons` are lines as Argo parses them, empty where nothing is scheduled; `source` are Airflow's lines where they
    differ; `when` is the condition on the time, from start_date and end_date.
    """

    kind: Kind
    crons: tuple[str, ...] = ()
    timezone: str = "UTC"
    problems: tuple[ScheduleProblem, ...] = ()
    source: tuple[str, ...] = ()
    when: str = ""
    notes: tuple[str, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether runs begin by the clock, be it in a way that Argo does not know."""
        return bool(self.crons) or any(each.feature != "asset-schedule" for each in self.problems)


class CronSyntaxError(ValueError):
    """A cron line of Airflow says what none of Argo's can say."""


def schedule_of(dag: DAG, now: datetime | None = None) -> Schedule:
    """Return the schedule of a DAG, with the problems where Argo has nothing like it.

    :param now: the time that dates are compared with; default: the clock's.
    """
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
        return _dated(_cron([timetable]), dag, now or datetime.now(UTC))
    if type(timetable) is MultipleCronTriggerTimetable:
        return _dated(_cron(timetable.timetables), dag, now or datetime.now(UTC))
    if isinstance(timetable, AssetTriggeredTimetable):
        return _problem(
            "asset-schedule",
            "the DAG is scheduled by assets, and Argo has no assets",
            "export with schedule=None and submit the template where the asset is made, or use Argo Events",
        )
    kind = type(timetable).__name__
    return _problem(
        "timetable",
        f"the DAG is scheduled by {kind}, which is no cron line",
        "write the schedule as cron lines, or as None and submit the template from outside",
    )


def as_argo_cron(expression: str) -> str:
    """Return a cron line that means to Argo what the line means to Airflow, as it is where both agree.

    Airflow's croniter lets ranges run over the end (`fri-mon`), takes `5-5` for the whole cycle and `*/1` beside a
    restricted day for a restriction; Argo's robfig/cron does not, and has no 7 for Sunday.

    :raises CronSyntaxError: Argo has no such line.
    """
    fields, expanded = _parsed(expression)
    wanted = [frozenset(field.values() if "*" in each else each) for field, each in zip(FIELDS, expanded, strict=True)]
    stars = ["*" in each for each in expanded]
    found = [field_values(text, field) for text, field in zip(fields, FIELDS, strict=True)]
    lines = [
        text if values is not None and values[0] == want else _written(want, field, star=star)
        for text, field, values, want, star in zip(fields, FIELDS, found, wanted, stars, strict=True)
    ]
    # Days: where one of the two fields is a star both must match, else one is enough. Each side has its own stars.
    days = [field_values(lines[index], FIELDS[index]) for index in (_DAY, _WEEKDAY)]
    has_star = any(each is not None and each[1] for each in days)
    either = not stars[_DAY] and not stars[_WEEKDAY]
    for index in (_DAY, _WEEKDAY):
        if has_star == either or (either and re.search(r"[*?]", lines[index])):
            lines[index] = _written(wanted[index], FIELDS[index], star=stars[index])
    return " ".join(lines)


def _parsed(expression: str) -> tuple[list[str], list[list[Any]]]:
    """Return the five fields as they are written, and as croniter expands them.

    :raises CronSyntaxError: see `as_argo_cron`.
    """
    from croniter import CroniterError, croniter  # type: ignore[import-untyped]

    if _BY_CHANCE.search(expression):
        raise CronSyntaxError("R and H choose a time of their own, and Argo does not know them")
    try:
        cron = croniter(expression)
    except CroniterError as error:
        raise CronSyntaxError(cron_problem(expression) or str(error)) from error
    if len(cron.expanded) != len(FIELDS):
        raise CronSyntaxError(cron_problem(expression) or f"it has {len(cron.expanded)} fields")
    if cron.nth_weekday_of_month or getattr(cron, "nearest_weekday", None) or any("l" in e for e in cron.expanded):
        raise CronSyntaxError("#, L and W are not known to Argo")
    fields = expression.split()
    if len(fields) != len(FIELDS):
        # A macro of croniter's, such as @midnight.
        fields = ["-"] * len(FIELDS)
    expanded = [list(each) for each in cron.expanded]
    expanded[_WEEKDAY] = [each if each == "*" else each % 7 for each in expanded[_WEEKDAY]]
    return fields, expanded


def _written(values: frozenset[int], field: Any, *, star: bool) -> str:
    """Return a field with the given values, without a star where it is none."""
    if star:
        return "*"
    rest, parts = sorted(values), []
    if step := _step(rest):
        may_be_star = field not in (FIELDS[_DAY], FIELDS[_WEEKDAY])
        is_whole = rest[0] == field.least and rest[-1] + step > field.most
        return f"{'*' if may_be_star and is_whole else f'{rest[0]}-{rest[-1]}'}/{step}"
    while rest:
        length = next((n for n in range(1, len(rest)) if rest[n] != rest[0] + n), len(rest))
        parts.append(str(rest[0]) if length == 1 else f"{rest[0]}-{rest[length - 1]}")
        rest = rest[length:]
    return ",".join(parts)


def _step(values: list[int]) -> int:
    """Return the step of a progression of three or more, 0 where it is none or is a plain range."""
    steps = {after - before for before, after in itertools.pairwise(values)}
    return steps.pop() if len(values) > 2 and len(steps) == 1 and steps != {1} else 0


def _cron(timetables: list[Any]) -> Schedule:
    lines: list[str] = []
    problems: list[ScheduleProblem] = []
    for each in timetables:
        try:
            lines.append(as_argo_cron(each.expression))
        except CronSyntaxError as error:
            reason = f"the schedule {each.expression!r} is not one that Argo parses: {error}"
            problems.append(ScheduleProblem("cron-syntax", reason, _REMEDY))
    zone = _zone(timetables[0].timezone)
    if problem := timezone_problem(zone):
        problems.append(ScheduleProblem("timezone", f"the schedule's zone: {problem}", "name one in the timetable"))
    if problems:
        return Schedule("cron", problems=tuple(problems))
    source = tuple(each.expression for each in timetables)
    crons = tuple(dict.fromkeys(lines))
    return Schedule("cron", crons, zone, source=() if source == crons else source)


def _zone(timezone: Any) -> str:
    """Return a time zone as an IANA name: of the offsets without a name, Argo knows those of whole hours."""
    name = str(getattr(timezone, "name", None) or timezone)
    if name.upper() in ("UTC", "Z", "+00:00"):
        return "UTC"
    if offset := re.fullmatch(r"([+-])(\d\d):00", name):
        # POSIX counts westwards.
        return f"Etc/GMT{'-' if offset[1] == '+' else '+'}{int(offset[2])}"
    return name


def run_bounds(dag: DAG) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last date of a DAG's runs, as Airflow's scheduler takes them from DAG and tasks."""
    starts = [task.start_date for task in dag.tasks if task.start_date] + ([dag.start_date] if dag.start_date else [])
    ends = [task.end_date for task in dag.tasks if task.end_date]
    if not ends or len(ends) < len(dag.tasks):
        return min(starts, default=None), dag.end_date
    return min(starts, default=None), max([*ends, *([dag.end_date] if dag.end_date else [])])


def _dated(schedule: Schedule, dag: DAG, now: datetime) -> Schedule:
    """Return the schedule with the conditions that start_date and end_date make, and with what is to be told."""
    if schedule.problems:
        return schedule
    from airflow_provider_raynode.argo.fire_times import daylight_notes
    from airflow_provider_raynode.argo.task_sdk import FireTimes

    times = FireTimes(dag.timetable)
    if never := times.never(now):
        reason = f"the schedule {never!r} names no date that there is"
        return replace(schedule, crons=(), problems=(ScheduleProblem("cron-syntax", reason, "name another"),))
    start, end = run_bounds(dag)
    notes = daylight_notes(times, schedule.crons, schedule.timezone, now)
    conditions: list[str] = []
    if start is not None:
        first = times.first(start)
        if first > now:
            conditions.append(f"now() >= date('{_go(first - _SLACK)}')")
    if end is not None:
        after = times.after_last(end)
        conditions.append(f"now() < date('{_go(after - _SLACK)}')")
        if after <= now:
            notes.append(f"end_date {end:%Y-%m-%d %H:%M} has passed: as in Airflow, no run begins any more")
    if times.runs_at_once:
        notes.append("run_immediately is ignored: the first run begins at the schedule's next time")
    when = f"{{{{= {' && '.join(conditions)} }}}}" if conditions else ""
    return replace(schedule, when=when, notes=tuple(notes))


def _go(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _problem(feature: str, reason: str, remedy: str) -> Schedule:
    return Schedule("template", problems=(ScheduleProblem(feature, reason, remedy),))
