"""What a report of a trial, or of a training's rank, must be: metrics, outputs, names. Imports no Ray by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.names import SHOWN, listed, nearest
from airflow_provider_raynode.runtime.outputs import Outputs, split
from airflow_provider_raynode.runtime.session import Session
from airflow_provider_raynode.texts import clean


@dataclass(kw_only=True)
class ReportingSession(Session):
    """A call of the function that may report: it keeps what was reported last, and the references of the outputs.

    `store` is the folder of the outputs.
    """

    store: Catalog
    returns: Sequence[Return] = ()
    last: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: int = 0
    _checkpoints: bool = False

    @property
    @abstractmethod
    def whose(self) -> str:
        """What the metric belongs to, in messages: the search, the training."""

    def split(self, values: Any, *, checkpoint: bool) -> tuple[dict[str, Any], Outputs]:
        """Return the metrics and the outputs of one report.

        :param checkpoint: whether a checkpoint comes with it.
        :raises RayNodeError: not a mapping, or a name that cannot be.
        """
        if not isinstance(values, Mapping):
            raise RayNodeError(
                f"report() takes a dict of metrics, got {type(values).__name__}: report({{'name': value}})"
            )
        metrics, outputs = split(values, self.returns)
        for name in SHOWN:
            if name in metrics:
                raise RayNodeError(
                    f"the function gives {name!r}, which Ray itself counts and the node shows: give it another name"
                )
        self._checkpoints = self._checkpoints or checkpoint
        if self._checkpoints and ("checkpoint" in outputs or "checkpoint" in self.outputs):
            raise RayNodeError(
                "the function gives an output 'checkpoint' and reports checkpoints too, which become the output of "
                "that name: give the output another name"
            )
        return metrics, outputs

    def keep(self, metrics: Mapping[str, Any], outputs: Outputs) -> None:
        """Write the outputs of a report, and take it as the last one."""
        for name, (value, kind) in outputs.items():
            self.outputs[name] = dict(self.store.put(value, name, kind=kind))
        self.last = dict(metrics)

    def check_metric(self, metric: str, metrics: Mapping[str, Any], outputs: Outputs) -> None:
        """Check that the metric is there and is a number.

        :raises RayNodeError: it is not.
        """
        value = metrics.get(metric)
        if isinstance(value, int | float):
            return
        if metric in metrics:
            raise RayNodeError(f"the metric {metric!r} must be a number, got {type(value).__name__}: {value!r:.80}")
        if metric in outputs:
            value, kind = outputs[metric]
            if kind is not None:
                raise RayNodeError(
                    f"returns declares {metric!r} as {kind}, but it is {self.whose}'s metric, a number: take it out "
                    f"of returns, or declare metric({metric!r})"
                )
            raise RayNodeError(
                f"the metric {metric!r} must be a number, got {type(value).__name__}: {repr(value)[:80]}"
            )
        raise RayNodeError(
            f"{self.whose}'s metric {metric!r} was not reported{nearest(metric, metrics)}; the function gave: "
            f"{listed(metrics) if metrics else 'no metrics'}"
        )

    def check_declared(self) -> None:
        """Check that all that the node declares in `returns` was given.

        :raises RayNodeError: something is missing.
        """
        missing = [each.name for each in self.returns if each.name not in self.outputs and each.name not in self.last]
        if missing:
            raise RayNodeError(
                f"the function did not return {', '.join(map(repr, missing))}, which the node declares in returns; it "
                f"gave: {listed({*self.outputs, *self.last})}"
            )


def over(metrics: Mapping[str, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return `values`, and those of `metrics` whose name they do not give anew."""
    given = {clean(name) for name in values if isinstance(name, str)}
    return {**{name: value for name, value in metrics.items() if name not in given}, **values}
