"""What a function can use while it runs as a trial: `report`, `get_checkpoint`, `context`. Imports no Ray by itself."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, SHOWN, listed, nearest, travelling
from airflow_provider_raynode.runtime.outputs import split
from airflow_provider_raynode.runtime.references import ReportCheck
from airflow_provider_raynode.runtime.returned import as_mapping
from airflow_provider_raynode.runtime.secrets import NodeConnection, NodeSecrets, SecretsError
from airflow_provider_raynode.spec import RunContext
from airflow_provider_raynode.texts import clean

log = logging.getLogger("airflow_provider_raynode.trial")

OBJECT_FILE = "raynode_object.pkl"
# In a checkpoint's folder: whose it is, and what was reported with it.
ORIGIN_FILE = ".raynode.json"


@dataclass(frozen=True)
class TrialContext:
    """The run that a trial belongs to, as `context()` gives it on a worker.

    `map_variables` are the arguments of the mapped task group for this node; `params` the DAG run's params;
    `parameters` what the node's parameters_file holds.
    """

    dag_id: str
    run_id: str
    node_id: str
    map_index: int
    attempt: int
    try_number: int
    logical_date: datetime | None
    params: dict[str, Any]
    map_variables: dict[str, Any]
    parameters: dict[str, Any]
    trial_id: str
    catalog: Catalog
    logger: logging.Logger
    secrets: NodeSecrets | None = field(default=None, repr=False)

    def connection(self, conn_id: str) -> NodeConnection:
        """Return the Airflow connection that the node declares in `secrets` as `conn:ID`.

        :raises SecretsError: the node does not declare it.
        """
        return self._secrets().connection(conn_id)

    def variable(self, key: str, *, deserialize_json: bool = False) -> Any:
        """Return the Airflow variable that the node declares in `secrets` as `var:KEY`.

        :param deserialize_json: whether to return what its JSON says.
        :raises SecretsError: the node does not declare it.
        """
        return self._secrets().variable(key, deserialize_json=deserialize_json)

    def _secrets(self) -> NodeSecrets:
        if self.secrets is None:
            raise SecretsError("the node declares no secrets: ray_node(..., secrets=['conn:my_db', 'var:api_key'])")
        return self.secrets


@dataclass(frozen=True)
class Origin:
    """Where a trial goes on from: a checkpoint, whose it is ("" where that is not known), its report's metrics."""

    trial_id: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trial:
    """One running trial, on its worker.

    `catalog` is the folder of what the function itself puts, `store` that of its outputs. `origin` is what it goes on
    from: PBT gives a bad trial the checkpoint of a good one. `stopped`: Tune has ended it.
    """

    trial_id: str
    run: RunContext
    attempt: int
    catalog: Catalog
    store: Catalog
    returns: Sequence[Return] = ()
    metric: str = ""
    further_metrics: Sequence[str] = ()
    secrets: NodeSecrets | None = field(default=None, repr=False)
    send: Callable[..., None] = field(repr=False, default=lambda *_: None)
    last: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: int = 0
    check: ReportCheck = field(default_factory=ReportCheck)
    origin: Origin | None = None
    stopped: bool = False
    _checkpoints: bool = False

    def report(self, values: Mapping[str, Any], checkpoint: Any = None, *, last: bool = False) -> None:
        """Report one step; `last`: it is what the function returned."""
        if self.stopped:  # a function that catches its end comes back here
            raise SystemExit(0)
        if not isinstance(values, Mapping):
            raise RayNodeError(
                f"report() takes a dict of metrics, got {type(values).__name__}: report({{'name': value}})"
            )
        metrics, outputs = split(values, self.returns)
        self._check_names(metrics, outputs, checkpoint=checkpoint is not None)
        for metric in (self.metric, *self.further_metrics):
            _check_metric(metric, metrics, outputs)
        given = {name: value for name, (value, _) in outputs.items()}
        self.check.check(metrics, given, checkpoint=checkpoint is not None, last=last)
        for name, (value, kind) in outputs.items():
            self.outputs[name] = dict(self.store.put(value, name, kind=kind))
        self.last = dict(metrics)
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
            self._check_declared()
            return
        values = as_mapping(returned, self.metric)
        if self.reports:
            # A function that reports its steps may return only its outputs: its last metrics stand.
            values = _over(self.last, values)
        elif self.origin is not None and self.metric not in values:
            if self.origin.trial_id != self.trial_id:
                log.info("Trial %s took over a trial that had ended: its own last report stands.", self.trial_id)
                return
            values = _over(self.origin.metrics, values)
        self.report(values, last=True)
        self._check_declared()

    def _check_names(self, metrics: Mapping[str, Any], outputs: Mapping[str, Any], *, checkpoint: bool) -> None:
        for name in SHOWN:
            if name in metrics:
                raise RayNodeError(
                    f"the function gives {name!r}, which Tune itself counts and the node shows: give it another name"
                )
        self._checkpoints = self._checkpoints or checkpoint
        if self._checkpoints and ("checkpoint" in outputs or "checkpoint" in self.outputs):
            raise RayNodeError(
                "the function gives an output 'checkpoint' and reports checkpoints too, which become the output of "
                "that name: give the output another name"
            )

    def _check_declared(self) -> None:
        if self.origin is not None:
            return  # what an earlier report gave counts; the driver knows it
        missing = [each.name for each in self.returns if each.name not in self.outputs and each.name not in self.last]
        if missing:
            raise RayNodeError(
                f"the function did not return {', '.join(map(repr, missing))}, which the node declares in returns; it "
                f"gave: {listed({*self.outputs, *self.last})}"
            )


def _over(metrics: Mapping[str, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return `values`, and those of `metrics` whose name they do not give anew."""
    given = {clean(name) for name in values if isinstance(name, str)}
    return {**{name: value for name, value in metrics.items() if name not in given}, **values}


def _check_metric(metric: str, metrics: Mapping[str, Any], outputs: Mapping[str, tuple[Any, str | None]]) -> None:
    value = metrics.get(metric)
    if isinstance(value, int | float):
        return
    if metric in metrics:
        raise RayNodeError(f"the metric {metric!r} must be a number, got {type(value).__name__}: {value!r:.80}")
    if metric in outputs:
        value, kind = outputs[metric]
        if kind is not None:
            raise RayNodeError(
                f"returns declares {metric!r} as {kind}, but it is the search's metric, a number: take it out "
                f"of returns, or declare metric({metric!r})"
            )
        raise RayNodeError(f"the metric {metric!r} must be a number, got {type(value).__name__}: {repr(value)[:80]}")
    raise RayNodeError(
        f"the search's metric {metric!r} was not reported{nearest(metric, metrics)}; the function gave: "
        f"{listed(metrics) if metrics else 'no metrics'}"
    )


_current: Trial | None = None


def set_current(trial: Trial | None) -> None:
    """Make `trial` the one that this process runs: a worker runs one at a time, in whatever threads."""
    global _current
    _current = trial


def report(metrics: Mapping[str, Any], checkpoint: Any = None) -> None:
    """Report a step of the trial: the scheduler may stop the trial here.

    Outside a trial, where the function is called as plain Python (in a unit test of its own, say), the metrics are
    logged and the call returns.

    :param metrics: values by name, the search's metric among them. What is not a number, a boolean or a short text is
        an output, kept in the catalog and replaced by the next report of the same name.
    :param checkpoint: what the trial could go on from: the path of a folder, or any object that can be pickled; it is
        kept as it is at this moment.
    :raises RayNodeError: the search's metric is missing or not a number, the checkpoint cannot be pickled, or a name
        that the config refers to (`stop`, `time_attr`, `checkpoint_score_attribute`) is missing.

    Example::

        for epoch in range(epochs):
            ...
            report({"accuracy": accuracy}, checkpoint={"epoch": epoch, "weights": weights})
    """
    if _current is None:
        log.info("report: %s", dict(metrics))
        return
    _current.report(metrics, checkpoint)


def get_checkpoint() -> Any:
    """Return what the trial resumes from: the reported object, or the Path of the folder; None at the start."""
    if _current is None:
        return None
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="raynode-checkpoint-"))
    checkpoint.to_directory(str(folder))
    (folder / ORIGIN_FILE).unlink(missing_ok=True)
    return read_checkpoint(folder)


def read_checkpoint(folder: Path) -> Any:
    """Return the object in a checkpoint's folder, or the folder itself."""
    file = folder / OBJECT_FILE
    if not file.exists():
        return folder
    from ray import cloudpickle

    with file.open("rb") as stream:
        return cloudpickle.load(stream)


def context() -> TrialContext:
    """Return the run that this trial belongs to: ids, params, map variables, secrets, the catalog, a logger.

    :raises RayNodeError: not in a trial.
    """
    if _current is None:
        raise RayNodeError("context() works only while the function runs as a trial of a Ray node")
    run = _current.run
    return TrialContext(
        dag_id=run.dag_id,
        run_id=run.run_id,
        node_id=run.node_id,
        map_index=run.map_index,
        attempt=_current.attempt,
        try_number=run.try_number,
        logical_date=run.logical_date,
        params=dict(run.params),
        map_variables=dict(run.map_variables),
        parameters=dict(run.parameters),
        trial_id=_current.trial_id,
        catalog=_current.catalog,
        logger=log,
        secrets=_current.secrets,
    )
