"""What a training leaves for a later attempt: whose it is, how far it is, whether it has ended. Imports no Ray.

Below the experiment's folder lie `training.json`, written by the drivers, and a folder for each driver, which its
processes alone write: what is left of a driver that has lost its lease, or was killed, is in nobody's way. In it are
Ray's checkpoints, the steps, and `state.json`: everything up to the last checkpoint that all ranks have given their
parts of.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SearchStateError
from airflow_provider_raynode.spec import NodeSpec, TrainingEnding
from airflow_provider_raynode.work import work_of

log = logging.getLogger(__name__)

_REMEDY = "Set on_change='restart' on the node and clear it, fan-out too, to start anew, or trigger a new DAG run"
_DRIVER = re.compile(r"driver_(\d+)")


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """Return it as JSON; NaN and infinity stay as Python writes them."""
        return json.dumps(self.model_dump(), ensure_ascii=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` gave.

        :raises ValueError: damaged, or of another version.
        """
        return cls.model_validate(json.loads(data))


class TrainingState(_State):
    """`training.json`: whose training it is, and its result once it has ended."""

    id: str = Field(description="digest of what names the training")
    work: dict[str, str] = Field(description="digest of each part of its work")
    finished: dict[str, Any] | None = Field(default=None, description="the fields of NodeResult of one that has ended")


class Counted(BaseModel):
    """A counted report: what rank 0 reported."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int = 0
    time_total_s: float = 0.0
    metrics: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="references of the outputs so far")
    checkpoint: str | None = Field(default=None, description="name of the folder of the checkpoint that came with it")


class DriverState(_State):
    """`state.json` of a driver's folder."""

    last: Counted = Field(description="the report of the last whole checkpoint, or the last one of a finished training")
    best: Counted | None = Field(default=None, description="the best report up to that one")
    checkpoints: list[Counted] = Field(default_factory=list, description="reports with a whole checkpoint")
    finished: bool = Field(default=False, description="whether the function has returned on every rank, or was stopped")
    ending: TrainingEnding = "incomplete"
    reason: str = Field(default="", description="why it ended, in words")
    world_size: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class Origin:
    """Where a training goes on from.

    :param checkpoint: path of the folder of the checkpoint on the training's storage, None at the beginning.
    :param best: the best report so far.
    """

    last: Counted = field(default_factory=Counted)
    best: Counted | None = None
    checkpoint: str | None = None

    @property
    def step(self) -> int | None:
        """The report that it goes on from, None at the beginning."""
        return None if self.checkpoint is None else self.last.step


@dataclass(frozen=True)
class Kept:
    """A driver's folder, with its state."""

    uri: str
    state: DriverState


class Training:
    """A training's folder on storage, as one driver sees it.

    :param catalog: the driver's; it refuses to write once the lease is lost.
    :param number: the driver's number.
    """

    def __init__(self, spec: NodeSpec, catalog: Catalog, number: int) -> None:
        self.spec = spec
        self._catalog = catalog
        self.number = number
        self.uri = f"{spec.experiment_prefix}/{spec.experiment_name}"

    @property
    def driver_name(self) -> str:
        """Name of this driver's folder below the experiment's."""
        return f"driver_{self.number:04}"

    @property
    def driver_uri(self) -> str:
        """URI of this driver's folder."""
        return f"{self.uri}/{self.driver_name}"

    def begin(self) -> TrainingState:
        """Return the training's state: its own from an earlier driver, or a new one, which is written.

        :raises SearchStateError: it is another training's, of other work, or damaged, and `spec.on_change` does not say
            that the training then starts anew.
        """
        own = TrainingState(id=self.spec.search_id, work=work_of(self.spec))
        if self._catalog.exists(self.spec.state_uri):
            try:
                return self._checked(own)
            except SearchStateError as error:
                if self.spec.on_change != "restart":
                    raise
                said = str(error).removesuffix(f". {_REMEDY}")
                log.warning("%s: on_change is 'restart', so it is removed, and the training starts anew", said)
        elif self.spec.search_of is not None:
            log.info("Attempt %d left no state of its training: it starts anew", self.spec.search_of)
        if self._catalog.exists(self.uri):
            self._catalog.delete(self.uri)
        self._catalog.write_bytes(self.spec.state_uri, own.to_bytes())
        return own

    def _checked(self, own: TrainingState) -> TrainingState:
        try:
            found = TrainingState.from_bytes(self._catalog.read_bytes(self.spec.state_uri))
        except (CatalogError, ValueError) as error:
            raise SearchStateError(
                f"the state of the training in {self.uri} is damaged: {type(error).__name__}: {error!s:.200}. {_REMEDY}"
            ) from error
        if found.id != own.id:
            raise SearchStateError(
                f"the state in {self.uri} is not this training's: it is that of {found.id:.16}…, this one is "
                f"{own.id:.16}…. Going on with it would give another node's result. {_REMEDY}"
            )
        # By what both know: a newer version of this package may name more.
        changed = [name for name, digest in own.work.items() if found.work.get(name, digest) != digest]
        if changed:
            raise SearchStateError(
                f"the state in {self.uri} is of other work: {', '.join(changed)} changed since it was written. "
                f"{_REMEDY}"
            )
        return found

    def finish(self, state: TrainingState, fields: Mapping[str, Any]) -> None:
        """Write that the training has ended, with its result; a driver that comes after this one does not train."""
        self._catalog.write_bytes(self.spec.state_uri, state.model_copy(update={"finished": dict(fields)}).to_bytes())

    def kept(self) -> list[Kept]:
        """Return the folders of the drivers that have kept something, in the order in which they worked."""
        found: list[tuple[int, Kept]] = []
        for uri in self._catalog.list(self.uri):
            match = _DRIVER.fullmatch(uri.rstrip("/").rpartition("/")[2])
            if match is None:
                continue
            state = read_state(self._catalog, uri)
            if state is not None:
                found.append((int(match.group(1)), Kept(uri.rstrip("/"), state)))
        return [kept for _, kept in sorted(found, key=lambda each: each[0])]

    def remove_leftovers(self, kept: list[Kept]) -> None:
        """Remove what earlier drivers left unfinished: checkpoints that not all ranks gave their parts of."""
        whole = {f"{each.uri}/{report.checkpoint}" for each in kept for report in each.state.checkpoints}
        for uri in self._catalog.list(self.uri):
            uri = uri.rstrip("/")
            if not _DRIVER.fullmatch(uri.rpartition("/")[2]) or uri == self.driver_uri:
                continue
            for entry in self._catalog.list(uri):
                name = entry.rstrip("/").rpartition("/")[2]
                if name.startswith("checkpoint_") and not name.endswith(".json") and entry.rstrip("/") not in whole:
                    self._catalog.delete(entry)

    def remove_drivers(self) -> None:
        """Remove the drivers' folders: the training has ended, and its result is written down."""
        for uri in self._catalog.list(self.uri):
            if _DRIVER.fullmatch(uri.rstrip("/").rpartition("/")[2]):
                self._catalog.delete(uri)


def read_state(catalog: Catalog, driver_uri: str) -> DriverState | None:
    """Return the state in a driver's folder, None where there is none."""
    uri = f"{driver_uri.rstrip('/')}/state.json"
    if not catalog.exists(uri):
        return None
    try:
        return DriverState.from_bytes(catalog.read_bytes(uri))
    except (ValueError, ValidationError) as error:
        raise SearchStateError(
            f"the state of the training in {uri} is damaged: {type(error).__name__}: {error!s:.200}. {_REMEDY}"
        ) from error


def origin_of(kept: list[Kept], path_of: Mapping[str, str]) -> Origin:
    """Return what a training goes on from: the last whole checkpoint of the newest driver that has one.

    :param path_of: path of each driver's folder on the training's storage, by its URI.
    """
    for each in reversed(kept):
        last = each.state.last
        if last.checkpoint is not None:
            return Origin(last=last, best=each.state.best, checkpoint=f"{path_of[each.uri]}/{last.checkpoint}")
    return Origin()
