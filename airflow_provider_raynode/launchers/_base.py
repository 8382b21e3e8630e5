"""How a staged spec becomes a running driver: the contract that every launcher keeps."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from airflow_provider_raynode.spec import JobRef


class JobState(StrEnum):
    """The states of a job, in the words of Ray's Jobs API."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @classmethod
    def is_one(cls, value: object) -> bool:
        """Whether a value, of whatever type, is the name of a state."""
        return isinstance(value, str) and value in cls.__members__

    @property
    def ended(self) -> bool:
        """Whether the job will not change its state any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclass(frozen=True)
class JobStatus:
    """The state of a job with the job's own message, empty where it gave none.

    :ivar own_result: false where a `result.json` in the attempt's folder is not this job's, but an earlier one's.
    """

    state: JobState
    message: str = ""
    own_result: bool = True


@dataclass(frozen=True)
class LogChunk:
    """Whole lines of a job's log and the offset, in bytes of the log, that follows them."""

    text: str
    offset: int


class Launcher(abc.ABC):
    """Starts, watches and stops the driver of one job at a time.

    The execution operator calls these methods from one thread. Each may raise `ClusterError`, never the error of a
    library.
    """

    @abc.abstractmethod
    def ensure(self, job: JobRef) -> bool:
        """Start the job, or attach to it when its submission id is known already.

        :return: True when this call started it, False when it attached.
        """

    @abc.abstractmethod
    def status(self, job: JobRef) -> JobStatus:
        """Return the job's state now."""

    @abc.abstractmethod
    def read_log(self, job: JobRef, offset: int, *, final: bool = False) -> LogChunk:
        """Return the whole lines of the job's log after `offset` bytes; with `final`, an unended last line as well."""

    @abc.abstractmethod
    def stop(self, job: JobRef, *, timeout_s: float = 10.0) -> JobStatus:
        """Stop the job, wait until it has stopped, and return its last state; a job that has ended is left as it is."""

    def close(self) -> None:  # noqa: B027  most launchers hold nothing
        """Release what the launcher holds (connections, threads); a running job is not touched."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
