"""The workflow that a job belongs to: a driver that sees it stopped, over or gone ends its own work.

A workflow that is ended by `argo stop` deletes its RayJobs itself. This is for the rest: `argo terminate`, which runs
no exit handler, and a controller that is dead.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from typing import Any, Self

from airflow_provider_raynode.kubernetes_api import KubernetesApi, KubernetesApiError, Place
from airflow_provider_raynode.spec import STOPPED, NodeFailure

log = logging.getLogger("airflow_provider_raynode.driver")

# Environment variable of the driver's pod: namespace/name/uid of its workflow.
VARIABLE = "RAYNODE_WORKFLOW"
_INTERVAL_S = 10.0
# Part of the interval that is added by chance, so that a hundred drivers do not ask at once.
_JITTER = 0.5
_OVER = ("Succeeded", "Failed", "Error")


class WorkflowWatch:
    """Looks at the workflow every 10 to 15 s, in a thread, and ends the job when it is over.

    While the API does not answer the job goes on. Where it says that the service account may not look, that is told
    once, and only the job's own time limits are left.

    :param workflow: namespace/name/uid.
    :param end: ends the process with a failure as its result.
    """

    def __init__(
        self,
        api: KubernetesApi,
        workflow: str,
        *,
        end: Callable[[NodeFailure], None],
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._api = api
        self._namespace, self._name, self._uid = workflow.split("/")
        self._end = end
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._silent = False

    @classmethod
    def of_pod(cls, *, end: Callable[[NodeFailure], None]) -> Self | None:
        """Return the watch of the workflow that the environment names, None where there is none to watch."""
        workflow = os.environ.get(VARIABLE, "")
        if workflow.count("/") != 2:
            return None
        try:
            return cls(KubernetesApi.of_pod(), workflow, end=end)
        except KubernetesApiError as error:
            log.warning("%s: %s", _not_watched(workflow), error)
            return None

    def start(self) -> None:
        """Begin to watch, with a first look at once: the job may have been started for a workflow that is over."""
        threading.Thread(target=self._run, name="raynode-workflow", daemon=True).start()

    def stop(self) -> None:
        """The job has come to its end by itself."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                reason = self._over()
            except KubernetesApiError as error:
                if not error.passing:
                    log.warning("%s: %s", _not_watched(f"{self._namespace}/{self._name}"), error)
                    return
                if not self._silent:
                    log.warning("The work goes on while its workflow cannot be looked at: %s", error)
                self._silent, reason = True, ""
            if reason and not self._stop.is_set():
                message = f"the job ended itself before its work ended: {reason}"
                self._end(NodeFailure(type=STOPPED, message=message))
                return
            self._stop.wait(self._interval_s * (1 + _JITTER * random.random()))

    def _over(self) -> str:
        """Return why there is no workflow to work for, empty where there is one."""
        workflow = f"the workflow {self._namespace}/{self._name}"
        place = Place("argoproj.io", "v1alpha1", "workflows", self._namespace, self._name)
        try:
            found = self._api.get(place)
        except KubernetesApiError as error:
            # Without the name of an object it is the kind that is not known: no word on the workflow.
            if error.status == 404 and error.found:
                return f"{workflow} is gone"
            raise
        self._silent = False
        metadata, spec, status = (_mapping(found, key) for key in ("metadata", "spec", "status"))
        if self._uid and metadata.get("uid") not in (None, self._uid):
            return f"{workflow} is gone, there is another of its name"
        if metadata.get("deletionTimestamp"):
            return f"{workflow} is being deleted"
        if spec.get("shutdown"):
            return f"{workflow} was stopped (shutdown: {spec['shutdown']})"
        if status.get("phase") in _OVER:
            return f"{workflow} is over ({status['phase']})"
        return ""


def _mapping(found: dict[str, Any], key: str) -> dict[str, Any]:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _not_watched(workflow: str) -> str:
    return f"Whether the workflow {workflow} goes on is not looked at: only time limits end work that it leaves"
