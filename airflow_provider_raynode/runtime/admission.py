"""Whether a driver that starts has something to do: what its attempt and its search have come to before it.

A driver is started a second time by whatever ends and begins jobs again: KubeRay with a `backoffLimit` or after a
suspension, a retry of Argo's, a head that has forgotten its jobs. A sealed success stands; a failure is gone on from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.runtime.lease import Lease
from airflow_provider_raynode.spec import (
    DEADLINE,
    NOT_ATTACHED,
    RUN_TIMEOUT,
    STARTUP_TIMEOUT,
    STOPPED,
    NodeResult,
    NodeSpec,
    unseal,
)

log = logging.getLogger("airflow_provider_raynode.driver")

# Failures that say nothing of the search: it was not let come to its end.
_ENDED_FROM_OUTSIDE = (STOPPED, RUN_TIMEOUT, STARTUP_TIMEOUT, DEADLINE, NOT_ATTACHED)


@dataclass(frozen=True)
class _Found:
    """The `result.json` of an attempt: its bytes, and what they say where they are whole and the attempt's own."""

    data: bytes | None = None
    result: NodeResult | None = None
    # Why it is not trusted.
    problem: str | None = None


class Admission:
    """What stands of an attempt before its driver begins.

    :param attempt: the catalog at the attempt's folder.
    """

    def __init__(self, spec: NodeSpec, sha256: str, attempt: Catalog) -> None:
        self._spec = spec
        self._sha256 = sha256
        self._attempt = attempt
        self._uri = f"{spec.attempt_prefix}/result.json"
        self._first = self._look()
        self._last = self._first
        if self._first.problem is not None:
            log.warning(
                "raynode: %s: it is not this job's result, and the %s goes on", self._first.problem, spec.config.work
            )

    def result(self) -> NodeResult | None:
        """Return the result that this driver ends with, None where it has to work.

        That is a success, whenever it was sealed, and a failure of the search that another driver sealed while this
        one waited. A failure that was there before is a reason to go on.
        """
        result = self._last.result
        if result is None:
            return None
        if result.state == "SUCCEEDED":
            return result
        ended_from_outside = result.failure is not None and result.failure.type in _ENDED_FROM_OUTSIDE
        return None if self._last.data == self._first.data or ended_from_outside else result

    def wait(self, lease: Lease) -> bool:
        """Take the lease, or wait until there is a result to end with; return whether the lease is held."""
        held = lease.acquire(over=self._is_over)
        self._last = self._look()
        return held

    def _is_over(self) -> bool:
        with suppress(CatalogError):
            self._last = self._look()
        return self.result() is not None

    def finished_before(self) -> NodeResult | None:
        """Return the success of an earlier attempt of the same search: its driver was at work until now."""
        for number in range(self._spec.search_of or self._spec.attempt, self._spec.attempt):
            uri = f"{self._spec.node_prefix}/attempt_{number}/result.json"
            with suppress(CatalogError, SpecError):
                result = unseal(self._attempt.read_bytes(uri), source=uri)
                if result.state == "SUCCEEDED":
                    return result
        return None

    def adopted(self, earlier: NodeResult) -> NodeResult:
        """Return the success of an earlier attempt as this one's."""
        work = self._spec.config.work
        text = f"the result is that of attempt {earlier.attempt}, whose driver was still at work on the same {work}"
        return earlier.model_copy(
            update={
                "submission_id": self._spec.submission_id,
                "attempt": self._spec.attempt,
                "spec_sha256": self._sha256,
                "warnings": (*earlier.warnings, text),
                "restored": earlier.completion.finished if earlier.completion else earlier.restored,
            }
        )

    def set_aside(self, drivers: Catalog, number: int, write: Callable[[str, bytes], None]) -> None:
        """Move a result that does not stand out of the way: it must not pass for the result of this driver.

        :param drivers: the catalog at the search's folder of drivers.
        :param number: this driver's.
        :param write: writes an object.
        """
        if self._last.data is None:
            return
        write(f"{drivers.prefix_uri}/{number:04}-found-result.json", self._last.data)
        self._attempt.delete(self._uri)

    def _look(self) -> _Found:
        # Mostly there is none.
        if not self._attempt.exists(self._uri):
            return _Found()
        try:
            data = self._attempt.read_bytes(self._uri)
        except CatalogError as error:
            return _Found(problem=str(error))
        try:
            result = unseal(data, source=self._uri)
        except SpecError as error:
            return _Found(data, problem=str(error))
        if (result.submission_id, result.spec_sha256) != (self._spec.submission_id, self._sha256):
            return _Found(
                data,
                problem=f"{self._uri} is the result of job {result.submission_id} (spec {result.spec_sha256:.12}…), "
                f"this is job {self._spec.submission_id} (spec {self._sha256:.12}…)",
            )
        return _Found(data, result)
