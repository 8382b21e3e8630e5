"""Where the clocks change, the times at which Airflow and Argo start a schedule's runs are not the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from airflow_provider_raynode.argo.robfig import RobfigSchedule

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.task_sdk import FireTimes

# A change of the clocks moves the times of some hours around it.
_AROUND = timedelta(hours=4)
# robfig/cron may miss the whole day after a midnight that there is not.
_AROUND_DAYS = timedelta(hours=28)
_AHEAD = timedelta(days=10 * 366)
_SHOWN = 3


def argo_times(crons: Iterable[str], zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Return Argo's times after `start` and before `end`; of several lines that fire at once, one run comes."""
    found: set[datetime] = set()
    for line in crons:
        schedule = RobfigSchedule(line, zone)
        moment = schedule.next(start)
        while moment is not None and moment < end:
            found.add(moment)
            moment = schedule.next(moment)
    return sorted(found)


def daylight_notes(times: FireTimes, crons: Sequence[str], zone: str, now: datetime) -> list[str]:
    """Return a warning where Airflow and Argo differ at the next changes of the clocks, one forward and one back."""
    place = ZoneInfo(zone)
    # Each change is like the next one, where every day is like the next.
    is_daily = all(line.endswith(" * * *") for line in crons)
    seen: set[bool] = set()
    found: dict[bool, str] = {}
    for change, forward in _changes(place, now):
        if forward not in found and not (is_daily and forward in seen):
            seen.add(forward)
            start, end = change - _AROUND, change + (_AROUND if is_daily else _AROUND_DAYS)
            airflow, argo = set(times.between(start, end)), set(argo_times(crons, place, start, end))
            if airflow != argo:
                told = _difference(airflow - argo, argo - airflow, place)
                found[forward] = f"on {change.astimezone(place):%Y-%m-%d} {told}"
        if len(found) == 2:
            break
    if not found:
        return []
    lines = " and ".join(map(repr, crons))
    return [
        f"daylight saving: the schedule {lines} in {zone} meets the hours that a change of the clocks skips or repeats"
        f": {'; '.join(found.values())}. Choose another hour, or UTC"
    ]


def _difference(airflow: set[datetime], argo: set[datetime], zone: ZoneInfo) -> str:
    if not argo:
        return f"Airflow starts a run at {_listed(airflow, zone)} and Argo does not"
    if not airflow:
        return f"Argo starts one more run, at {_listed(argo, zone)}"
    return f"Airflow starts a run at {_listed(airflow, zone)}, and Argo at {_listed(argo, zone)}"


def _listed(times: set[datetime], zone: ZoneInfo) -> str:
    found = [f"{each.astimezone(zone):%H:%M (%z)}" for each in sorted(times)]
    return ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")


def _changes(zone: ZoneInfo, now: datetime) -> Iterator[tuple[datetime, bool]]:
    """Yield each change of the clocks in the next years, and whether they go forward."""
    moment = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last, day = moment + _AHEAD, timedelta(days=1)
    while moment < last:
        before, after = (each.astimezone(zone).utcoffset() or timedelta() for each in (moment, moment + day))
        if before != after:
            at = moment
            while (at.astimezone(zone).utcoffset() or timedelta()) == before:
                at += timedelta(minutes=30)
            yield at, after > before
        moment += day
