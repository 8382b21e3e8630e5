"""The limits of a job, held by the job itself: they hold as well while nobody watches it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.spec import (
    ATTACHED_FILE,
    DEADLINE,
    NOT_ATTACHED,
    RUN_TIMEOUT,
    STARTUP_TIMEOUT,
    NodeFailure,
    NodeSpec,
)

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.work import Work

_POLL_S = 0.5
_AFTER_DEADLINE = {
    "search": "a retry goes on from the trials that have finished",
    "training": "a retry goes on from its last whole checkpoint",
    "map": "a retry goes on from the items that have finished",
    "function": "a retry starts the function anew, with as little time: raise the deadline",
}
# How long before its deadline a job ends itself: a part of it, within bounds in seconds.
_MARGIN, _LEAST_MARGIN_S, _MOST_MARGIN_S = 0.05, 5.0, 60.0


class Watch:
    """Ends the job when its time is over: to its first unit (a trial, say), to its end, or until a task has attached.

    :param attempt: the catalog at the attempt's folder.
    :param work: says when its first unit runs, and what that waits for.
    :param end: ends the process with a failure as its result.
    :param attaches: whether an execution task is to attach; the embedded driver is the child of its task.
    :param deadline_s: seconds from the job's start after which its RayJob ends it, whether it hears of that or not.
    """

    def __init__(
        self,
        spec: NodeSpec,
        attempt: Catalog,
        work: Work,
        *,
        end: Callable[[NodeFailure], None],
        attaches: bool,
        deadline_s: float | None = None,
    ) -> None:
        self._spec = spec
        self._attempt = attempt
        self._end = end
        self._embedded = not attaches
        self._attached = not attaches or spec.limits.attach_timeout_s is None
        self._work = work
        # What the driver waits for before it begins, in words.
        self.waits_for = ""
        self._begin = time.monotonic()
        self._deadline_s = deadline_s
        self._left_s = None if deadline_s is None else time_left(deadline_s, cluster_age())
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._run, name="raynode-limits", daemon=True).start()

    def stop(self) -> None:
        """The job has come to its end by itself."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_S):
            failure = self._over()
            if failure is not None and not self._stop.is_set():
                self._end(failure)
                return

    def _over(self) -> NodeFailure | None:
        limits = self._spec.limits
        elapsed = time.monotonic() - self._begin
        if self._left_s is not None and elapsed > self._left_s:
            message = (
                f"the job's deadline ({self._deadline_s:g} s from the start of its cluster) was near, and it was "
                f"stopped: {_AFTER_DEADLINE[self._spec.config.work]}"
            )
            return NodeFailure(type=DEADLINE, message=message)
        if limits.run_timeout_s is not None and elapsed > limits.run_timeout_s:
            message = f"the job ran longer than run_timeout_s ({limits.run_timeout_s:g} s) and was stopped"
            return NodeFailure(type=RUN_TIMEOUT, message=message)
        started = self._work.started.is_set()
        if limits.startup_timeout_s is not None and not started and elapsed > limits.startup_timeout_s:
            return NodeFailure(type=STARTUP_TIMEOUT, message=self._waiting(limits.startup_timeout_s))
        if not self._attached and limits.attach_timeout_s is not None:
            self._attached = self._is_attached()
            if not self._attached and elapsed > limits.attach_timeout_s:
                return NodeFailure(
                    type=NOT_ATTACHED,
                    message=f"no execution task attached to the job within {limits.attach_timeout_s:g} s: it stopped "
                    "itself, and goes on from here when one does",
                )
        return None

    def _is_attached(self) -> bool:
        try:
            return self._attempt.exists(f"{self._spec.attempt_prefix}/{ATTACHED_FILE}")
        except CatalogError:
            return False

    def _waiting(self, seconds: float) -> str:
        """Return what the first unit waits for: what it asks for, what the cluster has, what of it is free."""
        import ray

        unit = self._work.unit
        text = f"no {unit} started within startup_timeout_s ({seconds:g} s)"
        if self.waits_for:
            return f"{text}: the driver waits for {self.waits_for}"
        if not ray.is_initialized():
            if not self._embedded:
                return f"{text}: the driver did not connect to the cluster"
            from airflow_provider_raynode.runtime.embedded import machine

            return f"{text}: the embedded Ray had not started. {machine()}"
        from airflow_provider_raynode.runtime.placement import nodes_of_cluster
        from airflow_provider_raynode.runtime.shortage import said_in, shortage

        asked, whole = self._work.asked(), unit_of(self._spec.config)
        name, where = unit, "what it reserves"
        if asked == whole.total:  # a command reserves something else
            name, where = whole.name, said_in(whole)
            if short := shortage(whole, nodes_of_cluster()):
                return f"{text}: {short}"
        total, free = ray.cluster_resources(), ray.available_resources()
        return (
            f"{text}: a {name} asks for {_named(asked, asked)}, the cluster has {_named(asked, total)}, free of "
            f"it: {_named(asked, free)}. Lower {where}, wait for other jobs, or use a larger cluster"
        )


def time_left(deadline_s: float, age_s: float) -> float:
    """Return the seconds until a job ends itself, a little before the deadline that others hold it to.

    :param age_s: seconds since the job's cluster has started. The job itself is older: by the time that its pods took.
    """
    margin = min(max(deadline_s * _MARGIN, _LEAST_MARGIN_S), _MOST_MARGIN_S)
    return max(deadline_s - age_s - margin, 0.0)


def cluster_age() -> float:
    """Return the seconds since the raylet that started this driver has been there; 0 where none did."""
    import psutil

    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            if process.name() == "raylet":
                return max(time.time() - process.create_time(), 0.0)
    return 0.0


def _named(names: Any, amounts: dict[str, float]) -> str:
    return ", ".join(f"{name} {amounts.get(name, 0):g}" for name in names)
