"""JobsApiLauncher against the session's real Ray head."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import self_signed
from cluster_jobs import await_end, python
from ray_head import RayHead
from tls_front import tls_front

from airflow_provider_raynode.hooks.ray import RayHook, Submission
from airflow_provider_raynode.launchers import JobState, LogChunk, launcher_for
from airflow_provider_raynode.launchers.jobs_api import JobsApiLauncher, entrypoint
from airflow_provider_raynode.spec import JobRef

pytestmark = pytest.mark.ray

LINES = 20_000
TALKATIVE = f"""
import sys, time
for number in range({LINES}):
    print('    ' * (number % 4) + f'line {{number}} — ünïcödé 🎯')
    if number % 5000 == 0:
        sys.stdout.flush(); time.sleep(0.6)
sys.stdout.write('\\r10%\\r100%')
sys.stdout.flush()
time.sleep(1.5)
sys.stdout.write(' done, and an unended last line')
"""


def job_ref(head: RayHead, name: str) -> JobRef:
    return JobRef(
        launcher="jobs_api",
        submission_id=f"{name}-{uuid.uuid4().hex[:8]}",
        attempt=1,
        ray_conn_id="ray_default",
        address=head.address,
        spec_uri="/tmp/no such folder/spec.json",
        spec_sha256="0" * 64,
        catalog_uri="/tmp/no such folder",
        node_prefix="/tmp/no such folder/d/r/n/-1",
    )


def read_to_end(
    launcher: JobsApiLauncher, job: JobRef, offset: int = 0, when: tuple[str, Callable[[], None]] | None = None
) -> tuple[str, list[LogChunk]]:
    """The log as the execution operator reads it; `when` is a text, and what to do once it has come."""
    chunks: list[LogChunk] = []
    while True:
        status = launcher.status(job)
        chunks.append(launcher.read_log(job, offset, final=status.state.ended))
        offset = chunks[-1].offset
        if when and when[0] in chunks[-1].text:
            when[1]()
        if status.state.ended:
            return "".join(chunk.text for chunk in chunks), chunks
        time.sleep(0.2)


def test_a_long_log_is_complete_and_streamed(ray_connection: RayHead) -> None:
    job, hook = job_ref(ray_connection, "log"), RayHook()
    hook.ensure_job(Submission(job.submission_id, python(TALKATIVE)))
    with JobsApiLauncher(RayHook()) as launcher:
        text, chunks = read_to_end(launcher, job)
    lines = text.split("\n")
    first = lines.index("line 0 — ünïcödé 🎯")
    expected = [f"{'    ' * (number % 4)}line {number} — ünïcödé 🎯" for number in range(LINES)]
    assert lines[first : first + LINES] == expected
    assert lines[first + LINES :] == ["", "10%", "100% done, and an unended last line"]
    assert text == hook.job_log(job.submission_id)
    assert chunks[-1].offset == len(text.encode())
    assert all(chunk.text.endswith("\n") for chunk in chunks[:-1] if chunk.text)
    early = sum(len(chunk.text) for chunk in chunks[:-1])
    # Ray sends ten lines in a message, so a burst takes some seconds.
    assert early > 0.2 * len(text), "the log comes while the job runs"


def test_a_new_launcher_goes_on_from_an_offset(ray_connection: RayHead) -> None:
    job, hook = job_ref(ray_connection, "resume"), RayHook()
    code = "import time\nfor i in range(12):\n    print('é', i, flush=True)\n    time.sleep(0.4)"
    hook.ensure_job(Submission(job.submission_id, python(code)))
    with JobsApiLauncher(RayHook()) as first:
        chunk = LogChunk("", 0)
        while "é 2\n" not in chunk.text:
            time.sleep(0.2)
            chunk = first.read_log(job, 0)
    with JobsApiLauncher(RayHook()) as second:
        rest, chunks = read_to_end(second, job, chunk.offset)
    assert chunk.text + rest == hook.job_log(job.submission_id)
    assert len(chunks) > 2
    assert next(line for line in rest.splitlines() if line.startswith("é")) not in chunk.text.splitlines()


def test_a_lost_connection_neither_loses_nor_repeats(ray_connection: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of the log breaks again and again; the log is whole."""
    job, hook = job_ref(ray_connection, "cut"), RayHook()
    code = "import time\nfor i in range(40):\n    print('number', i, flush=True)\n    time.sleep(0.2)"
    hook.ensure_job(Submission(job.submission_id, python(code)))
    from airflow_provider_raynode.launchers import _log_tail

    connections = []
    connect = _log_tail.connect

    def counted(*arguments: object, **named: object) -> object:
        connections.append(connect(*arguments, **named))
        return connections[-1]

    monkeypatch.setattr(_log_tail, "connect", counted)
    with JobsApiLauncher(RayHook()) as launcher:
        offset, text, streamed = 0, "", ""
        while not (status := launcher.status(job)).state.ended:
            chunk = launcher.read_log(job, offset)
            offset, streamed = chunk.offset, streamed + chunk.text
            if "number" in chunk.text:
                connections[-1].socket.shutdown(socket.SHUT_RDWR)
            time.sleep(0.3)
        text = streamed + launcher.read_log(job, offset, final=True).text
    assert status.state is JobState.SUCCEEDED
    assert len(connections) >= 2
    assert streamed.count("number") > 10
    assert text == hook.job_log(job.submission_id)


def test_ensure_submits_once_and_stop_is_confirmed(ray_connection: RayHead) -> None:
    job, hook = job_ref(ray_connection, "ensure"), RayHook()
    launcher = launcher_for(job, runtime_env={"env_vars": {"GREETING": "hi"}}, metadata={"dag_id": "d", "attempt": "1"})
    with launcher:
        assert launcher.ensure(job) is True
        assert launcher.ensure(job) is False
        details = hook.get_conn().get_json(f"/api/jobs/{job.submission_id}")
        assert details["entrypoint"] == entrypoint(job)
        assert "--spec '/tmp/no such folder/spec.json'" in details["entrypoint"]
        assert details["metadata"]["dag_id"] == "d"
        assert details["runtime_env"]["env_vars"]["GREETING"] == "hi"
        assert launcher.stop(job, timeout_s=40).state.ended
        assert launcher.status(job).state.ended


def test_stopping_an_ended_job_leaves_it(ray_connection: RayHead) -> None:
    job, hook = job_ref(ray_connection, "ended"), RayHook()
    hook.ensure_job(Submission(job.submission_id, python("print('x')")))
    await_end(hook, job.submission_id)
    with JobsApiLauncher(RayHook()) as launcher:
        assert launcher.stop(job).state is JobState.SUCCEEDED


def test_a_forgotten_job_is_lost(ray_connection: RayHead) -> None:
    """As after a restart of the head: the id is unknown, the log is gone."""
    job, hook = job_ref(ray_connection, "forgotten"), RayHook()
    hook.ensure_job(Submission(job.submission_id, python("print('x')")))
    await_end(hook, job.submission_id)
    with JobsApiLauncher(RayHook()) as launcher:
        hook.get_conn().send("DELETE", f"/api/jobs/{job.submission_id}")
        status = launcher.status(job)
        assert status.state is JobState.FAILED
        assert status.message.startswith("lost: ") and "head was restarted" in status.message
        assert launcher.read_log(job, 17, final=True) == LogChunk("", 17)
        assert launcher.stop(job).message.startswith("lost: ")


def test_through_tls(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HTTP and the log's WebSocket over TLS, with the authority that the connection names and not without."""
    certificate = self_signed(tmp_path)
    host, _, port = ray_head.address.removeprefix("http://").partition(":")
    with tls_front((host, int(port)), certificate) as url:
        fields = {"conn_type": "ray", "host": url, "password": ray_head.token}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(fields))
        ok, message = RayHook().test_connection()
        assert not ok and "certificate cannot be verified" in message
        fields["extra"] = {"ca_file": str(certificate)}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(fields))
        job, hook = job_ref(ray_head, "tls"), RayHook()
        code = "import time\nfor i in range(12):\n    print('secure', i, flush=True)\n    time.sleep(0.5)"
        hook.ensure_job(Submission(job.submission_id, python(code)))
        with JobsApiLauncher(RayHook()) as launcher:
            text, chunks = read_to_end(launcher, job)
        assert text == hook.job_log(job.submission_id) and text.count("secure") == 12
        assert "secure" in "".join(chunk.text for chunk in chunks[:-1]), "the log is followed over TLS"
