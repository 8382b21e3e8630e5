"""The launcher for a Ray cluster: the driver is a job of Ray's Jobs API."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks.ray import (
    ClusterRefusedError,
    ClusterUnreachableError,
    RayHook,
    Submission,
    UnknownJobError,
)
from airflow_provider_raynode.launchers._base import JobState, JobStatus, Launcher, LogChunk
from airflow_provider_raynode.launchers._log_tail import LogTail
from airflow_provider_raynode.spec import Entrypoint, JobRef

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_RETRY_S, _MAX_RETRY_S = 0.5, 5.0
# How often, in seconds, the whole log is downloaded while it cannot be followed.
_WHOLE_LOG_EVERY_S = 10.0


def entrypoint(job: JobRef) -> str:
    """Return the shell command of our driver; `exec`, so that Ray's signals reach the driver and not a shell."""
    return (
        f"exec python -m airflow_provider_raynode.runtime --spec {shlex.quote(job.spec_uri)} --sha256 {job.spec_sha256}"
    )


def reserves(command: Entrypoint) -> dict[str, Any]:
    """Return what a command reserves for itself, in the words of Ray's request; nothing where Ray decides."""
    asked = {
        "entrypoint_num_cpus": command.num_cpus,
        "entrypoint_num_gpus": command.num_gpus,
        "entrypoint_memory": command.memory,
        "entrypoint_resources": command.resources or None,
        "entrypoint_label_selector": command.label_selector or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


class JobsApiLauncher(Launcher):
    """Runs the driver, or somebody else's command, as a job on the cluster of a hook.

    A cluster that does not answer for a while (a restarted dashboard, a network fault) does not fail the task: each
    method tries again for `grace_s` seconds. `stop` does not: it has its own time limit.

    :param hook: the connection to the cluster; the launcher closes it.
    :param runtime_env: Ray's runtime environment of the job, over the connection's default.
    :param metadata: shown with the job by Ray; no secrets.
    :param env_vars: gives environment variables of a job that has to be submitted, over those of `runtime_env`.
    :param grace_s: how long in seconds a cluster may be silent.
    :param command: the command that is the job, and what it reserves; None for the driver.
    """

    def __init__(
        self,
        hook: RayHook,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        env_vars: Callable[[], Mapping[str, str]] | None = None,
        grace_s: float = 60.0,
        command: Entrypoint | None = None,
    ) -> None:
        self._hook = hook
        self._runtime_env = runtime_env
        self._metadata = dict(metadata or {})
        self._env_vars = env_vars
        self._grace_s = grace_s
        self._command = command
        self._tail: LogTail | None = None
        self._whole_log_at = 0.0
        self._pending = False

    def ensure(self, job: JobRef) -> bool:
        """Submit the job, or attach to it; see `Launcher.ensure` and `RayHook.ensure_job`."""
        if self._env_vars is not None and self._patiently(lambda: self._hook.get_job(job.submission_id)) is None:
            own = dict(self._runtime_env or {})
            self._runtime_env = {**own, "env_vars": {**own.get("env_vars", {}), **self._env_vars()}}
        command = self._command
        submission = Submission(
            job.submission_id,
            entrypoint(job) if command is None or command.by_driver else command.command,
            self._runtime_env,
            self._metadata,
            reserves={} if command is None else reserves(command),
            is_driver=command is None or command.by_driver,
        )
        return self._patiently(lambda: self._hook.ensure_job(submission), server_errors=False)

    def status(self, job: JobRef) -> JobStatus:
        """Return the job's state; a job that the cluster has forgotten is FAILED with a message that says so."""
        status = self._patiently(lambda: self._hook.get_job(job.submission_id))
        self._pending = status is not None and status.state is JobState.PENDING
        return self._lost(job) if status is None else status

    def read_log(self, job: JobRef, offset: int, *, final: bool = False) -> LogChunk:
        """Return the log after `offset`; see `Launcher.read_log`. The final read asks for the whole log once."""
        if self._pending and not final:
            # Ray closes the log of a job that has none yet; each attempt would delay the next.
            return LogChunk("", offset)
        tail = self._tail
        if tail is None or tail.submission_id != job.submission_id or offset < tail.first:
            if tail is not None:
                tail.close()
            tail = self._tail = None if final else LogTail(self._hook.resolve(), job.submission_id, offset)
        if final:
            return self._last_chunk(job, offset, tail)
        data = b"" if tail is None else tail.read(offset)
        now = time.monotonic()
        if not data and tail is not None and tail.broken and now - self._whole_log_at >= _WHOLE_LOG_EVERY_S:
            self._whole_log_at = now
            whole = self._whole_log(job)
            data = whole[offset : whole.rfind(b"\n") + 1]
        return LogChunk(data.decode("utf-8", errors="replace"), offset + len(data))

    def stop(self, job: JobRef, *, timeout_s: float = 10.0) -> JobStatus:
        """Stop the job; see `Launcher.stop`. After `timeout_s` the returned state says that it still runs."""
        status = self._hook.stop_job(job.submission_id, timeout_s)
        return self._lost(job) if status is None else status

    def close(self) -> None:
        """End the log's thread and the connections; the job goes on."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        self._hook.close()

    def _last_chunk(self, job: JobRef, offset: int, tail: LogTail | None) -> LogChunk:
        data = self._whole_log(job)[offset:]
        if not data and tail is not None:
            # The node with the log is gone, or the cluster has forgotten the job: what was received is all there is.
            data = tail.read(offset, final=True)
        if tail is not None:
            tail.close()
            self._tail = None
        return LogChunk(data.decode("utf-8", errors="replace"), offset + len(data))

    def _whole_log(self, job: JobRef) -> bytes:
        """Return the whole log, empty where the cluster cannot give it: the job's state matters more than its log."""
        try:
            return self._patiently(lambda: self._hook.job_log(job.submission_id), server_errors=False).encode()
        except UnknownJobError:
            return b""
        except ClusterRefusedError as error:
            log.warning("The log of %s cannot be read: %s", job.submission_id, error)
            return b""

    def _lost(self, job: JobRef) -> JobStatus:
        return JobStatus(JobState.FAILED, f"lost: {UnknownJobError(job.submission_id, job.address)}")

    def _patiently(self, call: Callable[[], _Answer], *, server_errors: bool = True) -> _Answer:
        """Return what `call` returns, trying again while the cluster is silent, or answers with an error of its own."""
        delay, silent_since = _RETRY_S, None
        while True:
            try:
                return call()
            except (ClusterUnreachableError, ClusterRefusedError) as error:
                if isinstance(error, ClusterRefusedError) and not (server_errors and error.status >= 500):
                    raise
                now = time.monotonic()
                if silent_since is None:
                    silent_since = now
                    log.warning("%s; trying again for %g s", error, self._grace_s)
                if now + delay > silent_since + self._grace_s:
                    raise ClusterError(f"{error} (tried for {self._grace_s:g} s)") from error
            time.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY_S)
