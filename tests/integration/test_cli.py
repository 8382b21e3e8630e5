"""`raynode …` as a user types it: the example, wrong input, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_raynode.catalog import Catalog

pytestmark = [pytest.mark.airflow]
ROOT = Path(__file__).resolve().parents[2]


def raynode(*args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "airflow_provider_raynode.cli", *args]
    return subprocess.run(
        command, cwd=cwd, env=clean | (env or {}), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.ray
def test_the_example_beats_the_baseline(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    done = raynode("run", str(ROOT / "dags" / "hyperparameter_tuning.py"), cwd=tmp_path, env={"RAYNODE_MARK": mark})
    assert done.returncode == 0, done.stdout + done.stderr
    gain = re.search(r"digits right, ([+-][0-9.]+) over the baseline", done.stdout)
    assert gain is not None, done.stdout
    assert float(gain.group(1)) > 0
    assert re.search(r"hyperparameter +learning_rate +0\.\d+", done.stdout)
    assert re.search(r"metric +accuracy +0\.\d+", done.stdout)
    assert "[info" not in done.stdout, "Airflow's log is on the screen"
    (model,) = re.findall(r"output +model +(\S+)", done.stdout)
    assert (tmp_path / model).is_file()
    assert not [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("RAYNODE_MARK") == mark
    ]
    run_folder = tmp_path / ".raynode" / "raynode_catalog" / "hyperparameter_tuning"
    (table,) = run_folder.rglob("trials.parquet")
    ref = json.loads(table.with_name("trials.ref.json").read_text())
    trials = Catalog(str(tmp_path / ".raynode" / "raynode_catalog")).load(ref)
    assert len(trials) == 16
    assert trials["training_iteration"].min() < 40, "the scheduler stopped no trial early"
    _records(tmp_path)


def _records(folder: Path) -> None:
    """`raynode runs` and `raynode show` on what the example has left."""
    listed = raynode("runs", cwd=folder)
    assert re.search(r"hyperparameter_tuning +manual__\S+ +ray_hyperparameter_tuning +1 +succeeded +16 ", listed.stdout)
    assert raynode("runs", "hyperparameter_tuning", cwd=folder).stdout == listed.stdout
    (record,) = json.loads(raynode("runs", "--json", cwd=folder).stdout)
    assert record["outcome"] == "succeeded"
    assert record["versions"]["ray"].startswith("2.60")
    assert len(record["code"]["function_sha256"]) == 64
    assert {"load", "connect", "search", "collect"} <= record["timings_s"].keys()
    for name in (
        record["run_id"],
        record["submission_id"],
        f"{record['dag_id']}/{record['run_id']}/{record['node_id']}",
    ):
        shown = raynode("show", name, cwd=folder).stdout
        assert shown.count("TERMINATED") + shown.count("EARLY_STOPPED") == 16
        assert "EARLY_STOPPED" in shown
        best, *rest = re.findall(r"(?:TERMINATED|EARLY_STOPPED) +\d+ +\d+ +\S+ +(0\.\d+|1) ", shown)
        assert len(rest) == 15
        assert all(float(best) >= float(other) for other in rest), "the best trial comes first"
    near = raynode("show", record["submission_id"][:-1] + "7", cwd=folder)
    assert near.returncode == 2
    assert f"the nearest: {record['submission_id']}" in near.stderr
    nobody = raynode("runs", "nobody", cwd=folder)
    assert nobody.returncode == 2
    assert "no run of the DAG 'nobody' is recorded in" in nobody.stderr


@pytest.mark.ray
def test_the_mapped_example(load_dag: Callable[..., Any], run_dag: Callable[..., Any], ray_connection: Any) -> None:
    result = run_dag(load_dag(ROOT / "dags" / "mapped_search.py"))
    assert result.state == "success", result.states
    for index in range(3):
        assert result.xcom("search.tuning.fan_in", index)["best_metrics"]["accuracy"] > 0.85


DAGS = """
from airflow.sdk import dag, task

@dag(schedule=None, params={"who": "me"})
def one():
    @task
    def hello(params=None):
        print("hello", params["who"])
    hello()

@dag(schedule=None)
def two():
    @task
    def fail():
        raise ValueError("it went wrong")
    fail()

one()
two()
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    (tmp_path / "dags.py").write_text(DAGS)
    return tmp_path


def test_a_dag_is_chosen_and_gets_its_conf(dags: Path) -> None:
    done = raynode("run", "dags.py", "--dag-id", "one", "--conf", '{"who": "you"}', cwd=dags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello │ hello you" in done.stdout


def test_a_failing_run_says_why_and_where(dags: Path) -> None:
    done = raynode("run", "dags.py", "--dag-id", "two", cwd=dags)
    assert done.returncode == 1
    assert "fail failed: it went wrong" in done.stdout
    (log,) = re.findall(r"Log: (\S+)", done.stdout)
    assert "it went wrong" in (dags / log).read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("run", "nowhere.py"), "nowhere.py: no such file"),
        (("run", "dags.py"), "choose one with --dag-id {one,two}"),
        (("run", "dags.py", "--dag-id", "three"), "no DAG 'three'; it has: one, two"),
        (("run", "dags.py", "--conf", "{x"), "--conf is not JSON"),
        (("run", "dags.py", "--conf", "[1]"), "--conf must be a JSON object"),
        (("run", "params.py", "--conf", '{"who": 3}'), "--conf: 'who' is 3, which breaks the param of DAG with_params"),
        (("run", "empty.py"), "there is no DAG in this file"),
        (("run", "broken.py"), "tune.yaml"),
        (("config", "check", "tune.yaml"), "did you mean 'num_samples'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_input_is_told_without_a_stack(dags: Path, args: tuple[str, ...], message: str) -> None:
    (dags / "empty.py").write_text("x = 1\n")
    (dags / "tune.yaml").write_text("ray_tune: {metric: m, mode: max, num_sample: 3, search_space: {}}\n")
    (dags / "params.py").write_text(
        "from airflow.sdk import DAG, Param\nwith DAG('with_params', params={'who': Param('me', type='string')}): ...\n"
    )
    (dags / "broken.py").write_text(
        "from airflow.sdk import dag\nfrom airflow_provider_raynode import ray_node\n"
        "@dag(schedule=None)\ndef bad():\n    ray_node('n', python_callable=lambda: 1, ray_config='tune.yaml')\nbad()\n"
    )
    done = raynode(*args, cwd=dags)
    assert done.returncode in (1, 2)
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_schema_and_check(dags: Path) -> None:
    schema = raynode("config", "schema", cwd=dags)
    assert json.loads(schema.stdout)["additionalProperties"] is False
    good = raynode("config", "check", str(ROOT / "dags" / "configs" / "ray_tune.yaml"), cwd=dags)
    assert good.returncode == 0
    assert "metric: accuracy" in good.stdout


SLOW = """
from airflow.sdk import dag
from airflow_provider_raynode import ray_node

def train(x):
    import time
    print("trial runs", flush=True)
    time.sleep(600)

@dag(schedule=None)
def slow():
    tune = {"metric": "m", "mode": "max", "search_space": {"x": 1}}
    ray_node("n", python_callable=train, ray_config={"ray_tune": tune})
slow()
"""


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    mark = uuid.uuid4().hex
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {"RAYNODE_MARK": mark}
    run = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_raynode.cli", "run", "slow.py"],
        cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def alive() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["environ", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and (process.info["environ"] or {}).get("RAYNODE_MARK") == mark
        ]

    try:
        end = time.monotonic() + 90
        while not any("trial runs" in log.read_text() for log in tmp_path.rglob("run_logs/*.log")):
            assert time.monotonic() < end, "the trial did not start"
            time.sleep(0.2)
        run.send_signal(number)
        assert run.wait(20) == (-number if number == signal.SIGKILL else 128 + number)
        end = time.monotonic() + 12
        while alive() and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive()
    finally:
        run.kill()
        for process in alive():
            process.kill()


HELPED = """
from airflow.sdk import dag, task
import helpers_nb
from team.shared import common


@dag(schedule=None)
def helped():
    @task
    def show():
        import lazily_nb

        print(helpers_nb.WORD, common.WORD, lazily_nb.WORD)

    show()


helped()
"""


def test_a_dag_file_imports_what_stands_beside_it(tmp_path: Path) -> None:
    files = {
        "dags/team/dag.py": HELPED,
        "dags/team/helpers_nb.py": "import third_nb\nWORD = third_nb.WORD",
        "dags/team/third_nb.py": "WORD = 'third'",
        "dags/team/lazily_nb.py": "WORD = 'lazily'",
        "dags/team/shared/__init__.py": "",
        "dags/team/shared/common.py": "WORD = 'common'",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = raynode("run", "dags/team/dag.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "third common lazily" in done.stdout
    done = raynode("argo", "export", "dags/team/dag.py", cwd=tmp_path)
    assert "ModuleNotFoundError" not in done.stderr
