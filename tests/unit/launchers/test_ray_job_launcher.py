"""What the execution task makes of a RayJob: whose result it is, and why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import Kubernetes, ray_job

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.launchers import JobState
from airflow_provider_raynode.launchers.ray_job import RayJobLauncher
from airflow_provider_raynode.spec import JobRef, NodeFailure, NodeResult, Versions, ray_job_name, seal

SHA256 = "a" * 64
ID = "raynode-d-search-0123456789abcdef-a1"
NAME = ray_job_name(ID)


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path) as kubernetes:
        for name, value in kubernetes.env.items():
            monkeypatch.setenv(name, value)
        yield kubernetes


@pytest.fixture
def job(tmp_path: Path) -> JobRef:
    catalog = Catalog(str(tmp_path / "catalog"))
    node = catalog.node_prefix("d", "run", "search", -1)
    return JobRef(
        launcher="rayjob",
        submission_id=ID,
        attempt=1,
        address="rayjob",
        spec_uri=f"{node}/attempt_1/spec.json",
        spec_sha256=SHA256,
        catalog_uri=catalog.uri,
        node_prefix=node,
    )


def leave(job: JobRef, state: str = "FAILED", **changes: Any) -> None:
    """Leave a result in the attempt's folder, as a driver does."""
    fields: dict[str, Any] = {
        "submission_id": ID,
        "attempt": 1,
        "spec_sha256": SHA256,
        "state": state,
        "failure": NodeFailure(type="ValueError", message="the trial fails") if state == "FAILED" else None,
        "started": datetime(2026, 1, 1, 1, tzinfo=UTC),
        "ended": datetime(2026, 1, 1, 2, tzinfo=UTC),
        "versions": Versions(python="3.11.7", package="1"),
        "cluster": f"{NAME}-c",
    }
    catalog = Catalog(job.catalog_uri).at(job.node_prefix)
    catalog.write_bytes(f"{job.attempt_prefix}/result.json", seal(NodeResult(**fields | changes)))


def test_a_proven_result_needs_no_ray_job(kubernetes: Kubernetes, job: JobRef) -> None:
    leave(job, "SUCCEEDED")
    kubernetes.rights = set()
    assert RayJobLauncher().status(job).state is JobState.SUCCEEDED
    assert not kubernetes.requests


def test_the_failure_of_its_own_driver(kubernetes: Kubernetes, job: JobRef) -> None:
    leave(job)
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "FAILED", reason="AppFailed", message="exit code 1"))
    status = RayJobLauncher().status(job)
    assert (status.state, status.own_result) == (JobState.FAILED, True)
    assert status.message == (
        f"RayJob {NAME}: jobDeploymentStatus Failed, jobStatus FAILED, reason AppFailed: exit code 1"
    )


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ({"cluster": "that-of-the-try-before"}, {}),
        ({"cluster": None}, {"created": "2026-01-01T03:00:00Z"}),
        ({"spec_sha256": "b" * 64}, {}),
        ({"submission_id": "another"}, {}),
    ],
)
def test_an_old_result_is_not_this_jobs(
    kubernetes: Kubernetes, job: JobRef, result: dict[str, Any], found: dict[str, Any]
) -> None:
    leave(job, **result)
    why = {"reason": "DeadlineExceeded", "message": "The RayJob has passed the activeDeadlineSeconds."}
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "", **found, **why))
    status = RayJobLauncher().status(job)
    assert (status.state, status.own_result) == (JobState.FAILED, False)
    assert "reason DeadlineExceeded: The RayJob has passed" in status.message


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"ray.io/cluster": f"{NAME}-c"}}, "status": status}


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def test_why_the_pods_of_a_cluster_do_not_start(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "", reason="PreRunningDeadlineExceeded", message="too late"))
    pull = "failed to pull image 'ray:none': not found"
    kubernetes.put("pods", pod("head", containerStatuses=[waiting("ErrImagePull", pull)]))
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    kubernetes.put("pods", pod("worker", conditions=[unschedulable]))
    kubernetes.put("pods", pod("starts", containerStatuses=[waiting("ContainerCreating", "")]))
    message = RayJobLauncher().status(job).message
    assert f"pod head: ErrImagePull: {pull}\npod worker: Unschedulable: 0/3 nodes\n" in message
    assert "starts" not in message
    assert f"kubectl describe rayjob {NAME}" in message


def test_a_submitter_that_failed(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "", reason="SubmissionFailed", message="backoff limit"))
    ended = {"state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "401 Unauthorized"}}}
    submitter = {"metadata": {"name": "s", "labels": {"job-name": NAME}}, "status": {"containerStatuses": [ended]}}
    kubernetes.put("pods", submitter)
    assert "pod s: Error, exit code 1: 401 Unauthorized" in RayJobLauncher().status(job).message


def test_without_the_right_to_look_at_pods(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "", reason="DeadlineExceeded"))
    kubernetes.rights = {("get", "rayjobs")}
    message = RayJobLauncher().status(job).message
    assert "reason DeadlineExceeded" in message
    assert "{apiGroups: [''], resources: [pods], verbs: [list]}" in message


def test_without_any_right(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.rights = set()
    status = RayJobLauncher().status(job)
    assert (status.state, status.own_result) == (JobState.FAILED, False)
    assert "verbs: [get]" in status.message
    leave(job)
    status = RayJobLauncher().status(job)
    assert status.own_result
    assert "may be an earlier try's" in status.message


def test_a_deleted_ray_job(kubernetes: Kubernetes, job: JobRef) -> None:
    status = RayJobLauncher().status(job)
    assert (status.state, status.own_result) == (JobState.FAILED, False)
    assert status.message == f"The RayJob {NAME} is gone: it was deleted"


def test_one_that_still_runs_is_waited_for_and_can_be_ended(kubernetes: Kubernetes, job: JobRef) -> None:
    """Argo has lost the pod that waited for it; the search goes on."""
    leave(job)  # of an earlier try
    launcher = RayJobLauncher()
    kubernetes.put("rayjobs", ray_job(NAME, "Initializing", ""))
    assert launcher.status(job).state is JobState.PENDING
    kubernetes.put("rayjobs", ray_job(NAME))
    assert launcher.status(job).state is JobState.RUNNING
    assert launcher.stop(job).state is JobState.STOPPED
    assert kubernetes.names("rayjobs") == []


def test_what_has_ended_is_not_deleted(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "FAILED"))
    assert RayJobLauncher().stop(job).state is JobState.FAILED
    assert kubernetes.names("rayjobs") == [NAME]


def test_success_without_a_result_is_left_to_who_proves_it(kubernetes: Kubernetes, job: JobRef) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Complete", "SUCCEEDED"))
    assert RayJobLauncher().status(job).state is JobState.SUCCEEDED
