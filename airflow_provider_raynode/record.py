"""The run record: what became of one attempt of a node, `run.json` in its folder. Pure: no airflow, no ray."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_raynode import __version__
from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.spec import (
    Best,
    CodeIdentity,
    Completion,
    JobRef,
    MapEnd,
    NodeFailure,
    NodeResult,
    NodeSpec,
    TrainingEnd,
    Versions,
)

log = logging.getLogger(__name__)

Outcome = Literal["succeeded", "failed", "stopped", "lost"]
_FILE = "run.json"


class Earlier(BaseModel):
    """An earlier attempt of the same node."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    outcome: Outcome | None = Field(description="None where it left no record")
    submission_id: str


class RunRecord(BaseModel):
    """One attempt of a node, after its end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    dag_id: str
    run_id: str
    node_id: str
    map_index: int = -1
    attempt: int
    submission_id: str
    launcher: str
    address: str
    work: WorkKind = "search"
    outcome: Outcome
    failure: NodeFailure | None = None
    spec: dict[str, str] = Field(description="uri and sha256")
    code: CodeIdentity
    search_of: int | None = Field(default=None, description="the attempt whose work this one went on with")
    restored: int = Field(default=0, description="trials or items that it had finished")
    retries: tuple[Earlier, ...] = Field(default=(), description="the attempts before this one")
    versions: Versions | None = Field(default=None, description="on the cluster")
    airflow: Versions | None = Field(default=None, description="where the node was staged")
    airflow_version: str | None = None
    started: datetime | None = None
    ended: datetime
    timings_s: dict[str, float] = Field(default_factory=dict, description="seconds by phase of the driver")
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    best: Best | None = None
    outputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="CatalogRef per output")
    trials: dict[str, Any] | None = Field(default=None, description="CatalogRef of the trials table")
    front: dict[str, Any] | None = Field(
        default=None, description="with several metrics: CatalogRef of the trials that no other beats"
    )
    steps: dict[str, Any] | None = Field(default=None, description="CatalogRef of the reported steps")
    trial_states: dict[str, int] = Field(default_factory=dict)
    completion: Completion | None = Field(default=None, description="how many of how many trials, and why it ended")
    metrics: dict[str, Any] | None = Field(
        default=None, description="of a training's last report, or of what a function returned"
    )
    best_metrics: dict[str, Any] | None = Field(default=None, description="of a training's best report")
    best_step: int | None = Field(default=None, description="number of a training's best report")
    training: TrainingEnd | None = Field(default=None, description="how a training ended, after how many reports")
    value: Any = Field(default=None, description="what a function returned, where that is small JSON")
    items: MapEnd | None = Field(default=None, description="how many of a map's items ended how")
    failed: tuple[int, ...] = Field(default=(), description="indexes of a map's failed items, the first of many")
    resources: dict[str, float] = Field(default_factory=dict, description="what the cluster had")
    asked: dict[str, Any] = Field(
        default_factory=dict,
        description="what the first unit reserves: a trial, a training with all its workers, a call",
    )
    secrets: tuple[str, ...] = Field(default=(), description="names only")
    warnings: tuple[str, ...] = ()
    files: str = Field(description="URI of the attempt's folder, with the log where the catalog has it")

    @property
    def seconds(self) -> float | None:
        """How long the driver ran."""
        return None if self.started is None else (self.ended - self.started).total_seconds()


def record_of(
    job: JobRef, spec: NodeSpec, result: NodeResult | None, node: Catalog, *, outcome: Outcome, message: str = ""
) -> RunRecord:
    """Return the record of an attempt that has ended.

    :param result: what its driver left, None where it left nothing.
    :param node: the catalog at the node's folder, for the attempts before.
    :param message: why it ended, where no result says it.
    """
    run = spec.context
    failure = result.failure if result else None
    if failure is None and message:
        failure = NodeFailure(type="Ended", message=message)
    return RunRecord(
        dag_id=run.dag_id,
        run_id=run.run_id,
        node_id=run.node_id,
        map_index=run.map_index,
        attempt=job.attempt,
        submission_id=job.submission_id,
        launcher=job.launcher,
        address=job.address,
        work=spec.config.work,
        outcome=outcome,
        failure=failure,
        spec={"uri": job.spec_uri, "sha256": job.spec_sha256},
        code=spec.code,
        search_of=spec.search_of,
        restored=result.restored if result else 0,
        retries=tuple(_earlier(spec, node)),
        versions=result.versions if result else None,
        airflow=Versions(python=platform.python_version(), package=__version__, ray=spec.staged_by.ray),
        airflow_version=_airflow_version(),
        started=result.started if result else None,
        ended=result.ended if result else datetime.now(UTC),
        timings_s=result.timings_s if result else {},
        metric=result.metric if result else None,
        mode=result.mode if result else None,
        best=result.best if result else None,
        outputs=result.outputs if result else {},
        trials=result.trials if result else None,
        front=result.front if result else None,
        steps=result.steps if result else None,
        trial_states=result.trial_states if result else {},
        completion=result.completion if result else None,
        metrics=result.metrics if result else None,
        best_metrics=result.best_metrics if result else None,
        best_step=result.best_step if result else None,
        training=result.training if result else None,
        value=result.value if result else None,
        items=result.items if result else None,
        failed=result.failed if result else (),
        resources=result.resources if result else {},
        asked=unit_of(spec.config).total,
        secrets=spec.secrets,
        warnings=result.warnings if result else (),
        files=job.attempt_prefix,
    )


def write_record(record: RunRecord, node: Catalog) -> CatalogRef:
    """Write `run.json` into the attempt's folder, over an earlier one of the same attempt, and return its reference."""
    return node.child(f"attempt_{record.attempt}").put(record.model_dump(mode="json"), "run", kind="json")


def read_record(uri: str, catalog: Catalog) -> RunRecord:
    """Return the record at a URI.

    :raises CatalogError: there is none.
    :raises SpecError: it is damaged.
    """
    try:
        return RunRecord.model_validate_json(catalog.read_bytes(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SpecError(f"{uri} is not a run record ({where}: {first['msg']}): it was cut or altered") from error


def find_records(catalog: Catalog, dag_id: str | None = None) -> list[RunRecord]:
    """Return the records of a catalog, the latest first; a damaged one is left out with a warning.

    :param dag_id: only those of one DAG.
    """
    found = []
    for uri in _walk(catalog):
        try:
            record = read_record(uri, catalog)
        except (CatalogError, SpecError) as error:
            log.warning("%s", error)
            continue
        if dag_id is None or record.dag_id == dag_id:
            found.append(record)
    return sorted(found, key=lambda record: record.ended, reverse=True)


def _walk(catalog: Catalog) -> Iterator[str]:
    """Yield the URIs of the records: <dag>/<run>/<node>/<map index>/attempt_N/run.json."""
    filesystem = catalog.filesystem
    root = filesystem._strip_protocol(catalog.uri)
    for path in sorted(filesystem.glob(f"{root}/*/*/*/*/attempt_*/{_FILE}")):
        yield path if catalog.is_local else f"{catalog.uri.partition('://')[0]}://{path}"


def _earlier(spec: NodeSpec, node: Catalog) -> Iterator[Earlier]:
    for number in range(1, spec.attempt):
        uri = f"{spec.node_prefix}/attempt_{number}"
        outcome: Outcome | None = None
        identity = spec.submission_id.rpartition("-a")[0] + f"-a{number}"
        with suppress(CatalogError, SpecError):
            outcome = read_record(f"{uri}/{_FILE}", node).outcome
        yield Earlier(attempt=number, outcome=outcome, submission_id=identity)


def _airflow_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apache-airflow")
    except PackageNotFoundError:
        return None
