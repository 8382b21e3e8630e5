"""`raynode argo end-ray-jobs` and `make-way`: RayJobs of a run that is over, and of a try that another follows."""

from __future__ import annotations

import argparse
import logging
import sys

from airflow_provider_raynode.argo.outcome import EXIT_FAILED, EXIT_SUCCESS
from airflow_provider_raynode.kubernetes_api import KubernetesApi, KubernetesApiError
from airflow_provider_raynode.ray_jobs import RayJob, RayJobs
from airflow_provider_raynode.spec import earlier_ray_job_names

log = logging.getLogger(__name__)

_GONE_S = 60.0
# How long a RayJob of an earlier try is looked at before it counts as one that goes on: its driver may just have seen
# that its workflow was terminated, which takes it up to 15 s, and KubeRay a few more to say so.
_SETTLE_S = 20.0


def end_ray_jobs_command(args: argparse.Namespace) -> int:
    """End the RayJobs of a workflow that is over and return the exit code."""
    _show_log()
    return end_ray_jobs(args.workflow_uid, args.status)


def end_ray_jobs(uid: str, status: str) -> int:
    """Delete what still runs of a workflow's RayJobs.

    Where it cannot be done, a run that has succeeded stays so: the message is in the log.
    """
    try:
        gone = RayJobs(KubernetesApi.of_pod()).end_all(uid, timeout_s=_GONE_S)
    except KubernetesApiError as error:
        print(f"raynode: the RayJobs of this run cannot be ended: {error}", file=sys.stderr)
        return EXIT_SUCCESS if status == "Succeeded" else EXIT_FAILED
    log.info("raynode: no RayJob of this run is running" if gone else "raynode: Kubernetes still deletes RayJobs")
    return EXIT_SUCCESS


def make_way_command(args: argparse.Namespace) -> int:
    """Clear the way for a RayJob that is about to be applied, and return the exit code."""
    _show_log()
    try:
        make_way(RayJobs(KubernetesApi.of_pod()), args.name, args.spec_sha256, settle_s=_SETTLE_S)
    except KubernetesApiError as error:
        print(f"raynode: the RayJob {args.name} cannot be looked up: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_SUCCESS


def make_way(jobs: RayJobs, name: str, spec_sha256: str, *, settle_s: float) -> None:
    """Leave a RayJob of this name only if it does the same work and has not failed: applying it then adopts it.

    What an earlier try left that has failed is deleted, and so are those of the node's earlier attempts that still run:
    there is one cluster at a time on a node's search.

    :param spec_sha256: of the spec that the RayJob runs.
    :raises KubernetesApiError: the API refuses, does not answer, or the RayJob does not go.
    """
    for earlier in earlier_ray_job_names(name):
        job = jobs.find(earlier)
        if job is not None and (not job.finished or job.left_behind):
            _end(jobs, job)
    job = jobs.find(name)
    if job is None:
        return
    if spec_sha256 in job.entrypoint and not job.succeeded:
        job = jobs.settled(name, settle_s=settle_s)
        if job is None:
            return
    if spec_sha256 in job.entrypoint and not job.deleting and (job.succeeded or not job.finished):
        log.info("raynode: adopting what an earlier try began: %s", job)
        return
    _end(jobs, job)


def _end(jobs: RayJobs, job: RayJob) -> None:
    if job.finished and not job.succeeded:
        # Nobody can ask for it afterwards.
        for cause in jobs.causes(job):
            log.info("raynode: %s", cause)
    if not jobs.end(job, timeout_s=_GONE_S):
        raise KubernetesApiError(f"{job.name} was to be deleted and is still there after {_GONE_S:g} s")


def _show_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
