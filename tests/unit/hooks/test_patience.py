"""A cluster that is silent for a while, and one that stays so."""

from __future__ import annotations

import itertools
import socket
import time
from typing import Any

import pytest
from servers import Answer, as_json, serving, text

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.launchers import JobState
from airflow_provider_raynode.launchers.jobs_api import JobsApiLauncher
from airflow_provider_raynode.spec import JobRef

RUNNING = as_json({"status": "RUNNING", "message": "Job is currently running."})


def job_ref(address: str) -> JobRef:
    return JobRef(
        launcher="jobs_api",
        submission_id="job",
        attempt=1,
        address=address,
        spec_uri="/c/spec.json",
        spec_sha256="0" * 64,
        catalog_uri="/c",
        node_prefix="/c/d/r/n/-1",
    )


@pytest.mark.parametrize("bad", [text(503, "no upstream"), text(500, "GCS is down")])
def test_a_cluster_that_comes_back(bad: Answer) -> None:
    answers = itertools.chain([bad] * 2, itertools.repeat(RUNNING))
    with serving(lambda *_: next(answers)) as url, JobsApiLauncher(RayHook(address=url), grace_s=30) as launcher:
        assert launcher.status(job_ref(url)).state is JobState.RUNNING


def test_a_cluster_that_stays_away() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    begin = time.monotonic()
    expected = pytest.raises(ClusterError, match=r"refuses the connection.*\(tried for 2 s\)")
    with JobsApiLauncher(RayHook(address=url), grace_s=2) as launcher, expected:
        launcher.status(job_ref(url))
    assert 1 < time.monotonic() - begin < 20


def test_a_refusal_is_not_tried_again() -> None:
    requests = []

    def answer(request: Any, body: bytes) -> Answer:
        requests.append(request.path)
        return text(403, "Forbidden: Invalid authentication token")

    expected = pytest.raises(ClusterError, match="does not accept the token")
    with serving(answer) as url, JobsApiLauncher(RayHook(address=url), grace_s=30) as launcher, expected:
        launcher.status(job_ref(url))
    assert len(requests) == 1


def test_a_submit_whose_connection_breaks_is_made_once_more() -> None:
    """The first POST never reaches Ray: the id is unknown, so it is sent again."""
    posts = []

    def answer(request: Any, body: bytes) -> Answer:
        if request.command == "POST":
            posts.append(body)
            if len(posts) == 1:
                return text(502, "bad gateway")
            return as_json({"submission_id": "job"})
        return text(404, "Job job does not exist") if "/api/jobs/" in request.path else as_json({})

    with serving(answer) as url, JobsApiLauncher(RayHook(address=url)) as launcher:
        assert launcher.ensure(job_ref(url)) is True
    assert len(posts) == 2 and posts[0] == posts[1]


def test_a_stop_that_is_not_confirmed_says_so() -> None:
    with serving(lambda *_: RUNNING) as url, JobsApiLauncher(RayHook(address=url)) as launcher:
        begin = time.monotonic()
        status = launcher.stop(job_ref(url), timeout_s=0.6)
    assert status.state is JobState.RUNNING and "asked to stop 0.6 s ago, still RUNNING" in status.message
    assert time.monotonic() - begin < 10
