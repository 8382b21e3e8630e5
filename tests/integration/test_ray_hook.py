"""RayHook against the session's real Ray head."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest
import requests
from cluster_jobs import await_end, await_line, python
from ray_head import RayHead

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks.ray import ClusterRefusedError, RayHook, Submission, UnknownJobError
from airflow_provider_raynode.launchers import JobState

pytestmark = pytest.mark.ray


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def test_test_connection_tells_version_nodes_and_resources(ray_connection: RayHead) -> None:
    ok, message = RayHook().test_connection()
    assert ok, message
    assert "Ray 2.60" in message and "1 node, 2 CPU" in message and "Python 3." in message


def test_cluster_info(ray_connection: RayHead) -> None:
    import platform

    info = RayHook().cluster_info()
    assert info.ray_version.startswith("2.60.")
    assert info.python_version == platform.python_version()
    assert info.resources["CPU"] == 2
    assert [node.is_head for node in info.nodes] == [True]
    assert info.is_this_host


def test_token_missing(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", f"ray://{ray_head.address.removeprefix('http://')}")
    ok, message = RayHook().test_connection()
    assert not ok and "asks for a token and connection ray_default has none" in message


def test_token_wrong(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    host = ray_head.address.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", f"ray://:{'0' * 64}@{host}")
    ok, message = RayHook().test_connection()
    assert not ok and "does not accept the token of connection ray_default (403" in message
    with pytest.raises(ClusterRefusedError):
        RayHook().get_job("x")


def test_token_of_the_process(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_head.temp_dir / "token"))
    assert RayHook(address=ray_head.address).test_connection()[0]


def test_an_unknown_job(ray_connection: RayHead) -> None:
    hook = RayHook()
    assert hook.get_job("nobody") is None
    assert hook.stop_job("nobody") is None
    with pytest.raises(UnknownJobError, match="does not know job nobody"):
        hook.job_log("nobody")


def test_one_id_is_one_job(ray_connection: RayHead) -> None:
    """Many submits at once start one job, and a submit after its end attaches still."""
    submission = Submission(unique("race"), python("print('once')"))
    barrier, started = threading.Barrier(3), []

    def submit() -> None:
        hook = RayHook()
        hook.resolve()
        barrier.wait()
        started.append(hook.ensure_job(submission))

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [False, False, True]
    hook = RayHook()
    assert await_end(hook, submission.submission_id).state is JobState.SUCCEEDED
    assert hook.ensure_job(submission) is False
    assert hook.job_log(submission.submission_id).splitlines().count("once") == 1


def test_an_id_of_another_job_is_refused(ray_connection: RayHead) -> None:
    hook, name = RayHook(), unique("taken")
    hook.ensure_job(Submission(name, python("pass")))
    with pytest.raises(ClusterError, match=f"another job with the submission id {name}"):
        hook.ensure_job(Submission(name, python("print(1)")))


def test_a_lost_answer_is_looked_up(ray_connection: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was taken, the answer never came: the hook looks before it submits again."""
    hook, submission = RayHook(), Submission(unique("lost"), python("print('here')"))
    session = hook.get_conn()._session
    send, posts = session.request, []

    def lossy(method: str, url: str, **arguments: object) -> requests.Response:
        response = send(method, url, **arguments)
        if method == "POST" and url.endswith("/api/jobs/"):
            posts.append(url)
            raise requests.exceptions.ReadTimeout("the answer is lost")
        return response

    monkeypatch.setattr(session, "request", lossy)
    assert hook.ensure_job(submission) is True
    assert len(posts) == 1
    assert await_end(hook, submission.submission_id).state is JobState.SUCCEEDED


def test_this_package_is_shipped(ray_connection: RayHead) -> None:
    """The job imports the uploaded copy, not the one that this environment has installed."""
    hook, name = RayHook(), unique("ship")
    code = "import airflow_provider_raynode as p, airflow_provider_raynode.returns; print('FILE', p.__file__)"
    hook.ensure_job(Submission(name, python(code), metadata={"dag_id": "d"}))
    assert await_end(hook, name).state is JobState.SUCCEEDED
    [path] = [line.split()[1] for line in hook.job_log(name).splitlines() if line.startswith("FILE ")]
    assert path.startswith(str(ray_connection.temp_dir)) and "/py_modules_files/_ray_pkg_" in path


def test_local_folders_are_shipped(ray_connection: RayHead, tmp_path: Path) -> None:
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "work" / "sub" / "data.txt").write_text("näh")
    (tmp_path / "work" / "big.bin").write_bytes(b"0" * 10)
    (tmp_path / "mymodule").mkdir()
    (tmp_path / "mymodule" / "__init__.py").write_text("VALUE = 42")
    (tmp_path / "single.py").write_text("NAME = 'single'")
    code = (
        "import mymodule, single, pathlib, airflow_provider_raynode; "
        "print('GOT', mymodule.VALUE, single.NAME, pathlib.Path('sub/data.txt').read_text('utf-8'), "
        "pathlib.Path('big.bin').exists())"
    )
    environment = {
        "working_dir": str(tmp_path / "work"),
        "py_modules": [str(tmp_path / "mymodule"), str(tmp_path / "single.py")],
        "excludes": ["*.bin"],
        "env_vars": {"A": "1"},
    }
    hook, name = RayHook(), unique("folders")
    hook.ensure_job(Submission(name, python(code), environment))
    assert await_end(hook, name).state is JobState.SUCCEEDED, hook.job_log(name)
    assert "GOT 42 single näh False" in hook.job_log(name)


def test_stop_lets_the_driver_finish_and_is_confirmed(ray_connection: RayHead) -> None:
    # A head that was started in the background of a shell ignores SIGINT, and so do its jobs unless they ask for it.
    code = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print('ready', flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(4)
    print('partial results kept', flush=True)
"""
    hook, name = RayHook(), unique("stop")
    hook.ensure_job(Submission(name, python(code)))
    await_line(hook, name, "ready")
    early = hook.stop_job(name, timeout_s=0.5)
    assert early is not None and early.state is JobState.RUNNING and "still RUNNING" in early.message
    last = hook.stop_job(name)
    assert last is not None and last.state is JobState.STOPPED
    assert "partial results kept" in hook.job_log(name)
    assert hook.stop_job(name) == last


def test_a_log_that_is_not_utf8(ray_connection: RayHead) -> None:
    hook, name = RayHook(), unique("bytes")
    hook.ensure_job(Submission(name, python(r"import os; os.write(1, b'first\nbad \xff here\rnext\n')")))
    assert await_end(hook, name).state is JobState.SUCCEEDED
    assert hook.job_log(name).endswith("first\nbad \ufffd here\nnext\n")


def test_a_failed_job_has_rays_message(ray_connection: RayHead) -> None:
    hook, name = RayHook(), unique("fail")
    hook.ensure_job(Submission(name, python("raise ValueError('the reason')")))
    status = await_end(hook, name)
    assert status.state is JobState.FAILED and "the reason" in status.message


def test_a_runtime_env_that_cannot_be_made_fails_the_job_with_the_reason(ray_connection: RayHead) -> None:
    """Ray takes the job and fails it later, so the reason is in the job's message."""
    hook, name = RayHook(), unique("bad")
    hook.ensure_job(Submission(name, python("pass"), {"pip": ["x"], "conda": {"dependencies": ["pip"]}}))
    status = await_end(hook, name)
    assert status.state is JobState.FAILED and "'conda' field of runtime_env cannot" in status.message
