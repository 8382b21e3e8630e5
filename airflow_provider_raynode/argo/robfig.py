"""When Argo starts the runs of a cron line: the clock of Go's robfig/cron 3.0.1 (SpecSchedule.Next in its spec.go).

Written after its source with all that comes of it: it goes on by real hours from a start on the wall, so that the days
and hours around a change of the clocks are not always those that the line names.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from airflow_provider_raynode.argo.lint.cron import FIELDS, field_values

_HOUR, _MINUTE = 3600, 60
# Where nothing fits for so long, robfig/cron gives up.
_YEARS = 5


class RobfigSchedule:
    """A cron line in a time zone.

    :raises ValueError: Argo does not take the line.
    """

    def __init__(self, line: str, zone: ZoneInfo) -> None:
        self._zone = zone
        found = [field_values(text, field) for text, field in zip(line.split(), FIELDS, strict=True)]
        if None in found:
            raise ValueError(f"{line!r} is no cron line of Argo")
        fields = [each for each in found if each is not None]
        self._minutes, self._hours, self._days, self._months, self._weekdays = (values for values, _ in fields)
        self._needs_both = fields[2][1] or fields[4][1]

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after a moment, None where there is none in five years."""
        time = _GoTime(int(after.timestamp()) + 1, self._zone)
        last = time.wall.year + _YEARS
        self._added = False
        while time.wall.year <= last:
            time, is_found = self._step(time)
            if is_found:
                return datetime.fromtimestamp(time.unix, UTC)
        return None

    def _step(self, time: _GoTime) -> tuple[_GoTime, bool]:
        """Go on to the next time that fits, or until a field wraps round: then all is looked at anew."""
        while time.wall.month not in self._months:
            time = self._from(time, day=1, hour=0, minute=0, second=0).after_month()
            if time.wall.month == 1:
                return time, False
        while not self._is_day(time.wall):
            time = self._from(time, hour=0, minute=0, second=0).after_day()
            if hour := time.wall.hour:
                # Where the clocks skip midnight; it may put the time a day back.
                time = time.plus(_HOUR * (24 - hour if hour > 12 else -hour))
            if time.wall.day == 1:
                return time, False
        while time.wall.hour not in self._hours:
            time = self._from(time, minute=0, second=0).plus(_HOUR)
            if time.wall.hour == 0:
                return time, False
        while time.wall.minute not in self._minutes:
            if not self._added:
                self._added, time = True, _GoTime(time.unix - time.unix % _MINUTE, self._zone)
            time = time.plus(_MINUTE)
            if time.wall.minute == 0:
                return time, False
        if time.wall.second:
            self._added, time = True, time.plus(_MINUTE - time.wall.second)
            # The second wraps round at each minute.
            return time, False
        return time, True

    def _from(self, time: _GoTime, **changes: int) -> _GoTime:
        """Return the start of the field that is counted up first; later ones are at their start already."""
        if self._added:
            return time
        self._added = True
        return time.at_wall(**changes)

    def _is_day(self, wall: datetime) -> bool:
        by_day, by_weekday = wall.day in self._days, wall.isoweekday() % 7 in self._weekdays
        return (by_day and by_weekday) if self._needs_both else (by_day or by_weekday)


class _GoTime:
    """Go's time.Time in one location, in whole seconds."""

    def __init__(self, unix: int, zone: ZoneInfo) -> None:
        self.unix, self._zone = unix, zone
        self.wall = datetime.fromtimestamp(unix, zone)

    def plus(self, seconds: int) -> _GoTime:
        return _GoTime(self.unix + seconds, self._zone)

    def at_wall(self, **changes: int) -> _GoTime:
        return self._date(self._naive().replace(**changes))  # type: ignore[arg-type]

    def after_day(self) -> _GoTime:
        return self._date(self._naive() + timedelta(days=1))

    def after_month(self) -> _GoTime:
        month = self.wall.month % 12 + 1
        return self._date(self._naive().replace(year=self.wall.year + (month == 1), month=month))

    def _naive(self) -> datetime:
        return self.wall.replace(tzinfo=None)

    def _date(self, naive: datetime) -> _GoTime:
        """Return time.Date of a time on the wall; of one that there is not, an hour before or after it."""
        unix = int(naive.replace(tzinfo=UTC).timestamp())
        offset = self._offset(unix)
        if self._offset(unix - offset) != offset:
            offset = self._offset(unix - offset)
        return _GoTime(unix - offset, self._zone)

    def _offset(self, unix: int) -> int:
        offset = datetime.fromtimestamp(unix, self._zone).utcoffset() or timedelta()
        return int(offset.total_seconds())
