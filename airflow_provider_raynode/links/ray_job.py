"""The link from a task to its job in the Ray dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


class RayJobLink(BaseOperatorLink):
    """Ray dashboard: the page of the job that the task submitted or waits for; none for the embedded Ray.

    The job is the operator's rendered `job`, or else the JobRef that the task returned.
    """

    name = "Ray job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the job's page, empty where there is none."""
        job = getattr(operator, "job", None)
        if not _is_job(job):
            from airflow.sdk.execution_time.xcom import XCom

            job = XCom.get_value(ti_key=ti_key, key="return_value")
        return job_url(job) if _is_job(job) else ""

    def push(self, context: Context, job: Any) -> None:
        """Store the link now, so that it is there while the task runs; Airflow itself stores it at the end."""
        context["ti"].xcom_push(key=self.xcom_key, value=job_url(job))


def job_url(job: Any) -> str:
    """Return the page of a job, a JobRef or its JSON, in the dashboard of its cluster; empty for the embedded Ray."""
    fields = job if isinstance(job, Mapping) else job.model_dump()
    if fields["launcher"] != "jobs_api":
        return ""
    return f"{fields['address']}/#/jobs/{fields['submission_id']}"


def _is_job(value: Any) -> bool:
    fields = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    return {"launcher", "address", "submission_id"} <= fields.keys()
