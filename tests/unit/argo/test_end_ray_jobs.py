"""`raynode argo end-ray-jobs` and `make-way`: which RayJobs are ended, which are left, which are adopted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import UID, Kubernetes, ray_job

from airflow_provider_raynode.argo.end_ray_jobs import make_way
from airflow_provider_raynode.cli import main
from airflow_provider_raynode.kubernetes_api import KubernetesApi
from airflow_provider_raynode.ray_jobs import RayJobs
from airflow_provider_raynode.spec import earlier_ray_job_names, ray_job_name, submission_id

NAME = "search-0123456789ab-a2"


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path) as kubernetes:
        for name, value in kubernetes.env.items():
            monkeypatch.setenv(name, value)
        yield kubernetes


class Time:
    """A clock that goes on when somebody sleeps; `then` is done after so many sleeps."""

    def __init__(self, then: Callable[[], object] = lambda: None, after: int = 2) -> None:
        self.now = 0.0
        self._then, self._left = then, after

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._left -= 1
        if not self._left:
            self._then()

    def jobs(self) -> RayJobs:
        return RayJobs(KubernetesApi.of_pod(), sleep=self.sleep, clock=lambda: self.now)


def end(status: str = "Failed") -> int:
    return main(["argo", "end-ray-jobs", f"--workflow-uid={UID}", f"--status={status}"])


def test_what_runs_of_this_run_is_ended_and_nothing_else(kubernetes: Kubernetes) -> None:
    for deployment in ("", "Initializing", "Running", "Retrying", "Suspended", "Waiting"):
        kubernetes.put("rayjobs", ray_job(f"run-{deployment.lower() or 'new'}", deployment, ""))
    finished = [
        ray_job("done", "Complete", "SUCCEEDED"),
        ray_job("bad", "Failed", "FAILED"),
        ray_job("odd", "", "FAILED"),
    ]
    for each in [*finished, ray_job("invalid", "ValidationFailed", ""), ray_job("others", uid="5678")]:
        kubernetes.put("rayjobs", each)
    assert end() == 0
    assert kubernetes.names("rayjobs") == ["done", "bad", "odd", "invalid", "others"]
    assert end() == 0, "a second time there is nothing to do"


@pytest.mark.parametrize("job", ["", "PENDING", "RUNNING"])
def test_what_kuberay_has_failed_while_it_runs_is_ended(kubernetes: Kubernetes, job: str) -> None:
    kubernetes.put("rayjobs", ray_job("deadline", "Failed", job, reason="DeadlineExceeded"))
    assert end() == 0
    assert kubernetes.names("rayjobs") == []


def test_a_ray_job_that_comes_meanwhile_is_ended_too(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job("first"))
    kubernetes.on_delete = lambda found: found["metadata"]["name"] != "first"  # its finalizer takes a while

    def later() -> None:
        kubernetes.objects.pop(("rayjobs", "first"))
        kubernetes.put("rayjobs", ray_job("second"))

    assert Time(later).jobs().end_all(UID, timeout_s=60)
    assert kubernetes.names("rayjobs") == []


def test_the_wait_is_bounded(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job("stays"))
    kubernetes.on_delete = lambda found: False
    time = Time()
    assert not time.jobs().end_all(UID, timeout_s=60)
    assert time.now == 60


@pytest.mark.parametrize(
    ("verb", "status", "code"), [("list", "Failed", 1), ("delete", "Error", 1), ("list", "Succeeded", 0)]
)
def test_a_missing_right(
    kubernetes: Kubernetes, capsys: pytest.CaptureFixture[str], verb: str, status: str, code: int
) -> None:
    """Said by name; a run that has succeeded stays so."""
    kubernetes.put("rayjobs", ray_job("a"))
    kubernetes.rights = {("list", "rayjobs"), ("delete", "rayjobs"), ("get", "rayjobs")} - {(verb, "rayjobs")}
    assert end(status) == code
    assert f"{{apiGroups: ['ray.io'], resources: [rayjobs], verbs: [{verb}]}}" in capsys.readouterr().err


def way(kubernetes: Kubernetes, time: Time | None = None) -> list[str]:
    make_way((time or Time()).jobs(), NAME, "abc", settle_s=20)
    return kubernetes.names("rayjobs")


def test_nothing_in_the_way(kubernetes: Kubernetes) -> None:
    kubernetes.rights = {("get", "rayjobs")}
    assert way(kubernetes) == []
    assert main(["argo", "make-way", f"--name={NAME}", "--spec-sha256=abc"]) == 0


def test_one_that_runs_is_adopted(kubernetes: Kubernetes) -> None:
    for other in ("search-0123456789ab-a3", "search-fedcba987654-a1", "search-0123456789ab-a20"):
        kubernetes.put("rayjobs", ray_job(other))
    kubernetes.put("rayjobs", ray_job(NAME))
    time = Time()
    assert len(way(kubernetes, time)) == 4
    assert time.now == 20, "it was looked at until it was sure that it is not just ending"
    kubernetes.put("rayjobs", ray_job(NAME, "Initializing", ""))
    assert NAME in way(kubernetes)


def test_one_that_has_succeeded_is_adopted_at_once(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Complete", "SUCCEEDED"))
    time = Time()
    assert (way(kubernetes, time), time.now) == ([NAME], 0)


@pytest.mark.parametrize(
    ("deployment", "job"), [("Failed", "FAILED"), ("Failed", ""), ("ValidationFailed", ""), ("Running", "STOPPED")]
)
def test_one_that_has_failed_is_ended(kubernetes: Kubernetes, deployment: str, job: str) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, deployment, job))
    assert way(kubernetes) == []


def test_its_pods_are_waited_for(kubernetes: Kubernetes) -> None:
    """The object goes at once; its driver, on the same folder, has 30 s."""
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "FAILED"))
    kubernetes.put("pods", {"metadata": {"name": "head", "labels": {"ray.io/cluster": f"{NAME}-c"}}})
    time = Time(lambda: kubernetes.objects.clear(), after=5)
    assert (way(kubernetes, time), time.now) == ([], 5)
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "FAILED"))
    kubernetes.put("pods", {"metadata": {"name": "head", "labels": {"ray.io/cluster": f"{NAME}-c"}}})
    kubernetes.rights = {("get", "rayjobs"), ("delete", "rayjobs")}
    time = Time()
    assert (way(kubernetes, time), time.now) == ([], 0), "where it may not look, it goes on"


def test_why_it_failed_is_said_before_it_goes(kubernetes: Kubernetes) -> None:
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    head = {"metadata": {"name": "head", "labels": {"ray.io/cluster": f"{NAME}-c"}}}
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", "", reason="DeadlineExceeded"))
    kubernetes.put("pods", {**head, "status": {"containerStatuses": [waiting]}})

    def delete(found: dict[str, Any]) -> bool:
        kubernetes.objects.pop(("pods", "head"))
        return True

    kubernetes.on_delete = delete
    # By a process of its own: the test's own logging is pytest's.
    arguments = ["argo", "make-way", f"--name={NAME}", "--spec-sha256=abc"]
    code = f"from airflow_provider_raynode.cli import main; main({arguments})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pod head: ErrImagePull: not found" in said
    assert f"deleting RayJob {NAME}: jobDeploymentStatus Failed, jobStatus not set, reason DeadlineExceeded" in said
    assert kubernetes.names("rayjobs") == []


def test_one_that_is_just_ending_is_not_adopted(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job(NAME))
    time = Time(lambda: kubernetes.put("rayjobs", ray_job(NAME, "Failed", "FAILED")), after=9)
    assert (way(kubernetes, time), time.now) == ([], 9)


def test_one_with_another_spec_is_ended(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, sha256="def"))
    assert way(kubernetes) == []


def test_an_earlier_attempt_that_runs_is_ended(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job("search-0123456789ab-a1"))
    assert way(kubernetes) == []
    kubernetes.put("rayjobs", ray_job("search-0123456789ab-a1", "Failed", "RUNNING"))
    assert way(kubernetes) == [], "KubeRay has failed it, its driver runs on"
    kubernetes.put("rayjobs", ray_job("search-0123456789ab-a1", "Failed", "FAILED"))
    assert way(kubernetes) == ["search-0123456789ab-a1"], "its logs stay for its ttl"


def test_one_that_is_being_deleted_is_awaited(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", ray_job(NAME))
    kubernetes.objects["rayjobs", NAME]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert way(kubernetes, Time(lambda: kubernetes.objects.clear())) == []


def test_one_that_does_not_go_keeps_the_try_from_beginning(
    kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.put("rayjobs", ray_job(NAME, "Failed", ""))
    kubernetes.on_delete = lambda found: False
    monkeypatch.setattr("airflow_provider_raynode.argo.end_ray_jobs._GONE_S", 0.1)
    assert main(["argo", "make-way", f"--name={NAME}", "--spec-sha256=abc"]) == 1
    assert "is still there" in capsys.readouterr().err


def test_names_of_ray_jobs() -> None:
    """Of every node, run, map index and attempt another, and such as KubeRay takes."""
    names = {}
    for dag_id in ("d", "Dag_Ä", "x" * 200):
        for run_id in ("wf.1", "wf.2"):
            for node_id in ("search", "1", "group.Search_2", "-", "n" * 300):
                for index in (-1, 0, 11):
                    for attempt in (1, 2, 34):
                        key = (dag_id, run_id, node_id, index, attempt)
                        names[ray_job_name(submission_id(*key, "/catalog"))] = key
    assert len(names) == 3 * 2 * 5 * 3 * 3
    for name in names:
        assert len(name) <= 47
        assert name[0].isalpha() and name.isascii() and name == name.lower() and "--" not in name
    first = ray_job_name(submission_id("d", "wf.1", "s", 3, 1))
    third = ray_job_name(submission_id("d", "wf.1", "s", 3, 3))
    assert first.startswith("d-s-3-")
    assert earlier_ray_job_names(third) == (first.removesuffix("1") + "2", first)
    assert earlier_ray_job_names(first) == ()
