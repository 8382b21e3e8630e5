"""The embedded default: the driver as a child process with a Ray of its own."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

import airflow_provider_raynode
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, ClusterError
from airflow_provider_raynode.launchers._base import JobState, JobStatus, Launcher, LogChunk
from airflow_provider_raynode.launchers._local_environment import LocalEnvironment, local_environment, pythonpath
from airflow_provider_raynode.spec import JobRef

log = logging.getLogger(__name__)

# What would lead the child to a Ray or a token that is not its own.
_FOREIGN = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
)
# Connections, variables and configuration of Airflow, passwords among them: the function gets what the node declares.
_AIRFLOWS_OWN = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__")

# A short path: Ray's sockets lie below it, and their names have at most 107 bytes.
_TEMP = Path("/tmp")
_FOLDER = re.compile(r"rn-\d+-\w+")
_STALE_S = 60.0
_LOCK = "lock"


class LocalLauncher(Launcher):
    """Runs the driver as a child of this process, in a session and process group of its own.

    The child ends with this process: by `stop` or `close`, or, when this process is killed, by itself within seconds.
    Whatever ends it, no process of its Ray is left: they are in its group, and are found by pid where not.

    :param env_vars: gives environment variables of the child, over all others.
    :param runtime_env: gives Ray's runtime environment of the job; read when the child is started.
    """

    def __init__(
        self,
        env_vars: Callable[[], Mapping[str, str]] | None = None,
        runtime_env: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._env_vars = env_vars
        self._runtime_env = runtime_env
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._lock: IO[bytes] | None = None
        self._family: dict[int, psutil.Process] = {}
        self._job: JobRef | None = None

    def ensure(self, job: JobRef) -> bool:
        """Start the driver; an attempt runs once in a launcher's life.

        :raises ClusterError: the child cannot be started.
        :raises ConfigError: the runtime environment names what is not there.
        """
        if self._process is not None:
            return False
        self._job = job
        _remove_stale_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=f"rn-{os.getpid()}-", dir=_TEMP))
        self._lock = hold(self._folder)
        own = LocalEnvironment() if self._runtime_env is None else local_environment(self._runtime_env(), self._folder)
        command = [sys.executable, "-u", "-m", "airflow_provider_raynode.runtime", "--local"]
        command += ["--parent", str(os.getpid()), "--spec", job.spec_uri, "--sha256", job.spec_sha256]
        try:
            with self._log_file.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment(own),
                    cwd=own.working_dir or self._folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise ClusterError(f"the driver cannot be started: {error}") from error
        return True

    def status(self, job: JobRef) -> JobStatus:
        """Return the child's state; an ended child's Ray is gone when this returns."""
        if self._process is None:
            return JobStatus(JobState.PENDING)
        code = self._process.poll()
        if code is None:
            self._remember_family()
            return JobStatus(JobState.RUNNING)
        self._sweep()
        if code == 0:
            return JobStatus(JobState.SUCCEEDED)
        if code < 0:
            name = signal.Signals(-code).name
            return JobStatus(JobState.FAILED, f"the driver was killed by {name}; was this machine out of memory?")
        return JobStatus(JobState.FAILED, f"the driver ended with exit code {code}")

    def read_log(self, job: JobRef, offset: int, *, final: bool = False) -> LogChunk:
        """Return the whole lines after `offset`."""
        if self._folder is None or not self._log_file.exists():
            return LogChunk("", offset)
        with self._log_file.open("rb") as file:
            file.seek(offset)
            data = file.read()
        if not final:
            data = data[: data.rfind(b"\n") + 1]
        return LogChunk(data.decode("utf-8", "replace"), offset + len(data))

    def stop(self, job: JobRef, *, timeout_s: float = 10.0) -> JobStatus:
        """Ask the driver to end, then kill what is left of it and its Ray."""
        process = self._process
        if process is None or process.poll() is not None:
            return self.status(job)
        self._remember_family()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(timeout_s * 0.6, 0.5))
        self._remember_family()
        self._sweep()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(timeout_s * 0.4, 0.5))
        return JobStatus(JobState.STOPPED, "stopped by Airflow")

    def close(self) -> None:
        """End a child that still runs, keep its log in the catalog, and remove its folder."""
        if self._job is not None and self._process is not None and self._process.poll() is None:
            self.stop(self._job)
        if self._folder is None:
            return
        self._keep_log()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        if self._lock is not None:
            self._lock.close()

    @property
    def _log_file(self) -> Path:
        assert self._folder is not None
        return self._folder / "driver.log"

    def _environment(self, own: LocalEnvironment) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in _FOREIGN and not name.startswith(_AIRFLOWS_OWN)
        }
        env = own.expanded(inherited)
        written = env.get("PYTHONPATH", "") if "PYTHONPATH" in own.env_vars else ""
        package = Path(airflow_provider_raynode.__file__).resolve().parent.parent
        paths = [str(package), *(entry for entry in sys.path if entry and Path(entry).is_dir())]
        env["PYTHONPATH"] = pythonpath(own, written, paths)
        if for_ray := own.for_ray():
            env["RAYNODE_RUNTIME_ENV"] = json.dumps(for_ray)
        env["PYTHONUNBUFFERED"] = "1"
        # A token of its own: no other user of this machine can use this Ray.
        env["RAY_AUTH_MODE"] = "token"
        env["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        env["RAYNODE_TEMP_DIR"] = str(self._folder)
        env.update(self._env_vars() if self._env_vars is not None else {})
        return env

    def _remember_family(self) -> None:
        """Note the child's descendants by pid and start time, for when it is gone and its orphans have no parent."""
        assert self._process is not None
        with suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._family.setdefault(process.pid, process)

    def _sweep(self) -> None:
        """Kill what is left of the child's process group and of its descendants."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        left = [process for process in self._family.values() if process.is_running()]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=3)
        self._family.clear()

    def _keep_log(self) -> None:
        if self._job is None or not self._log_file.exists():
            return
        try:
            catalog = Catalog(self._job.catalog_uri)
            uri = f"{self._job.attempt_prefix}/driver.log"
            # A driver that is started a second time on an attempt adds to its log.
            earlier = catalog.read_bytes(uri) if catalog.exists(uri) else b""
            catalog.write_bytes(uri, earlier + self._log_file.read_bytes())
        except CatalogError as error:
            log.warning("The driver's log could not be kept: %s", error)


def hold(folder: Path) -> IO[bytes]:
    """Lock a folder for as long as this process lives, or until what is returned is closed.

    The pid in its name does not say enough: containers that share a /tmp have pids of their own, and pids come again.
    """
    file = (folder / _LOCK).open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def is_held(folder: Path) -> bool:
    """Whether the launcher of a folder is alive."""
    try:
        with (folder / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, not there yet, or not ours to read
        return True
    return False


def _remove_stale_folders() -> None:
    """Remove the folders of launchers that were killed together with their driver, when nobody could."""
    for folder in _TEMP.glob("rn-*"):
        if not _FOLDER.fullmatch(folder.name) or is_held(folder):
            continue
        with suppress(OSError):
            state = folder.stat()
            if state.st_uid == os.getuid() and time.time() - state.st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
