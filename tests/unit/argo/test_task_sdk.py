"""What a pod answers to each message that the Task SDK can send its supervisor."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.execution_time import comms

from airflow_provider_raynode.argo.earlier_runs import EarlierRuns, SucceededRun
from airflow_provider_raynode.argo.records import RunStore, TaskRecord
from airflow_provider_raynode.argo.task_sdk import UnsupportedMessageError
from airflow_provider_raynode.argo.task_sdk._comms import CatalogComms
from airflow_provider_raynode.argo.task_sdk._dates import run_dates
from airflow_provider_raynode.argo.task_sdk._run import DagRunInfo, _dag_run
from airflow_provider_raynode.catalog import Catalog

NOW = datetime(2026, 1, 31, tzinfo=UTC)
EARLIER = datetime(2026, 1, 30, tzinfo=UTC)
TI = UUID(int=1)
XCOM = {"dag_id": "messages", "run_id": "run", "key": "return_value"}
STATE = {"ti_id": TI, "key": "job"}
OWN = {"dag_id": "messages", "run_id": "run"}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(Catalog(str(tmp_path)), "messages", "run")
    store.set_xcom("source", -1, "return_value", [1, 2, 3])
    for index, value in ((0, "a"), (2, "c")):
        store.set_xcom("each", index, "return_value", value)
    for task_id, index, state in (("source", -1, "success"), ("each", 0, "success"), ("each", 2, "failed")):
        store.write_record(
            TaskRecord(
                dag_id="messages",
                run_id="run",
                task_id=task_id,
                map_index=index,
                state=state,
                try_number=1,
                started=NOW,
            )
        )
    return store


@pytest.fixture
def answer(store: RunStore) -> Any:
    with DAG("messages", schedule=None) as dag:

        @task
        def source() -> list[int]:
            return [1, 2, 3]

        @task
        def each(x: int) -> int:
            return x

        each.expand(x=source())
    info = DagRunInfo("run", NOW, run_dates(dag, run_after=NOW, scheduled=None, logical=None))
    dates = dict.fromkeys(
        ("logical_date", "data_interval_start", "data_interval_end", "start_date", "end_date"), EARLIER
    )
    EarlierRuns(store.catalog, "messages").add(
        SucceededRun(dag_id="messages", run_id="before", scheduled=True, **dates)
    )
    comms_ = CatalogComms(dag, store, _dag_run("messages", info), "each", 0, runs_are_recorded=True)
    comms_.first_started = NOW
    return comms_


def message(kind: str, /, **fields: Any) -> Any:
    return getattr(comms, kind)(**fields)


ANSWERS: dict[str, tuple[dict[str, Any], Any]] = {
    "GetXCom": ({**XCOM, "task_id": "source"}, {"value": [1, 2, 3]}),
    "SetXCom": ({**XCOM, "task_id": "each", "map_index": 0, "value": 1}, None),
    "DeleteXCom": ({**XCOM, "task_id": "each", "map_index": 0}, None),
    "GetXComCount": ({**XCOM, "task_id": "each"}, {"len": 2}),
    "GetXComSequenceItem": ({**XCOM, "task_id": "each", "offset": -1}, {"root": "c"}),
    "GetXComSequenceSlice": (
        {**XCOM, "task_id": "each", "start": None, "stop": None, "step": -1},
        {"root": ["c", "a"]},
    ),
    "GetTaskStateStore": (STATE, {"error": comms.ErrorType.TASK_STORE_NOT_FOUND}),
    "SetTaskStateStore": ({**STATE, "value": 1, "expires_at": None}, {"ok": True}),
    "DeleteTaskStateStore": (STATE, {"ok": True}),
    "ClearTaskStateStore": ({"ti_id": TI}, {"ok": True}),
    "GetConnection": ({"conn_id": "db"}, {"error": comms.ErrorType.CONNECTION_NOT_FOUND}),
    "GetVariable": ({"key": "k"}, {"error": comms.ErrorType.VARIABLE_NOT_FOUND}),
    "GetVariableKeys": ({"prefix": "equal"}, {"keys": ["equality_a"], "total_entries": 1}),
    "MaskSecret": ({"value": "s"}, None),
    "GetDagRun": (OWN, {"run_id": "run"}),
    "GetDagRunState": (OWN, {"state": "running"}),
    "GetDRCount": ({"dag_id": "messages", "states": ["running"], "run_ids": ["run"]}, {"count": 1}),
    "GetTICount": ({"dag_id": "messages", "task_ids": ["each"], "run_ids": ["run"]}, {"count": 3}),
    "GetTaskStates": (
        {"dag_id": "messages", "logical_dates": [NOW]},
        {"task_states": {"run": {"source": "success", "each_0": "success", "each_1": "scheduled", "each_2": "failed"}}},
    ),
    "GetTaskBreadcrumbs": (OWN, {"breadcrumbs": []}),
    "GetPrevSuccessfulDagRun": ({"ti_id": TI}, {"start_date": EARLIER, "end_date": EARLIER}),
    "GetPreviousDagRun": ({"dag_id": "messages", "logical_date": EARLIER, "state": "success"}, {"dag_run": None}),
    "GetTaskRescheduleStartDate": ({"ti_id": TI}, {"start_date": NOW}),
    "ValidateInletsAndOutlets": ({"ti_id": TI}, {"inactive_assets": []}),
    "GetAssetsByAlias": ({"alias_name": "a"}, {"assets": []}),
    "GetAssetByName": ({"name": "a"}, {"error": comms.ErrorType.ASSET_NOT_FOUND}),
    "GetAssetByUri": ({"uri": "a"}, {"error": comms.ErrorType.ASSET_NOT_FOUND}),
    "SetRenderedFields": ({"rendered_fields": {}}, {"ok": True}),
    "SetRenderedMapIndex": ({"rendered_map_index": "one"}, {"ok": True}),
    "SkipDownstreamTasks": ({"tasks": ["each"]}, None),
    "SucceedTask": ({"end_date": NOW}, None),
    "TaskState": ({"state": "failed"}, None),
    "RetryTask": ({"end_date": NOW}, None),
    "RescheduleTask": ({"reschedule_date": NOW, "end_date": NOW}, None),
    "DeferTask": ({"classpath": "a.B", "next_method": "c"}, None),
}
REFUSED = {
    "AwaitInputTask",
    "ClearAssetStateStoreByName",
    "ClearAssetStateStoreByUri",
    "CreateHITLDetailPayload",
    "DeleteAssetStateStoreByName",
    "DeleteAssetStateStoreByUri",
    "DeleteVariable",
    "GetAssetStateStoreByName",
    "GetAssetStateStoreByUri",
    "GetAssetEventByAsset",
    "GetAssetEventByAssetAlias",
    "GetDag",
    "GetHITLDetailResponse",
    "GetPreviousTI",
    "PutVariable",
    "ResendLoggingFD",
    "SetAssetStateStoreByName",
    "SetAssetStateStoreByUri",
    "TriggerDagRun",
    "UpdateHITLDetail",
}


def test_every_message_of_this_airflow_is_known() -> None:
    """A new version of Airflow that asks for more shows here, not in a pod."""
    union, *_ = get_args(comms.ToSupervisor)
    assert {each.__name__ for each in get_args(union)} == set(ANSWERS) | REFUSED


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_an_answer(name: str, answer: CatalogComms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_EQUALITY_A", "1")
    fields, expected = ANSWERS[name]
    found = answer.send(message(name, **fields))
    if expected is None:
        assert found is None
    else:
        assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_needs_airflows_services_is_refused_by_name(name: str, answer: CatalogComms) -> None:
    with pytest.raises(UnsupportedMessageError, match=f"each asked Airflow for {name}"):
        answer.send(getattr(comms, name).model_construct())


def test_a_message_that_is_not_known_is_refused(answer: CatalogComms) -> None:
    class GetSomethingNew:
        pass

    with pytest.raises(UnsupportedMessageError, match="GetSomethingNew"):
        answer.send(GetSomethingNew())


def test_what_is_set_is_got(answer: CatalogComms, store: RunStore) -> None:
    answer.send(message("SetXCom", **XCOM, task_id="each", map_index=1, value={"b": [1]}))
    assert store.xcom("each", 1, "return_value") == (True, {"b": [1]})
    answer.send(message("SetTaskStateStore", **STATE, value={"a": 1}, expires_at=None))
    assert answer.send(message("GetTaskStateStore", **STATE)).value == {"a": 1}
    answer.send(message("DeleteXCom", **XCOM, task_id="each", map_index=1))
    assert answer.send(message("GetXCom", **XCOM, task_id="each", map_index=1)).value is None


def test_an_offset_that_is_not_there(answer: CatalogComms) -> None:
    found = answer.send(message("GetXComSequenceItem", **XCOM, task_id="each", offset=2))
    assert found.error is comms.ErrorType.XCOM_NOT_FOUND


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_has_not_is_refused_as_by_airflows_api(value: float, store: RunStore) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.set_xcom("each", 0, "bad", value)


def test_an_earlier_run(answer: CatalogComms) -> None:
    found = answer.send(message("GetPreviousDagRun", dag_id="messages", logical_date=NOW, state="success")).dag_run
    assert (found.run_id, found.logical_date, found.state, found.run_type) == (
        "before",
        EARLIER,
        "success",
        "scheduled",
    )


@pytest.mark.parametrize("state", [None, "failed", "running"])
def test_an_earlier_run_that_nobody_recorded_is_no_none(state: str | None, answer: CatalogComms) -> None:
    with pytest.raises(UnsupportedMessageError, match="those that succeeded"):
        answer.send(message("GetPreviousDagRun", dag_id="messages", logical_date=NOW, state=state))


@pytest.mark.parametrize("which", [{}, {"run_ids": ["run", "before"]}, {"logical_dates": [EARLIER]}])
@pytest.mark.parametrize("kind", ["GetDRCount", "GetTICount", "GetTaskStates"])
def test_other_runs_are_not_counted_as_none(kind: str, which: dict[str, Any], answer: CatalogComms) -> None:
    with pytest.raises(UnsupportedMessageError, match="a pod knows its own run only"):
        answer.send(message(kind, dag_id="messages", **which))


def test_another_dags_run_is_not_known(answer: CatalogComms) -> None:
    with pytest.raises(UnsupportedMessageError, match="of the DAG other: a pod knows its own run only"):
        answer.send(message("GetDagRun", dag_id="other", run_id="run"))


@pytest.mark.parametrize(
    ("schedule", "scheduled", "logical", "expected"),
    [
        (None, None, None, ("2026-01-31T00:00", "2026-01-31T00:00", "2026-01-31T00:00")),
        (None, None, "2025-06-01", ("2025-06-01T00:00", "2025-06-01T00:00", "2025-06-01T00:00")),
        ("0 6 * * *", "2026-01-30T06:00", None, ("2026-01-30T06:00", "2026-01-30T06:00", "2026-01-30T06:00")),
        ("data", "2026-01-30T06:00", None, ("2026-01-29T06:00", "2026-01-29T06:00", "2026-01-30T06:00")),
        ("data", None, "2026-01-30T06:00", ("2026-01-30T06:00", "2026-01-29T06:00", "2026-01-30T06:00")),
    ],
)
def test_dates(schedule: Any, scheduled: str | None, logical: str | None, expected: tuple[str, str, str]) -> None:
    """Logical date and data interval: of a run by hand, of a scheduled one, of a cron data interval, as in Airflow."""
    from airflow.sdk import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable("0 6 * * *", timezone="UTC") if schedule == "data" else schedule
    dag = DAG("dates", schedule=timetable, start_date=datetime(2020, 1, 1, tzinfo=UTC))

    def moment(text: str | None) -> datetime | None:
        return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)

    found = run_dates(dag, run_after=NOW, scheduled=moment(scheduled), logical=moment(logical))
    assert [
        f"{each:%Y-%m-%dT%H:%M}" for each in (found.logical_date, found.interval_start, found.interval_end)
    ] == list(expected)
    assert found.scheduled is (scheduled is not None)
