"""The job of `@task.ray` and of RaySubmitJobOperator when its task is killed, stopped, cleared, or the job lost."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from airflow_provider_raynode import RaySubmitJobOperator
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import NodeFailedError
from airflow_provider_raynode.hooks.ray import RayHook

pytestmark = [pytest.mark.ray, pytest.mark.airflow]


class Task:
    """A task of a DAG run, and what its tries share: nothing but the catalog and the cluster."""

    def __init__(self, name: str, catalog: Path, **options: Any) -> None:
        self.name, self.options = name, options
        self.config = {"catalog": {"uri": str(catalog)}}
        self.tries = 0

    def operator(self, **changed: Any) -> Any:
        options = {"ray_config": self.config, "poll_interval_s": 0.3, **self.options, **changed}
        with DAG(self.name, schedule=None):
            if "entrypoint" in options:
                return RaySubmitJobOperator(task_id="job", **options)
            function, args = options.pop("function"), options.pop("args")
            return task.ray(task_id="job", **options)(function)(*args).operator

    def context(self, operator: Any) -> Any:
        self.tries += 1
        instance = SimpleNamespace(
            dag_id=self.name, run_id="run", map_index=-1, try_number=self.tries, xcom_push=lambda **_: None
        )
        run = SimpleNamespace(logical_date=datetime(2026, 1, 1, tzinfo=UTC))
        return {"ti": instance, "dag": operator.dag, "dag_run": run, "params": {}}

    def begin(self, **changed: Any) -> tuple[Any, Any]:
        """Start a try; what it defers with, and the operator."""
        operator = self.operator(**changed)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(self.context(operator))
        return deferred.value.trigger, operator

    def run(self, **changed: Any) -> Any:
        """Run a try to its end, through its deferral."""
        operator = self.operator(**changed)
        context = self.context(operator)
        try:
            return operator.execute(context)
        except TaskDeferred as deferred:
            trigger = deferred.trigger
        return self.complete(trigger)

    def complete(self, trigger: Any) -> Any:
        """Wait in the trigger, and go on in a new process' operator."""

        async def wait() -> Any:
            return (await anext(trigger.run())).payload

        event = asyncio.run(wait())
        operator = self.operator()
        return operator.execute_complete(self.context(operator), event)


def job_states(head: Any, dag_id: str) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=10).json()
    return {
        each["submission_id"].rpartition("-")[2]: each["status"]
        for each in answer
        if (each["metadata"] or {}).get("dag_id") == dag_id
    }


def await_ended(head: Any, dag_id: str, attempt: str) -> None:
    deadline = time.monotonic() + 60
    while job_states(head, dag_id)[attempt] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_worker_that_is_killed_attaches_when_it_comes_again(
    ray_head: Any, ray_connection: Any, tmp_path: Path
) -> None:
    one = Task("attaches", tmp_path, entrypoint="sleep 6; echo done")
    first, _ = one.begin()
    second, _ = one.begin()
    assert first.job["submission_id"] == second.job["submission_id"]
    returned = one.complete(second)
    assert (returned["attempt"], returned["status"]) == (1, "SUCCEEDED")
    assert job_states(ray_head, "attaches") == {"a1": "SUCCEEDED"}


def test_a_success_that_nobody_returned_is_returned_once(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    one = Task("untaken", tmp_path, entrypoint="true")
    one.options["deferrable"] = True
    first = one.operator()
    context = one.context(first)
    run = first._open(context)
    run.start()  # and the worker is gone
    await_ended(ray_head, "untaken", "a1")
    assert one.run()["attempt"] == 1
    assert one.run()["attempt"] == 2, "the task was cleared after its success: it runs anew"
    assert job_states(ray_head, "untaken") == {"a1": "SUCCEEDED", "a2": "SUCCEEDED"}


def test_what_stops_a_job_and_what_comes_then(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    one = Task("stops", tmp_path, entrypoint="sleep 300")
    trigger, _ = one.begin()
    asyncio.run(trigger.on_kill())  # cleared or marked while deferred
    assert job_states(ray_head, "stops") == {"a1": "STOPPED"}
    _, operator = one.begin()
    with pytest.raises(TaskDeferralTimeout):  # execution_timeout while deferred
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, one.context(operator))
    assert job_states(ray_head, "stops")["a2"] == "STOPPED"
    trigger, _ = one.begin()
    RayHook().stop_job(trigger.job["submission_id"])  # by somebody else
    with pytest.raises(NodeFailedError, match="stopped on the cluster, and not by Airflow"):
        one.complete(trigger)
    changed, _ = one.begin()
    one.options["entrypoint"] = "echo changed"
    assert one.run()["attempt"] == 5
    assert job_states(ray_head, "stops")["a4"] == "STOPPED", "it ran what the task does not ask for any more"
    assert changed.job["attempt"] == 4


def test_a_job_that_the_cluster_forgot_is_said_to_be_lost(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    one = Task("lost", tmp_path, entrypoint="true")
    assert one.run()["attempt"] == 1
    operator = one.operator(entrypoint="sleep 300")
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(one.context(operator))
    job = deferred.value.trigger.job
    RayHook().stop_job(job["submission_id"])
    requests.delete(
        f"{ray_head.address}/api/jobs/{job['submission_id']}",
        headers={"Authorization": f"Bearer {ray_head.token}"},
        timeout=10,
    ).raise_for_status()
    with pytest.raises(NodeFailedError, match="The job is lost"):
        one.complete(deferred.value.trigger)
    one.options["entrypoint"] = "echo again"
    assert one.run()["attempt"] == 3


def test_a_function_is_attached_to_and_its_value_collected(ray_head: Any, ray_connection: Any, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()

    def slow(x: int, folder: str) -> Any:
        import os
        import time

        open(f"{folder}/{os.getpid()}", "w").close()  # noqa: PTH123
        time.sleep(5)
        return {"x": x, "b": b"not JSON"}

    options = {"function": slow, "args": (3, str(calls)), "num_cpus": 0.25}
    one = Task("function_attaches", tmp_path / "catalog", **options)
    first, _ = one.begin()
    second, _ = one.begin()
    assert first.job["submission_id"] == second.job["submission_id"]
    value = Catalog(str(tmp_path / "catalog")).load(one.complete(second))
    assert value == {"x": 3, "b": b"not JSON"}
    assert len(list(calls.iterdir())) == 1, "it was called once"
    trigger, _ = one.begin()
    asyncio.run(trigger.on_kill())
    assert job_states(ray_head, "function_attaches")["a2"] in ("STOPPED", "FAILED")
    assert one.run()["kind"] == "pickled"
    assert set(job_states(ray_head, "function_attaches")) == {"a1", "a2", "a3"}
