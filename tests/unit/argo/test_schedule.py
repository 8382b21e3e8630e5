"""A DAG's schedule as Argo's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.definitions.timetables.trigger import MultipleCronTriggerTimetable

from airflow_provider_raynode.argo.schedule import as_argo_cron, schedule_of


@pytest.mark.parametrize(
    ("airflow", "argo"),
    [
        ("0 5 * * 7", "0 5 * * 0"),
        ("0 5 * * 1-5", "0 5 * * 1-5"),
        ("0 5 * * 5-7", "0 5 * * 0,5,6"),
        ("0 5 * * 0-7", "0 5 * * 0-6"),
        ("0 5 * * 1,7", "0 5 * * 1,0"),
        ("0 5 * * 1-7/2", "0 5 * * 0,1,3,5"),
        ("0 5 * * sun", "0 5 * * sun"),
        ("7 7 7 7 *", "7 7 7 7 *"),
    ],
)
def test_sunday_is_zero(airflow: str, argo: str) -> None:
    assert as_argo_cron(airflow) == argo


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
    assert (found.kind, found.crons, found.problem) == (kind, crons, "")


def test_the_timezone_is_the_dags() -> None:
    dag = DAG("zone", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=pendulum.timezone("Europe/Berlin")))
    assert schedule_of(dag).timezone == "Europe/Berlin"


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
    assert found.feature == feature
    assert found.problem and found.remedy
