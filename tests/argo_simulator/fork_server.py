"""Pods of `raynode` by fork: a process that has the slow modules imported and forks for each of them.

What a fork cannot give as a fresh interpreter does:

- Airflow reads its file of settings (AIRFLOW_HOME) at import, and keeps AIRFLOW_HOME and paths made of it: give
  AIRFLOW_HOME and what goes with it to the server (`env=`) and let all its pods have the same. The `AIRFLOW__…`
  variables themselves, AIRFLOW_VAR_… and AIRFLOW_CONN_… are read anew at every use, so pods may differ in them. But
  what a preloaded module has computed from one at its import (the secrets backends, the log settings, lists of
  plugins and of XCom backends) stays; tests of those need real processes.
- PYTHONPATH is honoured by adding to sys.path; PYTHONHASHSEED, PYTHONUNBUFFERED and interpreter options are not.

The server ends when its starter closes it or dies. Started as
`python -m argo_simulator.fork_server SOCKET MODULE:FUNCTION MODULE…`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

MAIN = "airflow_provider_raynode.cli:main"
PRELOAD = (
    "airflow.sdk",
    "airflow_provider_raynode.cli",
    # What a pod imports when it runs its task: a fifth of a pod's time is left with these.
    "airflow_provider_raynode.argo.run_task",
    "airflow_provider_raynode.argo.ray_job",
    "airflow_provider_raynode.argo.states",
    "airflow_provider_raynode.argo.structure",
    "airflow_provider_raynode.argo.task_sdk._comms",
    "airflow_provider_raynode.argo.task_sdk._run",
    "airflow_provider_raynode.argo.task_sdk._subprocess",
    "airflow_provider_raynode.argo.task_sdk._triggers",
    "airflow_provider_raynode.hooks.catalog",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.sensors.python",
    "jinja2.ext",
)
_START_S = 120.0


class ForkServer:
    """Starts at once; use it as a context manager or `close` it.

    :param preload: modules to import before the first fork.
    :param env: the server's whole environment, which Airflow reads at import; the default is this process's.
    :param main: what a pod of `raynode` calls, with its arguments in sys.argv.
    """

    def __init__(
        self, preload: Sequence[str] = PRELOAD, env: Mapping[str, str] | None = None, *, main: str = MAIN
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="fork-server-")
        self.socket = str(Path(self._folder) / "socket")
        self.log_path = Path(self._folder) / "log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "argo_simulator.fork_server", self.socket, main, *preload],
                cwd=Path(__file__).resolve().parent.parent,
                env=dict(os.environ if env is None else env),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait for the imports.

        :raises RuntimeError: an import failed; the message has the server's log.
        """
        deadline = time.monotonic() + _START_S
        while not Path(self.socket).exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the fork server did not start: {self.log_path.read_text(errors='replace')}")
            time.sleep(0.02)

    def takes(self, command: Sequence[str]) -> bool:
        """Whether a command is one that the server runs."""
        return bool(command) and Path(command[0]).name == "raynode"

    async def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path
    ) -> ForkedProcess:
        """Run a command in a fork that leads a session of its own."""
        await asyncio.to_thread(self.wait_until_ready)
        reader, writer = await asyncio.open_unix_connection(self.socket)
        request = {"argv": list(command), "env": dict(env), "cwd": str(cwd), "out": str(stdout), "err": str(stderr)}
        writer.write(json.dumps(request).encode() + b"\n")
        pid = int(await reader.readline())
        return ForkedProcess(pid, reader, writer)

    def close(self) -> None:
        """End the server and what it still runs."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ForkedProcess:
    """A running fork; as much of asyncio's Process as a pod needs."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reader, self._writer = reader, writer

    async def wait(self) -> int:
        """Return the exit code; negative for a signal."""
        if self.returncode is None:
            line = await self._reader.readline()
            self._writer.close()
            if not line:
                raise RuntimeError("the fork server is gone")
            self.returncode = int(line)
        return self.returncode


def serve(path: str, main: str, preload: Sequence[str]) -> None:
    """Import the modules, then fork for every request until the standard input ends."""
    module, _, function = main.partition(":")
    for name in [*preload, module]:
        importlib.import_module(name)
    # Forks share the imported objects' memory as long as no collection touches them.
    gc.collect()
    gc.freeze()
    entry = getattr(sys.modules[module], function)
    wake_read, wake_write = socket.socketpair()
    wake_read.setblocking(False)
    wake_write.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGCHLD, _nothing)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under its name only once it listens: the name says that the server is ready.
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)
    running: dict[int, socket.socket] = {}
    while True:
        waiting: list[Any] = [0, listener, wake_read]
        ready, _, _ = select.select(waiting, [], [])
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                wake_read.recv(4096)
            for pid, code in _ended(running):
                with contextlib.suppress(OSError):
                    running[pid].sendall(b"%d\n" % code)
                running.pop(pid).close()
        if 0 in ready and not os.read(0, 1024):
            break
        if listener in ready:
            connection, _ = listener.accept()
            request = json.loads(connection.makefile("rb").readline())
            pid = _fork(entry, request, [listener, connection, wake_read, wake_write, *running.values()])
            connection.sendall(b"%d\n" % pid)
            running[pid] = connection
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that the signal wakes the select."""


def _ended(running: Mapping[int, Any]) -> Iterator[tuple[int, int]]:
    for pid in list(running):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            yield pid, os.waitstatus_to_exitcode(status)


def _fork(entry: Callable[[], Any], request: Mapping[str, Any], sockets: Sequence[socket.socket]) -> int:
    """Fork; return in the parent once the child leads its session, so that a signal to its group arrives."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)
        return pid
    code = 1
    try:
        os.setsid()
        os.close(read_end)
        os.close(write_end)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in sockets:
            each.close()
        code = _run(entry, request)
    finally:
        os._exit(code)


def _run(entry: Callable[[], Any], request: Mapping[str, Any]) -> int:
    _become(request)
    try:
        code: Any = entry()
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    # As an interpreter ends: threads, then the exit handlers.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0) & 0xFF


def _become(request: Mapping[str, Any]) -> None:
    """Take a request's directory, environment, arguments and files."""
    for number, path in ((1, request["out"]), (2, request["err"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = list(request["argv"])
    added = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and each not in sys.path]
    sys.path[0:0] = added


if __name__ == "__main__":
    # `-m` put the tests' folder first; a pod of `raynode` would not have it.
    sys.path.pop(0)
    serve(sys.argv[1], sys.argv[2], sys.argv[3:])
