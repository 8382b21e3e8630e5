"""Runs that succeeded are found by their dates; where nobody records them, a task that asks fails and says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.dag_file import load_dag
from airflow_provider_raynode.argo.earlier_runs import EarlierRuns, SucceededRun, asks_for_earlier_runs
from airflow_provider_raynode.argo.export import export_dag_file
from airflow_provider_raynode.argo.template_defaults import as_run
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import SpecError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def run(run_id: str, date: datetime, end: datetime = NOON) -> SucceededRun:
    return SucceededRun(
        dag_id="d",
        run_id=run_id,
        logical_date=date,
        data_interval_start=date - timedelta(days=1),
        data_interval_end=date,
        start_date=date,
        end_date=end,
        scheduled=True,
    )


@pytest.fixture
def runs(tmp_path: Path) -> EarlierRuns:
    return EarlierRuns(Catalog(str(tmp_path)), "d")


def test_the_last_before_a_date(runs: EarlierRuns) -> None:
    assert runs.last_before(NOON) is None
    dates = [NOON - timedelta(days=days) for days in (400, 30, 2, 1, 0, -1)]
    for number, date in enumerate(dates):
        runs.add(run(f"run.{number}", date))
    found = runs.last_before(NOON)
    assert found is not None
    assert (found.run_id, found.logical_date) == ("run.3", dates[3])
    assert runs.last_before(dates[0]) is None
    # One that is tried again and fails counts no more.
    runs.remove("run.3", dates[3])
    runs.remove("never there", dates[2])
    found = runs.last_before(NOON)
    assert found is not None
    assert found.run_id == "run.2"


def test_dates_are_compared_as_moments(runs: EarlierRuns) -> None:
    from zoneinfo import ZoneInfo

    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))
    runs.add(run("a", berlin - timedelta(microseconds=1)))
    found = runs.last_before(NOON)
    assert found is not None
    assert found.logical_date == NOON - timedelta(microseconds=1)


def test_two_runs_of_one_date(runs: EarlierRuns) -> None:
    for run_id, hours in (("first", 1), ("last", 3), ("second", 2)):
        runs.add(run(run_id, NOON, NOON + timedelta(hours=hours)))
    found = runs.last_before(NOON + timedelta(days=1))
    assert found is not None
    assert found.run_id == "last"


def test_a_damaged_record_is_no_none(runs: EarlierRuns, tmp_path: Path) -> None:
    runs.add(run("a", NOON))
    (file,) = (tmp_path / "d" / "@runs").iterdir()
    file.write_text("{}")
    with pytest.raises(SpecError, match=f"{file} is not the record of a run"):
        runs.last_before(NOON + timedelta(days=1))


PLAIN = """
from airflow.sdk import DAG, task
{imports}
with DAG("asks", schedule="@daily"):
    {body}
"""
OPERATOR = 'BashOperator(task_id="t", bash_command={!r})'
BASH = "from airflow.providers.standard.operators.bash import BashOperator"


def written(folder: Path, body: str, imports: str = "") -> Path:
    file = folder / "asks.py"
    file.write_text(PLAIN.format(body=body, imports=imports))
    return file


@pytest.mark.parametrize(
    ("body", "imports", "asks"),
    [
        (OPERATOR.format("echo {{ ds }}"), BASH, False),
        (OPERATOR.format("echo {{ prev_data_interval_start_success }}"), BASH, True),
        (OPERATOR.format("load.sh"), BASH, True),
        ('task(task_id="t")(lambda prev_start_date_success=None: 1)()', "", True),
        ("task(load)()", "from load_helper_of_asks import load", True),
        (f"{OPERATOR.format('x')}.partial if 0 else None", BASH, False),
    ],
)
def test_where_it_can_be_seen(
    body: str, imports: str, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "load.sh").write_text("load --since '{{ prev_end_date_success }}'\n")
    helper = "def load(**context):\n    return context['prev_data_interval_end_success']\n"
    (tmp_path / "load_helper_of_asks.py").write_text(helper)
    file = written(tmp_path, body, imports)
    assert asks_for_earlier_runs(load_dag(file), file) is asks


def exported(file: Path, **settings: Any) -> dict[str, Any]:
    (manifest,) = yaml.safe_load_all(export_dag_file(file, settings=settings).text)
    return dict(manifest["spec"]["workflowSpec"])


def arguments(template: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    whole = as_run(template, defaults)
    return list((whole.get("script") or whole["container"])["args"])


def test_the_exit_handler_records_where_somebody_asks(tmp_path: Path) -> None:
    file = written(tmp_path, 'task(task_id="t")(lambda prev_start_date_success=None: 1)()')
    spec = exported(file, catalog="s3://b/c")
    assert spec["onExit"] == "on-exit"
    pods = [each for each in spec["templates"] if {"script", "container"} & set(each)]
    assert all("--record-runs" in arguments(each, spec["templateDefaults"]) for each in pods)
    spec = exported(file, catalog="s3://b/c", record_runs=False)
    assert "onExit" not in spec
    assert "--record-runs" not in str(spec)
    plain = written(tmp_path, 'task(task_id="t")(lambda: 1)()')
    assert "onExit" not in exported(plain, catalog="s3://b/c")
    assert exported(plain, catalog="s3://b/c", record_runs=True)["onExit"] == "on-exit"


def test_a_catalog_of_each_runs_own_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, 'task(task_id="t")(lambda prev_start_date_success=None: 1)()')
    with pytest.raises(RefusedError, match="DAG: earlier-runs: it asks for earlier runs"):
        export_dag_file(file)
    export = export_dag_file(file, allow=["earlier-runs"])
    assert "--record-runs" not in export.text
    assert "asks: earlier-runs: a task that asks for an earlier run fails" in export.warnings
