"""The dates of a run, as Airflow's scheduler gives them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG


@dataclass(frozen=True)
class RunDates:
    """When a run is for: all of it with a time zone."""

    logical_date: datetime
    interval_start: datetime
    interval_end: datetime
    scheduled: bool


def run_dates(dag: DAG, *, run_after: datetime, scheduled: datetime | None, logical: datetime | None) -> RunDates:
    """Return the dates of a run.

    :param run_after: when the run was submitted.
    :param scheduled: the time that a cron schedule asked for; None for a run by hand.
    :param logical: the date that somebody asked for, over both.
    """
    asked = logical or scheduled or run_after
    start, end = _interval(dag.timetable, asked)
    # A scheduled run is for the interval that its time ends; one by hand is for the time itself, as in `dag.test`.
    date = start if scheduled is not None and logical is None else asked
    return RunDates(date, start, end, scheduled=scheduled is not None and logical is None)


def _interval(timetable: Any, run_after: datetime) -> tuple[datetime, datetime]:
    from airflow.sdk.definitions.timetables.simple import NullTimetable, OnceTimetable
    from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable

    if isinstance(timetable, NullTimetable | OnceTimetable):
        return run_after, run_after
    if type(timetable) is CronTriggerTimetable:
        return run_after - timetable.interval, run_after
    # The rest needs Airflow's core, which takes its time to import.
    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable

    found = coerce_to_core_timetable(timetable).infer_manual_data_interval(run_after=pendulum.instance(run_after))
    return found.start, found.end
