"""When Airflow's scheduler starts the runs of a cron schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


class FireTimes:
    """When Airflow starts the runs of a DAG.

    :param timetable: one cron timetable of the SDK, or one of several.
    """

    def __init__(self, timetable: Any) -> None:
        from airflow.serialization.encoders import coerce_to_core_timetable

        core: Any = coerce_to_core_timetable(timetable)
        self._each = list(getattr(core, "_timetables", [core]))
        # A data interval's run starts when the interval ends.
        self._at_end = not hasattr(self._each[0], "_run_immediately")
        self.runs_at_once = any(getattr(each, "_run_immediately", False) for each in self._each)

    def never(self, now: datetime) -> str:
        """Return a cron line that never fires, such as one for the 31st of February; empty where all do."""
        from croniter import CroniterBadDateError  # type: ignore[import-untyped]

        for each in self._each:
            try:
                each._get_next(_pendulum(now))
            except CroniterBadDateError:
                return str(each._expression)
        return ""

    def first(self, start: datetime) -> datetime:
        """Return when the first run starts that is not before a start_date."""
        found: list[datetime] = [each._align_to_next(_pendulum(start)) for each in self._each]
        if self._at_end:
            found = [each._get_next(moment) for each, moment in zip(self._each, found, strict=True)]
        return min(found)

    def after_last(self, end: datetime) -> datetime:
        """Return when the first run would start that an end_date forbids."""
        found: list[datetime] = []
        for each in self._each:
            moment = each._get_next(each._align_to_prev(_pendulum(end)))
            found.append(each._get_next(moment) if self._at_end else moment)
        return min(found)

    def between(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the times after `start` and before `end`."""
        found: set[datetime] = set()
        for each in self._each:
            moment = each._get_next(_pendulum(start))
            while moment < end:
                found.add(moment.astimezone(UTC))
                moment = each._get_next(moment)
        return sorted(found)


def _pendulum(moment: datetime) -> Any:
    import pendulum

    return pendulum.instance(moment)
