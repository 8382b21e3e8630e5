"""The work of a shell command: the driver starts it, shows what it writes, and ends with it.

So a command runs on the embedded Ray, which has no Jobs API, and on a cluster where it gets secrets: these are in its
environment, and in nothing that Ray shows of a job.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from airflow_provider_raynode.exceptions import ConfigError, RayNodeError
from airflow_provider_raynode.runtime.secrets import KEY_VARIABLE, NodeSecrets
from airflow_provider_raynode.runtime.work import Work
from airflow_provider_raynode.spec import SECRETS_FILE_VARIABLE, Entrypoint, NodeFailure

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.output import Output

log = logging.getLogger("airflow_provider_raynode.driver")

# The driver's own: what leads to the secrets, and what the launcher of an embedded Ray says to it.
_OF_THE_DRIVER = (KEY_VARIABLE, SECRETS_FILE_VARIABLE, "RAYNODE_TEMP_DIR", "RAYNODE_RUNTIME_ENV")
# Ray reads the runtime environment of a job here.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_CHUNK = 65_536
# Lines of the log that a failure brings along.
_LAST_LINES = 30
# How long, in seconds, a command may take to end when it is told to, and its last lines to come.
_END_S, _LINES_S = 1.5, 2.0
_POLL_S = 0.05


class EntrypointError(RayNodeError):
    """The command has failed."""

    def __init__(self, message: str, lines: str) -> None:
        super().__init__(message)
        self.failure = NodeFailure(type="EntrypointFailed", message=message, traceback=lines)


class EntrypointWork(Work):
    """Runs `entrypoint`."""

    unit: ClassVar[str] = "command"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> Entrypoint:
        """What is run."""
        assert self.spec.entrypoint is not None
        return self.spec.entrypoint

    def prepare(self) -> None:
        """Nothing is read before Ray starts."""

    def asked(self) -> dict[str, float]:
        """Return what the command itself reserves."""
        asked = {"CPU": self.command.num_cpus, "GPU": self.command.num_gpus, "memory": self.command.memory}
        return {name: float(value) for name, value in {**asked, **self.command.resources}.items() if value}

    def cut_short(self, failure: NodeFailure) -> dict[str, Any]:
        """End the command with all that it has started."""
        self._end_command()
        return {}

    def run(self, output: Output) -> dict[str, Any]:
        """Run the command to its end.

        :raises EntrypointError: it failed; with the last lines of its log.
        :raises ConfigError: the embedded Ray has not what it reserves.
        """
        import ray

        self.resources = {name: float(value) for name, value in ray.cluster_resources().items()}
        if self.job.embedded:
            # On a cluster Ray has reserved it for the job.
            self._reserve()
        secrets = None
        if self.job.secrets is not None:
            secrets = NodeSecrets(self.job.secrets, self.spec.submission_id, self.job.attempt)
        with self.job.phase("command"), secrets.masked_output() if secrets is not None else nullcontext():
            code, lines = self._run(self._environment(secrets))
        if code != 0:
            raise EntrypointError(f"the entrypoint {_ended(code)}", lines if secrets is None else secrets.mask(lines))
        return {}

    def _reserve(self) -> None:
        """Take what the command reserves from the embedded Ray, so that its tasks have the rest."""
        from ray.util import placement_group

        asked = self.asked()
        short = [
            f"{value:g} {name}, and there is {self.resources.get(name, 0):g}"
            for name, value in asked.items()
            if value > self.resources.get(name, 0)
        ]
        if short:
            raise ConfigError(
                f"the entrypoint reserves {'; '.join(short)}: the embedded Ray has only what this machine has. Ask for "
                "less, or give the connection the address of a cluster"
            )
        if asked:
            placement_group([asked], strategy="STRICT_PACK").wait(timeout_seconds=30)

    def _environment(self, secrets: NodeSecrets | None) -> dict[str, str]:
        found = _first_environment()
        for_ray = found.get("RAYNODE_RUNTIME_ENV")
        for name in _OF_THE_DRIVER:
            found.pop(name, None)
        if self.job.embedded:
            import ray

            found["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
            # On a cluster `python` is that of Ray as well.
            found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [found.get("PATH")])])
            if for_ray:
                found[_JOB_CONFIG] = json.dumps({"runtime_env": json.loads(for_ray)})
        if secrets is not None:
            found.update(secrets.environment())
        return found

    def _run(self, environment: dict[str, str]) -> tuple[int, str]:
        """Run the command and show what it writes; return its exit code and its last lines."""
        log.info("Entrypoint: %s", self.command.command)
        process = self._process = subprocess.Popen(
            self.command.command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self.started.set()
        assert process.stdout is not None
        lines: deque[str] = deque(maxlen=_LAST_LINES)
        reader = threading.Thread(target=_show, args=(process.stdout, lines), name="raynode-command", daemon=True)
        reader.start()
        while (code := process.poll()) is None:  # not `wait`, which a signal's handler could not ask beside
            time.sleep(_POLL_S)
        # What the command has left in the background may keep its output open for ever.
        reader.join(_LINES_S)
        return code, "\n".join(lines)

    def _end_command(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        family = _family(process)
        for each in family:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGTERM)
        end = time.monotonic() + _END_S
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        for each in dict.fromkeys([*family, *_family(process)]):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)


def _family(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the pids of the command and of what it has started, of the latest first."""
    try:
        import psutil  # Ray brings it along
    except ImportError:
        return [process.pid]
    try:
        found = psutil.Process(process.pid)
        return [*(each.pid for each in reversed(found.children(recursive=True))), process.pid]
    except psutil.Error:
        return []


def _show(stream: IO[bytes], lines: deque[str]) -> None:
    """Write what comes to standard output, and keep the last lines."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while data := os.read(stream.fileno(), _CHUNK):
        text = decoder.decode(data)
        sys.stdout.write(text)
        sys.stdout.flush()
        *whole, rest = (rest + text).split("\n")
        lines.extend(whole)
    if rest:
        lines.append(rest)
        sys.stdout.write("\n")
        sys.stdout.flush()


def _first_environment() -> dict[str, str]:
    """Return the environment that this process was started with: what the driver has set since is not the command's."""
    try:
        data = Path("/proc/self/environ").read_bytes()
    except OSError:  # not a Linux
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; was the machine out of memory?"
    return f"ended with exit code {code}"
