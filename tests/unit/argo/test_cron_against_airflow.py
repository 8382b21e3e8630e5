"""Cron lines as Argo gets them, by the rules of robfig/cron, against Airflow's times for the lines that the DAG has."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter

from airflow_provider_raynode.argo.robfig import RobfigSchedule
from airflow_provider_raynode.argo.schedule import as_argo_cron

_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def _number(chance: random.Random, field: int) -> str:
    words = {3: _MONTHS, 4: _DAYS}.get(field)
    if words and chance.random() < 0.3:
        return chance.choice((str.lower, str.upper, str.title))(chance.choice(words))
    return str(chance.randint(*_BOUNDS[field]))


def _part(chance: random.Random, field: int) -> str:
    kind = chance.random()
    if kind < 0.25:
        text = "*"
    elif kind < 0.3 and field in (2, 4):
        text = "?"
    elif kind < 0.6:
        text = _number(chance, field)
    else:
        text = f"{_number(chance, field)}-{_number(chance, field)}"
    return f"{text}/{chance.randint(1, _BOUNDS[field][1])}" if chance.random() < 0.35 else text


def _line(chance: random.Random) -> str:
    def field(number: int) -> str:
        if chance.random() < 0.4:
            return "*"
        return ",".join(_part(chance, number) for _ in range(chance.choice((1, 1, 1, 2, 3))))

    return " ".join(map(field, range(5)))


def test_random_lines_fire_at_airflows_times() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    compared = 0
    while compared < 1000:
        line = _line(chance)
        try:
            croniter(line)
        except CroniterError:
            continue
        ours = RobfigSchedule(as_argo_cron(line), ZoneInfo("UTC"))
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(600_000))
        for _ in range(3):
            try:
                wanted = croniter(line, start_time=moment.replace(tzinfo=None)).get_next(datetime).replace(tzinfo=UTC)
            except CroniterError:
                # Such as the 31st of February.
                assert ours.next(moment) is None, (seed, line)
                break
            assert ours.next(moment) == wanted, (seed, line, as_argo_cron(line), moment)
            moment = wanted
        compared += 1


def _times(line: str, zone: str, start: str, count: int) -> list[str]:
    place = ZoneInfo(zone)
    schedule = RobfigSchedule(line, place)
    moment: datetime | None = datetime.fromisoformat(start).replace(tzinfo=place)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = schedule.next(moment)
        found.append("never" if moment is None else f"{moment.astimezone(place):%m-%d %H:%M %z}")
        if moment is None:
            break
    return found


@pytest.mark.parametrize(
    ("line", "zone", "start", "times"),
    [
        # As the tables of Argo's docs/cron-workflows.md have it.
        ("59 1 * * *", "America/Los_Angeles", "2020-03-08", ["03-08 01:59 -0800", "03-09 01:59 -0700"]),
        ("0 2 * * *", "America/Los_Angeles", "2020-03-08", ["03-09 02:00 -0700", "03-10 02:00 -0700"]),
        ("59 1 * * *", "America/Los_Angeles", "2020-11-01", ["11-01 01:59 -0700", "11-01 01:59 -0800"]),
        ("0 2 * * *", "America/Los_Angeles", "2020-11-01", ["11-01 02:00 -0800", "11-02 02:00 -0800"]),
        # Days: a star asks for both fields, else one is enough; */1 is a star, */2 is none.
        ("0 0 1,15 * sun", "UTC", "2012-07-09", ["07-15 00:00 +0000", "07-22 00:00 +0000", "07-29 00:00 +0000"]),
        ("0 0 */1 * sun", "UTC", "2012-07-09", ["07-15 00:00 +0000", "07-22 00:00 +0000"]),
        ("0 0 */2 * sun", "UTC", "2012-07-14", ["07-15 00:00 +0000", "07-17 00:00 +0000"]),
        ("0 0 ? * 1", "UTC", "2012-07-09T01:00", ["07-16 00:00 +0000"]),
        # Wraps, and what never comes.
        ("20-35/15 10 31 * *", "UTC", "2012-07-31T10:20", ["07-31 10:35 +0000", "08-31 10:20 +0000"]),
        ("0 0 29 feb *", "UTC", "2021-03-01", ["02-29 00:00 +0000"]),
        ("0 0 30 2 *", "UTC", "2021-03-01", ["never"]),
        # Where midnight is skipped, a restricted weekday may be missed as a whole.
        ("30 5 * * 5", "Africa/Cairo", "2026-04-21", ["05-01 05:30 +0300"]),
        ("30 5 * * *", "Africa/Cairo", "2026-04-23", ["04-23 05:30 +0200", "04-24 05:30 +0300"]),
    ],
)
def test_robfigs_clock(line: str, zone: str, start: str, times: list[str]) -> None:
    assert _times(line, zone, start, len(times)) == times
