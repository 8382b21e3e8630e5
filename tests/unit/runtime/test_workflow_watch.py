"""A driver looks at its workflow: what ends it, what does not, and what it says when it may not look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import Kubernetes

from airflow_provider_raynode.runtime.workflow_watch import VARIABLE, WorkflowWatch
from airflow_provider_raynode.spec import NodeFailure

RUNNING = {"metadata": {"name": "wf", "uid": "1"}, "spec": {}, "status": {"phase": "Running"}}


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path) as kubernetes:
        for name, value in {**kubernetes.env, VARIABLE: "argo/wf/1"}.items():
            monkeypatch.setenv(name, value)
        kubernetes.put("workflows", RUNNING)
        yield kubernetes


@pytest.fixture
def watch(kubernetes: Kubernetes) -> Iterator[Callable[[], list[NodeFailure]]]:
    """Starts a watch that looks often; returns how it ended the job."""
    ended: list[NodeFailure] = []
    found: list[WorkflowWatch] = []

    def start() -> list[NodeFailure]:
        watch = WorkflowWatch.of_pod(end=ended.append)
        assert watch is not None
        watch._interval_s = 0.05
        found.append(watch)
        watch.start()
        return ended

    yield start
    for each in found:
        each.stop()


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def looks(kubernetes: Kubernetes) -> int:
    return kubernetes.requests.count(("get", "workflows", "wf"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spec": {"shutdown": "Terminate"}}, "was stopped (shutdown: Terminate)"),
        ({"spec": {"shutdown": "Stop"}}, "was stopped (shutdown: Stop)"),
        ({"status": {"phase": "Failed"}}, "is over (Failed)"),
        ({"status": {"phase": "Error"}}, "is over (Error)"),
        ({"status": {"phase": "Succeeded"}}, "is over (Succeeded)"),
        ({"metadata": {"name": "wf", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted"),
        ({"metadata": {"name": "wf", "uid": "2"}}, "is gone, there is another of its name"),
        (None, "is gone"),
    ],
)
def test_the_end_of_the_workflow_ends_the_search(
    kubernetes: Kubernetes, watch: Any, change: dict[str, Any] | None, reason: str
) -> None:
    ended = watch()
    wait(lambda: looks(kubernetes) > 1)
    assert not ended
    if change is None:
        kubernetes.objects.clear()
    else:
        kubernetes.put("workflows", {**RUNNING, **change})
    wait(lambda: ended)
    assert ended[0].type == "Stopped"
    assert f"the workflow argo/wf {reason}" in ended[0].message


def test_an_api_that_is_out_of_order_ends_nothing(
    kubernetes: Kubernetes, watch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.faults = [500, 503, 429, 401, 500]
    ended = watch()
    wait(lambda: looks(kubernetes) > 7)
    kubernetes.rotate()
    wait(lambda: looks(kubernetes) > 9)
    assert not ended
    assert caplog.text.count("goes on while its workflow cannot be looked at") <= 2, "said once for each outage"


def test_a_kind_that_is_not_known_is_no_end(kubernetes: Kubernetes, watch: Any) -> None:
    """As while an API server starts: 404 without the name of an object."""
    kubernetes.faults = [404]
    ended = watch()
    wait(lambda: looks(kubernetes) == 1)
    time.sleep(0.3)
    assert not ended


def test_without_the_right_it_looks_once(kubernetes: Kubernetes, watch: Any, caplog: pytest.LogCaptureFixture) -> None:
    kubernetes.rights = set()
    ended = watch()
    wait(lambda: "verbs: [get]" in caplog.text)
    time.sleep(0.5)
    assert looks(kubernetes) == 1
    assert not ended
    assert "only time limits end work" in caplog.text
    assert "{apiGroups: ['argoproj.io'], resources: [workflows], verbs: [get]}" in caplog.text


def test_a_job_of_no_workflow_and_one_outside_of_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "{{workflow.namespace}}"):
        monkeypatch.setenv(VARIABLE, value)
        assert WorkflowWatch.of_pod(end=lambda failure: None) is None
    monkeypatch.setenv(VARIABLE, "argo/wf/1")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert WorkflowWatch.of_pod(end=lambda failure: None) is None
