"""How a staged spec becomes a running driver: through Ray's Jobs API, as a child process, or as a RayJob."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.launchers._base import JobState, JobStatus, Launcher, LogChunk

if TYPE_CHECKING:
    from airflow_provider_raynode.spec import Entrypoint, JobRef

__all__ = ["JobState", "JobStatus", "Launcher", "LogChunk", "launcher_for"]


def launcher_for(
    job: JobRef,
    *,
    runtime_env: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
    env_vars: Callable[[], Mapping[str, str]] | None = None,
    grace_s: float = 60.0,
    command: Entrypoint | None = None,
) -> Launcher:
    """Return the launcher that runs `job`.

    :param job: where the job runs, as fan-out decided it.
    :param runtime_env: Ray's runtime environment for a job that `ensure` has to submit.
    :param metadata: Ray's job metadata for the same.
    :param env_vars: gives environment variables of the driver and its workers for the same, when it is submitted.
    :param grace_s: how long in seconds a cluster may be silent.
    :param command: the command that is the job, in the place of the driver; the embedded Ray's driver starts it.
    """
    if job.launcher == "local":
        from airflow_provider_raynode.launchers.local import LocalLauncher

        return LocalLauncher(env_vars, lambda: _with_default(job, runtime_env))
    if job.launcher == "rayjob":
        from airflow_provider_raynode.launchers.ray_job import RayJobLauncher

        return RayJobLauncher()
    from airflow_provider_raynode.hooks.ray import RayHook
    from airflow_provider_raynode.launchers.jobs_api import JobsApiLauncher

    hook = RayHook(**({"ray_conn_id": job.ray_conn_id} if job.ray_conn_id else {}), address=job.address)
    return JobsApiLauncher(
        hook, runtime_env=runtime_env, metadata=metadata, env_vars=env_vars, grace_s=grace_s, command=command
    )


def _with_default(job: JobRef, runtime_env: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the runtime environment of an embedded job: that of its connection lies under its own."""
    from airflow_provider_raynode.hooks._runtime_env import merged
    from airflow_provider_raynode.hooks.ray import RayHook

    if job.ray_conn_id is None:
        return dict(runtime_env or {})
    return merged(RayHook(ray_conn_id=job.ray_conn_id, address=job.address).resolve().runtime_env, runtime_env)
