"""The simulator's fork server, with a small module in the place of the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argo_simulator import ForkServer, simulate

MAIN = """
import atexit, os, sys, threading, time

PRELOADED_BY = os.getpid()

def main():
    atexit.register(print, "at exit")
    command, *rest = sys.argv[1:]
    if command == "show":
        print(sys.argv[0], os.getcwd(), os.environ.get("GIVEN"), os.environ.get("SERVER"), len(rest))
        print("to stderr", file=sys.stderr)
        print(os.getsid(0) == os.getpid(), PRELOADED_BY != os.getpid())
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        return 3
    if command == "exit":
        sys.exit(rest[0])
    if command == "raise":
        raise ValueError("broken")
    if command == "outputs":
        os.makedirs(rest[0])
        open(rest[0] + "/x", "w").write("out")
        return 0
    if command == "sleep":
        print("sleeping", flush=True)
        time.sleep(30)
    return None
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "forked_main.py").write_text(MAIN)
    env = {**os.environ, "PYTHONPATH": str(folder), "SERVER": "yes"}
    with ForkServer(preload=("json",), env=env, main="forked_main:main") as server:
        yield server


def run(server: ForkServer, tmp_path: Path, *command: str, **fields: Any) -> Any:
    template = {"name": "t", "container": {"image": "x", "command": ["raynode"], "args": list(command)}, **fields}
    return simulate(
        {"kind": "Workflow", "metadata": {"name": "wf"}, "spec": {"entrypoint": "t", "templates": [template]}},
        workdir=tmp_path,
        env={"GIVEN": "pod"},
        fork_server=server,
        kill_after_s=0.2,
        timeout=30,
    ).node("")


def test_a_fork_has_the_pods_directory_environment_arguments_and_log(server: ForkServer, tmp_path: Path) -> None:
    node = run(server, tmp_path, "show", "a", "b")
    lines = node.log.splitlines()
    assert lines[0] == f"raynode {tmp_path}/001-/work pod None 2"
    assert lines[1:] == ["to stderr", "True True", "thread", "at exit"]
    assert (node.phase, node.exit_code) == ("Failed", 3)


@pytest.mark.parametrize(
    ("command", "code", "log"),
    [
        (("exit", "stopped"), 1, "stopped"),
        (("raise",), 1, "ValueError: broken"),
        (("none",), 0, ""),
    ],
)
def test_exit_codes_are_those_of_an_interpreter(
    server: ForkServer, tmp_path: Path, command: tuple[str, ...], code: int, log: str
) -> None:
    node = run(server, tmp_path, *command)
    assert node.exit_code == code
    assert log in node.log


def test_outputs(server: ForkServer, tmp_path: Path) -> None:
    outputs = {"parameters": [{"name": "x", "valueFrom": {"path": "/tmp/forked/x"}}]}
    assert run(server, tmp_path, "outputs", "/tmp/forked", outputs=outputs).outputs == {"x": "out"}


def test_a_signal_reaches_the_fork(server: ForkServer, tmp_path: Path) -> None:
    node = run(server, tmp_path, "sleep", activeDeadlineSeconds=1)
    assert (node.exit_code, node.log) == (143, "sleeping\n")


def test_other_commands_are_started_as_they_are(server: ForkServer, tmp_path: Path) -> None:
    template = {"name": "t", "container": {"image": "x", "command": ["sh", "-c", "echo plain"]}}
    document = {"kind": "Workflow", "spec": {"entrypoint": "t", "templates": [template]}}
    assert simulate(document, workdir=tmp_path, fork_server=server).node("").log == "plain\n"


def test_a_preload_that_fails_is_told(tmp_path: Path) -> None:
    with ForkServer(preload=("no_such_module",)) as server, pytest.raises(RuntimeError, match="no_such_module"):
        run(server, tmp_path, "show")


def test_close_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "forked_main.py").write_text(MAIN)
    server = ForkServer(preload=(), env={**os.environ, "PYTHONPATH": str(tmp_path)}, main="forked_main:main")
    server.wait_until_ready()
    start = time.monotonic()
    server.close()
    assert time.monotonic() - start < 5
    assert not Path(server.socket).exists()
