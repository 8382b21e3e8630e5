"""Schedules that meet a change of the clocks are told, with the dates: Airflow runs once, Argo never or twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.timetables.interval import CronDataIntervalTimetable
from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

from airflow_provider_raynode.argo.schedule import schedule_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def notes(line: str, zone: str, kind: type = CronTriggerTimetable) -> tuple[str, ...]:
    return schedule_of(DAG("clocks", schedule=kind(line, timezone=zone)), NOW).notes


@pytest.mark.parametrize("kind", [CronTriggerTimetable, CronDataIntervalTimetable])
def test_an_hour_that_is_skipped_and_repeated(kind: type) -> None:
    assert notes("30 2 * * *", "Europe/Berlin", kind) == (
        "daylight saving: the schedule '30 2 * * *' in Europe/Berlin meets the hours that a change of the clocks skips "
        "or repeats: on 2026-10-25 Argo starts one more run, at 02:30 (+0200); on 2027-03-28 Airflow starts a run at "
        "03:30 (+0200) and Argo does not. Choose another hour, or UTC",
    )


@pytest.mark.parametrize(
    ("line", "zone"),
    [
        ("30 2 * * *", "UTC"),
        ("30 2 * * *", "Asia/Kolkata"),
        ("30 5 * * *", "Europe/Berlin"),
        ("30 1 * * *", "Europe/Berlin"),
        # The clocks change on Sundays.
        ("30 2 * * 1-6", "Europe/Berlin"),
        # Airflow repeats what runs every hour, as Argo does.
        ("*/5 * * * *", "Europe/Berlin"),
        ("15 * * * *", "America/New_York"),
    ],
)
def test_what_no_change_touches(line: str, zone: str) -> None:
    assert notes(line, zone) == ()


@pytest.mark.parametrize(
    ("line", "zone", "told"),
    [
        ("0 0 * * *", "America/Santiago", "on 2026-09-06 Airflow starts a run at 01:00 (-0300) and Argo does not"),
        ("30 5 * * 5", "Africa/Cairo", "on 2027-04-30 Airflow starts a run at 05:30 (+0300) and Argo does not"),
        ("30 2 25 10 *", "Europe/Berlin", "on 2026-10-25 Argo starts one more run, at 02:30 (+0200)"),
        ("0 */2 * * *", "Europe/Berlin", "on 2027-03-28 Airflow starts a run at 03:00 (+0200) and Argo does not"),
        ("15 1 * * *", "Europe/London", "on 2026-10-25 Argo starts one more run, at 01:15 (+0100)"),
    ],
)
def test_others_of_the_kind(line: str, zone: str, told: str) -> None:
    (note,) = notes(line, zone)
    assert told in note


def test_one_of_several_lines() -> None:
    timetable = MultipleCronTriggerTimetable("0 12 * * *", "30 2 * * *", timezone="Europe/Berlin")
    (note,) = schedule_of(DAG("clocks", schedule=timetable), NOW).notes
    assert "'0 12 * * *' and '30 2 * * *' in Europe/Berlin" in note
