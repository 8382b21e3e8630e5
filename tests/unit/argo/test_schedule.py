"""A DAG's schedule as Argo's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.definitions.timetables.interval import CronDataIntervalTimetable
from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

from airflow_provider_raynode.argo.schedule import CronSyntaxError, as_argo_cron, schedule_of


@pytest.mark.parametrize(
    ("airflow", "argo"),
    [
        ("0 5 * * 7", "0 5 * * 0"),
        ("0 5 * * 1-5", "0 5 * * 1-5"),
        ("0 5 * * 5-7", "0 5 * * 0,5-6"),
        ("0 5 * * 0-7", "0 5 * * *"),
        ("0 5 * * 1,7", "0 5 * * 0-1"),
        ("0 5 * * 1-7/2", "0 5 * * 0-1,3,5"),
        ("0 5 * * sun", "0 5 * * sun"),
        ("7 7 7 7 *", "7 7 7 7 *"),
    ],
)
def test_sunday_is_zero(airflow: str, argo: str) -> None:
    assert as_argo_cron(airflow) == argo


@pytest.mark.parametrize(
    ("airflow", "argo"),
    [
        # Beside a restricted day, croniter takes all days for a restriction, and then one of the two is enough.
        ("0 0 */1 * 1", "0 0 1-31 * 1"),
        ("0 0 1 * */1", "0 0 1 * 0-6"),
        ("0 0 */2 * 1", "0 0 1-31/2 * 1"),
        ("0 0 * * 1", "0 0 * * 1"),
        ("0 0 ? * mon", "0 0 ? * mon"),
        # a-a is the whole cycle, a/n goes on to the end, and a range may run over it.
        ("5-5 * * * *", "* * * * *"),
        ("5-5/20 * * * *", "*/20 * * * *"),
        ("59/15 * * * *", "59/15 * * * *"),
        ("0 22-2 * * *", "0 0-2,22-23 * * *"),
        ("0 0 * * FRI-Mon", "0 0 * * 0-1,5-6"),
        ("0 0 1 nov-feb *", "0 0 1 1-2,11-12 *"),
        ("5-59/7,5,5 * * * *", "5-59/7,5,5 * * * *"),
        ("@midnight", "0 0 * * *"),
    ],
)
def test_what_croniter_and_robfig_take_differently(airflow: str, argo: str) -> None:
    assert as_argo_cron(airflow) == argo


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0 L * *", "#, L and W are not known"),
        ("0 0 15W * *", "#, L and W are not known"),
        ("0 0 * * 1#2", "#, L and W are not known"),
        ("R R * * *", "R and H choose a time of their own"),
        ("0 0 * * * 30", "has 6 fields, 5 are needed"),
        ("61 * * * *", "minute 61 is out of 0-59"),
    ],
)
def test_lines_without_a_counterpart(line: str, reason: str) -> None:
    with pytest.raises(CronSyntaxError, match=reason):
        as_argo_cron(line)


@pytest.mark.parametrize(
    ("schedule", "kind", "crons"),
    [
        (None, "template", ()),
        ("@once", "workflow", ()),
        ("@daily", "cron", ("0 0 * * *",)),
        ("*/5 * * * 7", "cron", ("*/5 * * * 0",)),
        (MultipleCronTriggerTimetable("0 1 * * *", "0 13 * * *", timezone="UTC"), "cron", ("0 1 * * *", "0 13 * * *")),
    ],
)
def test_kinds(schedule: Any, kind: str, crons: tuple[str, ...]) -> None:
    found = schedule_of(DAG("scheduled", schedule=schedule))
    assert (found.kind, found.crons, found.problems) == (kind, crons, ())


def test_the_timezone_is_the_dags() -> None:
    dag = DAG("zone", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=pendulum.timezone("Europe/Berlin")))
    assert schedule_of(dag).timezone == "Europe/Berlin"


@pytest.mark.parametrize(("zone", "name"), [("UTC", "UTC"), (UTC, "UTC"), (timezone(timedelta(hours=2)), "Etc/GMT-2")])
def test_a_zone_is_one_that_go_knows(zone: Any, name: str) -> None:
    if isinstance(zone, str):
        timetable: Any = CronTriggerTimetable("@daily", timezone=zone)
        assert schedule_of(DAG("zone", schedule=timetable)).timezone == name
    else:
        assert (
            schedule_of(DAG("zone", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=zone))).timezone == name
        )


def test_an_offset_without_a_name_is_refused() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    (problem,) = schedule_of(DAG("zone", schedule="@daily", start_date=start)).problems
    assert problem.feature == "timezone"
    assert "'+05:30' is no time zone" in problem.reason


NOW = datetime(2026, 11, 27, tzinfo=UTC)


def when(**options: Any) -> str:
    return schedule_of(DAG("dated", **options), NOW).when


def date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_start_date_and_end_date_are_a_condition() -> None:
    dates = {"start_date": date("2027-01-31"), "end_date": date("2027-03-01T06:00")}
    trigger = CronTriggerTimetable("0 6 * * *", timezone="UTC")
    assert when(schedule=trigger, **dates) == (
        "{{= now() >= date('2027-01-31T05:59:30Z') && now() < date('2027-03-02T05:59:30Z') }}"
    )
    # A run of a data interval comes when the interval is over: the last one begins at the end date.
    interval = CronDataIntervalTimetable("0 6 * * *", timezone="UTC")
    assert when(schedule=interval, **dates) == (
        "{{= now() >= date('2027-02-01T05:59:30Z') && now() < date('2027-03-03T05:59:30Z') }}"
    )
    several = MultipleCronTriggerTimetable("0 6 * * *", "0 18 * * *", timezone="UTC")
    assert when(schedule=several, end_date=date("2027-03-01T07:00")) == "{{= now() < date('2027-03-01T17:59:30Z') }}"
    assert when(schedule=trigger, start_date=date("2020-01-01")) == ""


def test_an_end_date_that_has_passed_is_told() -> None:
    found = schedule_of(DAG("ended", schedule="@daily", end_date=date("2020-01-01")), NOW)
    assert found.notes == ("end_date 2020-01-01 00:00 has passed: as in Airflow, no run begins any more",)


@pytest.mark.parametrize(
    ("schedule", "feature"),
    [
        ([Asset("a")], "asset-schedule"),
        (timedelta(hours=3), "timetable"),
        ("@continuous", "timetable"),
        ("0 0 * * 1#2", "cron-syntax"),
        ("0 0 L * *", "cron-syntax"),
        ("0 0 1 1 * 2026", "cron-syntax"),
    ],
)
def test_what_argo_does_not_have(schedule: Any, feature: str) -> None:
    options = {"max_active_runs": 1} if schedule == "@continuous" else {}
    found = schedule_of(DAG("other", schedule=schedule, **options))
    (problem,) = found.problems
    assert problem.feature == feature
    assert problem.reason and problem.remedy


def test_a_date_that_there_is_not() -> None:
    (problem,) = schedule_of(DAG("never", schedule="0 0 30 2 *")).problems
    assert (problem.feature, problem.reason) == ("cron-syntax", "the schedule '0 0 30 2 *' names no date that there is")


def test_all_lines_of_a_schedule_are_looked_at() -> None:
    timetable = MultipleCronTriggerTimetable("0 0 L * *", "0 0 * * *", "0 0 * * 5#1", timezone="UTC")
    problems = schedule_of(DAG("several", schedule=timetable)).problems
    assert [each.reason.split("'")[1] for each in problems] == ["0 0 L * *", "0 0 * * 5#1"]
