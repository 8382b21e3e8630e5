"""One rank of a training that is a trial of a search, as its function's reports meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_raynode.runtime.training.session import TrainingSession


@dataclass(kw_only=True)
class TrialRankSession(TrainingSession):
    """A rank of a trial: what rank 0 reports is the trial's report."""

    trial_id: str
    further_metrics: Sequence[str] = ()
    _returned: bool = False

    @property
    def whose(self) -> str:
        """What the metric belongs to."""
        return "the search"

    def place(self) -> dict[str, Any]:
        """Return which rank of which trial this is."""
        return {**super().place(), "trial_id": self.trial_id}

    def check_metric(self, metric: str, metrics: Mapping[str, Any], outputs: Any) -> None:
        """Check that rank 0 reports the search's metric, and those that are weighed against it.

        :raises RayNodeError: it does not.
        """
        for name in dict.fromkeys((metric, *self.further_metrics)):
            super().check_metric(name, metrics, outputs)

    def check_declared(self) -> None:
        """Check that all that the node declares was given; of a trial that goes on, the driver knows the rest."""
        if self.origin.last.step == 0:
            super().check_declared()

    def finish(self, returned: Any) -> dict[str, Any] | None:
        """Take what rank 0's function returned as its last word."""
        self._returned = returned is not None
        return super().finish(returned)

    def ended(self) -> dict[str, Any]:
        """Return the last report, and whether the function returned something."""
        return {**super().ended(), "returned": self._returned}
