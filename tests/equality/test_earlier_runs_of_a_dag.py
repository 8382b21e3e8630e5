"""What a run learns of the runs before it: the same as in Airflow, also after a failed one and for an earlier date."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag

DAG_FILE = """
from airflow.sdk import DAG, CronDataIntervalTimetable, task

with DAG("incremental", schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"), params={"fails": False}):

    @task
    def load(
        params,
        prev_data_interval_start_success=None,
        prev_data_interval_end_success=None,
        prev_start_date_success=None,
        prev_end_date_success=None,
    ):
        if params["fails"]:
            raise ValueError("on purpose")
        dates = prev_data_interval_start_success, prev_data_interval_end_success
        # A proxy of None is no None.
        known = bool(prev_start_date_success), bool(prev_end_date_success)
        return [*(f"{each:%Y-%m-%d}" if each else "-" for each in dates), *known]

    load()
"""
# The dates of the runs in their order, and whether they fail.
RUNS = [
    ("2026-01-10", False),
    ("2026-01-12", False),
    ("2026-01-13", True),
    ("2026-01-14", False),
    ("2026-01-11", False),
]


def test_prev_success(airflow_db: None, argo: Argo, tmp_path: Path) -> None:
    file = tmp_path / "incremental.py"
    file.write_text(DAG_FILE)
    theirs, ours = [], []
    for date, fails in RUNS:
        theirs.append(_in_airflow(load_dag(file), date, fails=fails))
        outcome = argo.run(
            load_dag(file),
            file,
            parameters={"logical-date": f"{date}T06:00:00Z", "fails": str(fails).lower()},
        )
        ours.append(outcome.xcoms.get(("load", -1, "return_value")))
    assert ours == theirs
    # The failed run counts nowhere, and a run for an earlier date sees what lies before that.
    assert [None if each is None else each[1] for each in ours] == ["-", "2026-01-10", None, "2026-01-12", "2026-01-10"]


def _in_airflow(dag: Any, date: str, *, fails: bool) -> Any:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag("/dev/null", collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    run = dag.test(logical_date=datetime.fromisoformat(f"{date}T06:00:00+00:00"), run_conf={"fails": fails})
    (instance,) = run.get_task_instances()
    return instance.xcom_pull(task_ids="load", run_id=run.run_id) if instance.state == "success" else None


def test_a_request_that_nobody_foresaw_fails_by_name(argo: Argo, tmp_path: Path) -> None:
    file = tmp_path / "hidden.py"
    file.write_text(
        "from airflow.sdk import DAG, get_current_context, task\n"
        'with DAG("hidden", schedule=None):\n'
        "    @task(retries=3)\n"
        "    def load():\n"
        '        return str(get_current_context()["prev_" + "start_date_success"])\n'
        "    load()\n"
    )
    assert argo.run(load_dag(file), file).state == "failed"
    assert argo.last is not None
    node = argo.last.node("load")
    assert [each.exit_code for each in node.tries] == [102], "another try would ask the same"
    assert "this DAG's runs are not recorded: set record_runs: true in the settings" in node.log


def test_it_is_answered_where_the_settings_say_so(argo: Argo, tmp_path: Path) -> None:
    file = tmp_path / "hidden.py"
    file.write_text(
        "from airflow.sdk import DAG, get_current_context, task\n"
        'with DAG("hidden_but_said", schedule=None):\n'
        "    @task\n"
        "    def load():\n"
        '        return bool(get_current_context()["prev_" + "start_date_success"])\n'
        "    load()\n"
    )
    found = []
    # Dates of their own: Argo's time of a run's creation has whole seconds.
    for date in ("2026-01-10", "2026-01-11"):
        options = {"settings": {"record_runs": True}, "parameters": {"logical-date": f"{date}T06:00:00Z"}}
        found.append(argo.run(load_dag(file), file, **options).xcoms["load", -1, "return_value"])
    assert found == [False, True]
