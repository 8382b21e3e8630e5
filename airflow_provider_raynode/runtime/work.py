"""The contract between the driver and what it runs: a search, a training, a function, a map."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.lease import Lease
from airflow_provider_raynode.spec import NodeFailure, NodeSpec, SealedSecrets

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.output import Output


@dataclass(frozen=True)
class Job:
    """What the driver gives its work.

    :param attempt: the catalog at the attempt's folder; a write fails once the lease is lost.
    :param embedded: whether Ray is the driver's own and cannot grow.
    :param phase: measures the time of a phase of that name.
    """

    spec: NodeSpec
    attempt: Catalog
    embedded: bool
    secrets: SealedSecrets | None
    lease: Lease
    phase: Callable[[str], AbstractContextManager[None]]


class Work(ABC):
    """What a driver runs, in the order of its methods. The driver keeps signals, limits, the lease and the result.

    Other threads ask `started`, `asked` and `cut_short` at any moment, also before `run`.
    """

    # What runs first, in messages: the startup timeout waits for it.
    unit: ClassVar[str] = "trial"

    def __init__(self, job: Job) -> None:
        self.job = job
        # Set when the first unit runs.
        self.started = threading.Event()
        # What the cluster has; known once Ray is connected.
        self.resources: dict[str, float] = {}
        # How many units an earlier attempt had finished.
        self.restored = 0

    @property
    def spec(self) -> NodeSpec:
        """The node's spec."""
        return self.job.spec

    @abstractmethod
    def prepare(self) -> None:
        """Read the function and the inputs and check what can be checked before Ray starts; Ray is not imported yet.

        :raises RayNodeError: the function or an input cannot be read, or they do not fit each other.
        """

    @abstractmethod
    def run(self, output: Output) -> dict[str, Any]:
        """Run to the end, connected to Ray, and return the fields of `NodeResult` that the work knows.

        An error with an attribute `failure` (NodeFailure) fails the job with that, and with the fields of its attribute
        `found`; another one with its traceback.

        :param output: the log of the job's workers.
        """

    @abstractmethod
    def asked(self) -> dict[str, float]:
        """Return what the first unit reserves, in the words of `ray.cluster_resources()`."""

    def cut_short(self, failure: NodeFailure) -> dict[str, Any]:
        """Return the fields of `NodeResult` that say how far the work has come; the driver ends at this moment."""
        return {}

    def tidy(self) -> None:  # noqa: B027  most works have nothing to remove
        """Remove what only a later attempt would need: the work has succeeded, and its result is sealed."""


def work_of(job: Job) -> Work:
    """Return the work that the job's config asks for.

    :raises ConfigError: this version cannot run it.
    """
    from airflow_provider_raynode.exceptions import ConfigError

    if job.spec.entrypoint is not None:
        from airflow_provider_raynode.runtime.entrypoint_work import EntrypointWork

        return EntrypointWork(job)
    kind = job.spec.config.work
    if kind == "search":
        from airflow_provider_raynode.runtime.search_work import SearchWork

        return SearchWork(job)
    if kind == "training":
        from airflow_provider_raynode.runtime.training.work import TrainWork

        return TrainWork(job)
    if kind == "function":
        from airflow_provider_raynode.runtime.function_work import FunctionWork

        return FunctionWork(job)
    if kind == "map":
        from airflow_provider_raynode.runtime.map_work import MapWork

        return MapWork(job)
    raise ConfigError(f"the spec asks for a {kind}, which this version of the runtime cannot run")
