"""A command that the driver starts: its output, its end, its environment; real processes, no Ray."""

from __future__ import annotations

import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.runtime.entrypoint_work import EntrypointWork
from airflow_provider_raynode.runtime.work import Job, work_of
from airflow_provider_raynode.spec import Entrypoint, FunctionRef, NodeFailure, NodeSpec, RunContext, Versions


def work(command: str, tmp_path: Path, **fields: Any) -> EntrypointWork:
    spec = NodeSpec(
        submission_id="raynode-x-a1",
        attempt=1,
        context=RunContext(dag_id="d", run_id="r", node_id="n"),
        function=FunctionRef(name="entrypoint", python="3.11.7"),
        entrypoint=Entrypoint(command=command, by_driver=True, **fields),
        config=RayConfig.load({}),
        catalog_uri=str(tmp_path),
        node_prefix=f"{tmp_path}/d/r/n/-1",
        staged_by=Versions(python="3.11.7", package="0"),
    )
    lease: Any = None
    job = Job(spec, Catalog(str(tmp_path)).at(spec.attempt_prefix), False, None, lease, lambda _: nullcontext())
    found = work_of(job)
    assert isinstance(found, EntrypointWork)
    return found


def sleepers(seconds: int) -> list[int]:
    found = []
    for each in psutil.process_iter(["cmdline", "status"]):
        if each.info["cmdline"] == ["sleep", str(seconds)] and each.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(each.pid)
    return found


def test_what_it_writes_and_how_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = work("echo out; echo '  err' >&2; printf 'no newline'; exit 3", tmp_path)._run(dict(os.environ))
    assert (code, lines) == (3, "out\n  err\nno newline")
    assert "out\n  err\nno newline\n" in capsys.readouterr().out


def test_bytes_that_are_no_text_and_only_the_last_lines_are_kept(tmp_path: Path) -> None:
    _, lines = work(r"printf '\377\n'; seq 100", tmp_path)._run(dict(os.environ))
    assert lines.splitlines()[0] == "71"
    assert len(lines.splitlines()) == 30


def test_what_runs_on_in_the_background_holds_nothing_up(tmp_path: Path) -> None:
    begin = time.monotonic()
    code, lines = work("echo done; sleep 20 &", tmp_path)._run(dict(os.environ))
    assert (code, lines) == (0, "done")
    assert time.monotonic() - begin < 18


def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    seconds = 100_000 + os.getpid()
    one = work(f"trap '' TERM; sleep {seconds} & (sleep {seconds}; true)", tmp_path)
    thread = threading.Thread(target=one._run, args=(dict(os.environ),), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while len(sleepers(seconds)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert one.cut_short(NodeFailure(type="Stopped", message="stopped")) == {}
    thread.join(20)
    assert not thread.is_alive()
    assert sleepers(seconds) == []


def test_what_is_the_drivers_is_not_the_commands(tmp_path: Path) -> None:
    found = work("true", tmp_path)._environment(None)
    assert not {"RAYNODE_SECRETS_KEY", "RAYNODE_SECRETS_FILE", "RAYNODE_TEMP_DIR"} & set(found)
    assert found["PATH"]


def test_what_it_reserves_in_rays_words(tmp_path: Path) -> None:
    asked = work("true", tmp_path, num_cpus=0.5, num_gpus=0, memory=100, resources={"disk": 1}).asked()
    assert asked == {"CPU": 0.5, "memory": 100.0, "disk": 1.0}
