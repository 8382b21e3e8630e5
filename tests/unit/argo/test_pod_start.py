"""What a pod's start costs beside Airflow's own import: what is imported, what the catalog is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_raynode.argo.records import RunStore
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError

DAG_FILE = """
import gc
from airflow.sdk import DAG, task

with DAG("start", schedule=None):
    @task
    def one():
        print("collector", gc.isenabled(), gc.get_freeze_count() > 100_000)
        return 1

    @task(trigger_rule="one_success")
    def two(x):
        return x

    @task
    def each(x, y):
        return x

    two(one())
    each.expand(x=[1, 2], y=[3])
"""
# Of ours, what a pod that runs a task may import: the export, the lint and the settings are none of it.
NOT_IN_A_POD = ("compile", "templates", "checks", "yaml_writer", "schedule", "export", "lint", "settings", "ray_job")
HEAVY = ("ray", "numpy", "pandas", "pyarrow", "fastapi", "kubernetes", "s3fs", "boto3", "sklearn", "airflow.models.dag")


def modules_of(code: str, folder: Path) -> tuple[set[str], str]:
    """Run code in a fresh interpreter; return the modules that it ended with, and what it printed."""
    file = folder / "modules.json"
    ending = "import atexit, json, pathlib, sys\natexit.register(lambda: pathlib.Path(sys.argv[1]).write_text(" + (
        "json.dumps(list(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ending + code, str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert file.exists(), done.stderr
    return set(json.loads(file.read_text())), done.stdout


def pod(folder: Path, *arguments: str) -> tuple[set[str], str]:
    """Run `raynode argo run-task` in a fresh interpreter."""
    call = ["argo", "run-task", f"--pipeline-file={folder / 'start.py'}", "--run-id=run", *arguments]
    return modules_of(f"from airflow_provider_raynode.cli import main\nprint('exit', main({call!r}))", folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    (tmp_path / "start.py").write_text(DAG_FILE)
    return tmp_path


def test_pods_import_little_beside_airflows_task_runner(folder: Path) -> None:
    alone, _ = modules_of("import airflow.sdk.execution_time.task_runner", folder)
    found, output = pod(folder, "--step-name=one", f"--outputs={folder / 'out'}")
    assert "exit 0" in output
    # The garbage collector works again while the task runs, and leaves the imported modules alone.
    assert "collector True True" in output
    decided, output = pod(folder, "--step-name=two", "--decide=pod", "--run-id=another")
    assert "exit 101" in output
    planned, output = pod(folder, "--step-name=each", "--plan")
    assert "exit 0" in output
    ours = {f"airflow_provider_raynode.argo.{name}" for name in NOT_IN_A_POD}
    for modules in (found, decided, planned):
        beside = modules - alone
        assert not beside & {*HEAVY, *ours}
        assert len(beside) < 160, sorted(beside)
    # Only where a trigger rule is asked is there a graph, and only where a task is run what runs it.
    assert "airflow_provider_raynode.argo.graph" not in found
    assert not (decided | planned) & {"airflow_provider_raynode.argo.task_sdk._run"}


class Counted(MemoryFileSystem):  # type: ignore[misc]  fsspec has no types
    """A store that notes what it is asked for."""

    asked: list[str]

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.asked.append("read")
        return super().cat_file(path, *args, **kwargs)

    def exists(self, path: str, **kwargs: Any) -> bool:
        self.asked.append("exists")
        return bool(super().exists(path, **kwargs))


def test_a_record_that_is_not_there_is_asked_for_once() -> None:
    filesystem = Counted(skip_instance_cache=True)
    filesystem.asked = []
    store = RunStore(Catalog("memory://pods", filesystem=filesystem), "dag", "run")
    assert store.record("task") is None
    assert store.xcom("task", -1, "return_value") == (False, None)
    assert filesystem.asked == ["read", "read"]


def test_a_record_that_cannot_be_read_is_not_absent(tmp_path: Path) -> None:
    store = RunStore(Catalog(str(tmp_path)), "dag", "run")
    (tmp_path / "dag/run/task/-1/airflow_task/record.json").mkdir(parents=True)
    with pytest.raises(CatalogError, match="is a folder"):
        store.record("task")
