"""The link to a job's page in the Ray dashboard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_raynode.links.ray_job import RayJobLink, job_url

JOB = {"launcher": "jobs_api", "address": "https://ray/team", "submission_id": "raynode-x-a1"}


def test_the_page_of_a_job() -> None:
    assert job_url(JOB) == "https://ray/team/#/jobs/raynode-x-a1"
    assert job_url({**JOB, "launcher": "local", "address": "local"}) == ""


def test_it_is_made_of_the_operators_job_alone() -> None:
    """A deferred task resumes as a fresh instance: nothing but its rendered fields is there."""
    operator: Any = SimpleNamespace(job=JOB)
    assert RayJobLink().get_link(operator, ti_key=None) == job_url(JOB)  # type: ignore[arg-type]


def test_fan_outs_job_is_its_return_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    key: Any = object()
    found = {"return_value": JOB}
    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: found[key] if ti_key is not None else None)
    assert RayJobLink().get_link(SimpleNamespace(), ti_key=key) == job_url(JOB)  # type: ignore[arg-type]
    found["return_value"] = None  # type: ignore[assignment]
    assert RayJobLink().get_link(SimpleNamespace(), ti_key=key) == ""  # type: ignore[arg-type]


def test_it_can_be_stored_early() -> None:
    pushed: dict[str, str] = {}
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}
    RayJobLink().push(context, JOB)
    assert pushed == {"_link_RayJobLink": job_url(JOB)}
