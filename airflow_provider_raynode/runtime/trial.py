"""One running trial of a search, as its function's reports meet it. Imports no Ray by itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.checkpoints import read_checkpoint
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, travelling
from airflow_provider_raynode.runtime.references import ReportCheck
from airflow_provider_raynode.runtime.reporting import ReportingSession, over
from airflow_provider_raynode.runtime.returned import as_mapping

log = logging.getLogger("airflow_provider_raynode.trial")


@dataclass(frozen=True)
class Origin:
    """Where a trial goes on from: a checkpoint, whose it is ("" where that is not known), its report's metrics."""

    trial_id: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Trial(ReportingSession):
    """One running trial, on its worker.

    `origin` is what it goes on from: PBT gives a bad trial the checkpoint of a good one. `stopped`: Tune has ended it.
    """

    trial_id: str
    metric: str = ""
    further_metrics: Sequence[str] = ()
    send: Callable[..., None] = field(repr=False, default=lambda *_: None)
    check: ReportCheck = field(default_factory=ReportCheck)
    origin: Origin | None = None

    @property
    def whose(self) -> str:
        """What the metric belongs to."""
        return "the search"

    def place(self) -> dict[str, Any]:
        """Return which trial this is."""
        return {"trial_id": self.trial_id}

    def checkpoint(self) -> Any:
        """Return what the trial goes on from: its own checkpoint, or one that PBT gave it."""
        from ray import tune

        return read_checkpoint(tune.get_checkpoint())

    def report(self, values: Mapping[str, Any], checkpoint: Any = None, *, last: bool = False) -> None:
        """Report one step; `last`: it is what the function returned."""
        if self.stopped:  # a function that catches its end comes back here
            raise SystemExit(0)
        metrics, outputs = self.split(values, checkpoint=checkpoint is not None)
        for metric in (self.metric, *self.further_metrics):
            self.check_metric(metric, metrics, outputs)
        given = {name: value for name, (value, _) in outputs.items()}
        self.check.check(metrics, given, checkpoint=checkpoint is not None, last=last)
        self.keep(metrics, outputs)
        self.reports += 1
        carried: dict[str, Any] = {OUTPUTS_KEY: json.dumps(self.outputs)} if self.outputs else {}
        if last:
            carried[RETURNED_KEY] = True
        try:
            self.send({**{travelling(name): value for name, value in metrics.items()}, **carried}, checkpoint)
        except SystemExit:
            self.stopped = True
            raise

    def finish(self, returned: Any) -> None:
        """Take what the function returned as its last report; nothing is left to do where it reported all itself."""
        if self.stopped:
            return
        if returned is None:
            if self.reports == 0 and self.origin is None:
                raise RayNodeError(
                    f"the function returned nothing and reported nothing: return {{{self.metric!r}: value}}, or call "
                    f"report({{{self.metric!r}: value}})"
                )
            self._check_all_given()
            return
        values = as_mapping(returned, self.metric)
        if self.reports:
            # A function that reports its steps may return only its outputs: its last metrics stand.
            values = over(self.last, values)
        elif self.origin is not None and self.metric not in values:
            if self.origin.trial_id != self.trial_id:
                log.info("Trial %s took over a trial that had ended: its own last report stands.", self.trial_id)
                return
            values = over(self.origin.metrics, values)
        self.report(values, last=True)
        self._check_all_given()

    def _check_all_given(self) -> None:
        if self.origin is None:  # what an earlier report gave counts; the driver knows it
            self.check_declared()
