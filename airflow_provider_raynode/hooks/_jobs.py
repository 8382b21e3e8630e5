"""Jobs on a Ray cluster through its Jobs API: submit once, look, stop, read the log."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks._http import ClusterRefusedError, ClusterUnreachableError, RayHttp
from airflow_provider_raynode.hooks._package import Package
from airflow_provider_raynode.hooks._runtime_env import merged, packaged
from airflow_provider_raynode.launchers._base import JobState, JobStatus

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_STOP_POLL_S = 0.25
# A job that is PENDING when it is told to stop may start after all: it is told again.
_STOP_AGAIN_S = 5.0
_SUBMIT_TRIES = 3


class UnknownJobError(ClusterError):
    """The cluster does not know a job."""

    def __init__(self, submission_id: str, address: str) -> None:
        super().__init__(
            f"{address} does not know job {submission_id}: the cluster's head was restarted and has forgotten it, or "
            "it was deleted there"
        )


@dataclass(frozen=True)
class Submission:
    """A job to run.

    :param submission_id: its name on the cluster, `[A-Za-z0-9_-]` only: the same id is the same job.
    :param entrypoint: shell command, run on the head node.
    :param runtime_env: Ray's runtime environment, over the connection's default.
    :param metadata: shown with the job by Ray; no secrets.
    :param reserves: what the command itself reserves, in the words of Ray's request: `entrypoint_num_cpus`, …
    :param is_driver: whether the command is our driver, which needs this package on the cluster.
    """

    submission_id: str
    entrypoint: str
    runtime_env: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    reserves: Mapping[str, Any] = field(default_factory=dict)
    is_driver: bool = True


class RayJobs:
    """The jobs of one cluster."""

    def __init__(self, http: RayHttp) -> None:
        self._http = http

    def ensure(self, submission: Submission) -> bool:
        """Submit a job unless the cluster knows its id; see `RayHook.ensure_job`."""
        job_id = checked_id(submission.submission_id)
        if self._known(submission):
            return False
        environment, packages = packaged(
            merged(self._http.settings.runtime_env, submission.runtime_env), with_driver=submission.is_driver
        )
        for package in packages:
            self._upload(package)
        body = {
            "submission_id": job_id,
            "entrypoint": submission.entrypoint,
            "runtime_env": environment,
            "metadata": dict(submission.metadata),
            **submission.reserves,
        }
        for last in (False,) * (_SUBMIT_TRIES - 1) + (True,):
            try:
                self._http.send("POST", "/api/jobs/", json=body)
                return True
            except ClusterUnreachableError:
                # The answer is lost, the job may be there; if not, the same id makes another try safe.
                if self._known(submission):
                    return True
                if last:
                    raise
            except ClusterRefusedError as error:
                if "already exists" in error.text and self._known(submission):
                    return False
                raise _submit_error(job_id, error) from error
        raise AssertionError("unreachable")

    def get(self, submission_id: str) -> JobStatus | None:
        """Return the status of a job, None where the cluster knows no such job."""
        details = self._details(submission_id)
        return None if details is None else _status(details)

    def stop(self, submission_id: str, timeout_s: float) -> JobStatus | None:
        """Stop a job and wait for its end; see `RayHook.stop_job`."""
        job_id = checked_id(submission_id)
        deadline = time.monotonic() + timeout_s
        asked = float("-inf")
        while True:
            details = self._details(job_id)
            if details is None:
                return None
            status = _status(details)
            now = time.monotonic()
            if status.state.ended:
                return status
            if now - asked >= _STOP_AGAIN_S:
                self._ask_to_stop(job_id)
                asked = now
            elif now >= deadline:
                return JobStatus(
                    status.state, f"asked to stop {timeout_s:g} s ago, still {status.state}: {status.message}"
                )
            time.sleep(max(0.0, min(_STOP_POLL_S, deadline - now)))

    def log(self, submission_id: str) -> str:
        """Return the whole log of a job; see `RayHook.job_log`."""
        job_id = checked_id(submission_id)
        try:
            answer = self._http.get_json(f"/api/jobs/{job_id}/logs")
        except ClusterRefusedError as error:
            if error.status == 404:
                raise UnknownJobError(job_id, self._http.settings.address) from error
            if "UnicodeDecodeError" not in error.text:
                raise
            return self._raw_log(job_id)
        logs = answer.get("logs") if isinstance(answer, dict) else None
        return logs if isinstance(logs, str) else ""

    def _raw_log(self, job_id: str) -> str:
        """Return a log that is not UTF-8 as a whole, which the Jobs API cannot send, with its lines ended as there."""
        details = self._details(job_id) or {}
        node = details.get("driver_node_id") or ""
        name = f"job-driver-{job_id}.log"
        data = self._http.get("/api/v0/logs/file", node_id=node, filename=name, lines="-1").content
        return data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")

    def _known(self, submission: Submission) -> bool:
        details = self._details(submission.submission_id)
        if details is None:
            return False
        if details.get("entrypoint") != submission.entrypoint:
            raise ClusterError(
                f"{self._http.settings.address} has another job with the submission id {submission.submission_id}: it "
                f"runs {details.get('entrypoint')!r}, not {submission.entrypoint!r}. Does another Airflow with the "
                "same DAG and run use this cluster? Delete the job from the cluster, or rename the DAG"
            )
        return True

    def _details(self, submission_id: str) -> dict[str, Any] | None:
        job_id = checked_id(submission_id)
        try:
            details = self._http.get_json(f"/api/jobs/{job_id}")
        except ClusterRefusedError as error:
            if error.status == 404 and "does not exist" in error.text:
                return None
            raise
        if not isinstance(details, dict) or not JobState.is_one(details.get("status")):
            raise ClusterError(f"{self._http.settings.address} describes job {job_id} in an unknown way")
        return details

    def _ask_to_stop(self, job_id: str) -> None:
        try:
            self._http.send("POST", f"/api/jobs/{job_id}/stop")
        except ClusterRefusedError as error:
            if error.status != 404:
                raise

    def _upload(self, package: Package) -> None:
        path = f"/api/packages/gcs/{package.name}"
        try:
            # Ray keeps a package that was asked for until the job has started.
            self._http.get(path)
        except ClusterRefusedError as error:
            if error.status != 404:
                raise
            self._http.send("PUT", path, data=package.data)


def checked_id(submission_id: str) -> str:
    """Return a submission id that is safe in a path.

    :raises ClusterError: Ray would leave a job with this id half made.
    """
    if _ID.fullmatch(submission_id) is None:
        raise ClusterError(
            f"submission id {submission_id!r}: only letters, digits, _ and - are allowed, 1 to 200 of them"
        )
    return submission_id


def _status(details: Mapping[str, Any]) -> JobStatus:
    return JobStatus(JobState(details["status"]), details.get("message") or "")


def _submit_error(job_id: str, error: ClusterRefusedError) -> ClusterError:
    if "No available agent" in error.text:
        return ClusterUnreachableError(f"the cluster is starting and takes no job yet: {error}")
    if error.status == 400 or "status code 400" in error.text:
        return ClusterError(f"Ray refuses job {job_id}: {error}. Check ray_cluster.runtime_env")
    return ClusterError(f"job {job_id} was not submitted: {error}")
