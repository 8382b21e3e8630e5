"""How often a pod is tried again, and when."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from airflow_provider_raynode.argo.settings._words import Duration
from airflow_provider_raynode.config._section import Section
from airflow_provider_raynode.config._values import NonNegativeInteger, PositiveInteger, Text

_BACKOFF = {"duration": "duration", "factor": "factor", "cap": "cap", "max_duration": "maxDuration"}


class Backoff(Section):
    """How long Argo waits between tries."""

    duration: Duration | None = Field(default=None, description="wait before the first retry: seconds, or `5m`")
    factor: PositiveInteger | None = Field(
        default=None, description="what each wait is longer by than the last; Argo takes whole factors only"
    )
    cap: Duration | None = Field(default=None, description="longest wait")
    max_duration: Duration | None = Field(default=None, description="time after which no further try starts")


class RetryStrategy(Section):
    """What Argo does where a pod fails; each key replaces what the export takes from the DAG."""

    limit: NonNegativeInteger | None = Field(default=None, description="retries after the first try; 0: none")
    policy: Literal["Always", "OnFailure", "OnError", "OnTransientError"] | None = Field(
        default=None, description="which ends are retried; the export says `Always`"
    )
    expression: Text | None = Field(
        default=None, description="must be true for another try; replaces the export's rule on exit codes"
    )
    backoff: Backoff | None = Field(default=None, description="how long to wait between tries")

    def layer(self) -> dict[str, Any]:
        """Return what is said, nulls included, under Argo's names."""
        said: dict[str, Any] = {}
        if "limit" in self.model_fields_set:
            said["limit"] = None if self.limit is None else str(self.limit)
        if "policy" in self.model_fields_set:
            said["retryPolicy"] = self.policy
        if "expression" in self.model_fields_set:
            said["expression"] = self.expression
        if "backoff" in self.model_fields_set:
            said["backoff"] = None if self.backoff is None else _backoff(self.backoff)
        return said


def _backoff(backoff: Backoff) -> dict[str, Any]:
    said = {argo: getattr(backoff, name) for name, argo in _BACKOFF.items() if name in backoff.model_fields_set}
    if said.get("factor") is not None:
        said["factor"] = str(said["factor"])
    return said
