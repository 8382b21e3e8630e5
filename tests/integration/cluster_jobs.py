"""Small jobs for the tests of the Jobs API."""

from __future__ import annotations

import base64
import time

from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.launchers import JobStatus


def python(code: str) -> str:
    """An entrypoint that runs the code, which is not itself in the log."""
    packed = base64.b64encode(code.encode()).decode()
    return f"exec python -c \"import base64; exec(base64.b64decode('{packed}'))\""


def await_end(hook: RayHook, submission_id: str, timeout_s: float = 60.0) -> JobStatus:
    """The job's last status."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = hook.get_job(submission_id)
        assert status is not None
        if status.state.ended:
            return status
        assert time.monotonic() < deadline, f"{submission_id} is {status}:\n{hook.job_log(submission_id)}"
        time.sleep(0.2)


def await_line(hook: RayHook, submission_id: str, line: str, timeout_s: float = 60.0) -> None:
    """Wait until the job has printed the line."""
    deadline = time.monotonic() + timeout_s
    while line not in hook.job_log(submission_id).splitlines():
        assert time.monotonic() < deadline, f"no {line!r} in:\n{hook.job_log(submission_id)}"
        time.sleep(0.2)
