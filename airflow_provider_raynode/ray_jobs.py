"""The RayJobs of a workflow, through Kubernetes' API: what one says of itself, its end, why its pods wait. Pure.

A RayJob is looked at by whoever waits for it or ends it; KubeRay alone makes clusters and drivers of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from airflow_provider_raynode.kubernetes_api import KubernetesApi, KubernetesApiError, Place, patiently

log = logging.getLogger(__name__)

# The label that says whose a RayJob is; a workflow's name comes again, its uid does not.
UID_LABEL = "raynode/workflow-uid"
_GROUP, _VERSION, _RESOURCE = "ray.io", "v1", "rayjobs"
_POLL_S = 1.0
_PATIENCE_S = 60.0
# Causes of pods that are told, and characters of each.
_MOST_CAUSES, _LONGEST_CAUSE = 3, 400


@dataclass(frozen=True)
class RayJob:
    """What a RayJob's status says.

    :ivar deployment: `status.jobDeploymentStatus`, empty before KubeRay has seen it.
    :ivar job: `status.jobStatus`, empty before Ray has the job.
    :ivar cluster: name of its RayCluster.
    :ivar created: RFC 3339.
    """

    name: str
    uid: str
    created: str
    deleting: bool
    entrypoint: str
    deployment: str
    job: str
    reason: str
    message: str
    cluster: str

    @classmethod
    def read(cls, found: dict[str, Any]) -> Self:
        """Return what Kubernetes' object says; every part of its status may be missing."""
        metadata, status = found.get("metadata") or {}, found.get("status") or {}
        return cls(
            name=str(metadata.get("name", "")),
            uid=str(metadata.get("uid", "")),
            created=str(metadata.get("creationTimestamp") or ""),
            deleting=bool(metadata.get("deletionTimestamp")),
            entrypoint=str((found.get("spec") or {}).get("entrypoint", "")),
            deployment=str(status.get("jobDeploymentStatus") or ""),
            job=str(status.get("jobStatus") or ""),
            reason=str(status.get("reason") or ""),
            message=str(status.get("message") or ""),
            cluster=str(status.get("rayClusterName") or ""),
        )

    @property
    def succeeded(self) -> bool:
        """Whether its job has succeeded."""
        return self.job == "SUCCEEDED" and self.deployment in ("Complete", "Running", "")

    @property
    def finished(self) -> bool:
        """Whether KubeRay does no more for it, or Ray has ended its job and KubeRay is about to say so."""
        if self.deployment in ("", "Running"):
            return self.job in ("FAILED", "STOPPED")
        return self.deployment in ("Complete", "Failed", "ValidationFailed")

    @property
    def left_behind(self) -> bool:
        """Whether KubeRay has failed it before Ray ended its job: its driver may run on, its submitter wait for it."""
        return self.deployment == "Failed" and self.job not in ("SUCCEEDED", "FAILED", "STOPPED")

    def __str__(self) -> str:
        """Say how it stands, in KubeRay's words."""
        states = [f"jobDeploymentStatus {self.deployment or 'not set'}", f"jobStatus {self.job or 'not set'}"]
        if self.reason:
            states.append(f"reason {self.reason}")
        return f"RayJob {self.name}: {', '.join(states)}{f': {self.message}' if self.message else ''}"


class RayJobs:
    """The RayJobs in one namespace.

    :param sleep: waits between two looks; the tests' own clock with `clock`.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str = "",
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace or api.namespace
        self._sleep, self._clock = sleep, clock

    def find(self, name: str) -> RayJob | None:
        """Return a RayJob, None where there is none of that name.

        :raises KubernetesApiError: the API refuses, or did not answer for a minute.
        """
        try:
            return RayJob.read(self._patiently(lambda: self._api.get(self._place(name))))
        except KubernetesApiError as error:
            # Where KubeRay is not installed the answer names no object.
            if error.status == 404 and error.found:
                return None
            raise

    def of_workflow(self, uid: str) -> list[RayJob]:
        """Return the RayJobs of a workflow.

        :raises KubernetesApiError: see `find`.
        """
        place = Place(_GROUP, _VERSION, _RESOURCE, self._namespace, labels={UID_LABEL: uid})
        items = self._patiently(lambda: self._api.get(place)).get("items") or []
        return [RayJob.read(each) for each in items]

    def delete(self, job: RayJob) -> None:
        """Ask for the deletion of a RayJob: with it go its cluster, its submitter and its driver.

        :raises KubernetesApiError: see `find`.
        """
        log.info("raynode: deleting %s", job)
        self._patiently(lambda: self._api.delete(self._place(job.name), uid=job.uid))

    def end_all(self, uid: str, *, timeout_s: float) -> bool:
        """Delete the RayJobs of a workflow that have not finished, and wait until they are gone.

        So are those that KubeRay has failed while something of them runs: after a deadline and the ttl the submitter's
        Job starts a pod that waits for the cluster until its own deadline. Those that have finished are left to their
        `ttlSecondsAfterFinished`: their logs are there till then.

        :return: whether all are gone; after `timeout_s` the rest is Kubernetes' business.
        :raises KubernetesApiError: see `find`.
        """
        deadline = self._clock() + timeout_s
        while True:
            found = self.of_workflow(uid)
            left = [job for job in found if job.deleting or not job.finished or job.left_behind]
            for job in left:
                if not job.deleting:
                    self.delete(job)
            if not left:
                return True
            if self._clock() >= deadline:
                log.warning("raynode: still being deleted after %g s: %s", timeout_s, ", ".join(j.name for j in left))
                return False
            self._sleep(_POLL_S)

    def end(self, job: RayJob, *, timeout_s: float) -> bool:
        """Delete a RayJob and wait until it is gone, with its cluster's pods; return whether it is gone itself.

        :raises KubernetesApiError: see `find`.
        """
        deadline = self._clock() + timeout_s
        if not job.deleting:
            self.delete(job)
        while (found := self.find(job.name)) is not None and found.uid == job.uid:
            if self._clock() >= deadline:
                return False
            self._sleep(_POLL_S)
        # The object goes first, its driver has 30 s: where the pods may be looked at, they are waited for.
        while self._has_pods(job) and self._clock() < deadline:
            self._sleep(_POLL_S)
        return True

    def _has_pods(self, job: RayJob) -> bool:
        try:
            return bool(job.cluster and self._pods({"ray.io/cluster": job.cluster}))
        except KubernetesApiError:
            return False

    def settled(self, name: str, *, settle_s: float) -> RayJob | None:
        """Return a RayJob as it stands when it has finished or vanished, or else after `settle_s`."""
        deadline = self._clock() + settle_s
        while True:
            job = self.find(name)
            if job is None or job.finished or job.deleting or self._clock() >= deadline:
                return job
            self._sleep(_POLL_S)

    def causes(self, job: RayJob) -> list[str]:
        """Return why pods of a RayJob do not run, in Kubernetes' words: an image, a node, a Secret that is missing."""
        found: list[str] = []
        selections = [{"ray.io/cluster": job.cluster}] if job.cluster else []
        for labels in [*selections, {"job-name": job.name}]:
            try:
                pods = self._pods(labels)
            except KubernetesApiError as error:
                return [f"its pods cannot be looked at: {error}"]
            found += [cause for pod in pods for cause in _causes(pod) if cause not in found]
        return found[:_MOST_CAUSES]

    def _pods(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        return list(self._api.get(Place("", "v1", "pods", self._namespace, labels=labels)).get("items") or [])

    def _place(self, name: str) -> Place:
        return Place(_GROUP, _VERSION, _RESOURCE, self._namespace, name)

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return patiently(call, timeout_s=_PATIENCE_S, sleep=self._sleep, clock=self._clock)


def _causes(pod: dict[str, Any]) -> Iterator[str]:
    name, status = (pod.get("metadata") or {}).get("name", "?"), pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield _cause(name, condition.get("reason"), condition.get("message"))
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            state = container.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
                yield _cause(name, waiting["reason"], waiting.get("message"))
            if ended.get("exitCode"):
                yield _cause(name, f"{ended.get('reason')}, exit code {ended['exitCode']}", ended.get("message"))


def _cause(pod: str, reason: Any, message: Any) -> str:
    text = " ".join(str(message or "").split())
    return f"pod {pod}: {reason}{f': {text}' if text else ''}"[:_LONGEST_CAUSE]
