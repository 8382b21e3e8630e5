"""A runtime environment in effect, in the driver's process and in every trial: on the embedded Ray as on a cluster."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.hooks import _listing

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

DAG_FILE = """
from airflow.sdk import dag
from airflow_provider_raynode import ray_node

import beside_the_dag


def fit(x):
    import os
    from pathlib import Path

    import greeting
    import hooked
    import lazy_beside
    import shared_lib

    Path("written").write_text("by a trial")
    return {
        "score": x,
        "table": Path("table.csv").read_text(),
        "files": ",".join(sorted(path.name for path in Path(".").iterdir() if path.name != "written")),
        "threads": os.environ["OMP_NUM_THREADS"],
        "path": os.environ["PATH"].split(":")[0],
        "from_connection": os.environ["FROM_CONNECTION"],
        "both": os.environ["BOTH"],
        "shared": shared_lib.NAME,
        "greeting": greeting.TEXT,
        "hooked": hooked.called,
        "beside": beside_the_dag.word(),
        "lazy": lazy_beside.WORD,
    }


@dag(schedule=None)
def with_environment():
    ray_node("search", python_callable=fit, ray_config="configs/search.yaml", poll_interval_s=0.5)


with_environment()
"""
SEARCH = """
ray_cluster:
  runtime_env:
    working_dir: ../assets
    py_modules: [../libs/shared_lib]
    excludes: ["*.bin", "!model.pkl"]
    worker_process_setup_hook: hooked.hook
    env_vars: {OMP_NUM_THREADS: "3", BOTH: config, PATH: "/mine:${PATH}", PYTHONPATH: "%s"}
ray_tune:
  metric: score
  mode: max
  search_space: {x: {type: grid_search, values: [1, 2]}}
default_resources: {num_cpus: 0.5}
"""
FILES = {
    "dag.py": DAG_FILE,
    # Beside the DAG file: one imported at its top, one only inside the function, and a third by both.
    "beside_the_dag.py": "def word():\n    from third_beside import WORD\n    return WORD",
    "lazy_beside.py": "from third_beside import WORD",
    "third_beside.py": "WORD = 'of a third'",
    "assets/table.csv": "a,b",
    "assets/big.bin": "0",
    "assets/model.pkl": "weights",
    "assets/secret.key": "k",
    "assets/.gitignore": "*.pkl\n*.key\n",
    # In three places: py_modules is before working_dir, and that before PYTHONPATH.
    "assets/shared_lib.py": "NAME = 'of the working_dir'",
    "assets/greeting.py": "TEXT = 'of the working_dir'",
    "path/greeting.py": "TEXT = 'of PYTHONPATH'",
    "path/hooked.py": "called = False\ndef hook():\n    import hooked\n    hooked.called = True",
    "libs/shared_lib/__init__.py": "NAME = 'of py_modules'",
}


@pytest.fixture
def dag_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the DAG file; the process runs in another."""
    for name, content in {**FILES, "configs/search.yaml": SEARCH % (tmp_path / "dags" / "path")}.items():
        path = tmp_path / "dags" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    for name in ("beside_the_dag", "lazy_beside", "third_beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv(_listing.IGNORE_GITIGNORE, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "dags"))
    return tmp_path / "dags"


def check(run: Any, output: str) -> None:
    assert run.state == "success", (run.states, output[-4000:])
    found = run.xcom("search.fan_in")["best_metrics"]
    expected = {
        "table": "a,b",
        "files": ".gitignore,greeting.py,model.pkl,shared_lib.py,table.csv",
        "threads": "3",
        "path": "/mine",
        "from_connection": "yes",
        "both": "config",
        "shared": "of py_modules",
        "greeting": "of the working_dir",
        "hooked": True,
        "beside": "of a third",
        "lazy": "of a third",
    }
    assert {name: found[name] for name in expected} == expected
    assert "by .gitignore 1 file (1 byte): secret.key" in output
    assert "by excludes 1 file (1 byte): big.bin" in output


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    default = {"env_vars": {"FROM_CONNECTION": "yes", "BOTH": "connection", "SECRET_LOOKING": "never-in-a-log"}}
    connection = {"conn_type": "ray", "extra": {"runtime_env": default}, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))


def test_on_the_embedded_ray(
    run_dag: Callable[..., Any], load_dag: Callable[..., Any], dag_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    connect(monkeypatch)
    run = run_dag(load_dag(dag_folder / "dag.py"))
    output = capfd.readouterr().out + caplog.text
    check(run, output)
    assert "never-in-a-log" not in output
    assert not (dag_folder / "assets" / "written").exists(), "a trial wrote into the author's folder"


def test_on_a_cluster(
    run_dag: Callable[..., Any], load_dag: Callable[..., Any], dag_folder: Path, monkeypatch: pytest.MonkeyPatch,
    ray_head: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    address = ray_head.address.removeprefix("http://")
    host, _, port = address.partition(":")
    connect(monkeypatch, host=host, port=int(port), password=ray_head.token)
    run = run_dag(load_dag(dag_folder / "dag.py"))
    output = capfd.readouterr().out + caplog.text
    check(run, output)
    assert "never-in-a-log" not in output
