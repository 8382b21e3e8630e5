"""The runs of a DAG that succeeded: written by the exit handlers of their workflows, read for `prev_…_success`.

Only the exit handler knows how a workflow ended, and it takes a pod: so runs are recorded where the DAG can be seen to
ask for them, or where the settings say so. They lie in `<catalog>/<dag_id>/@runs/`, each under its logical date, so
that one listing finds the last before another; no run's id has an `@`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import SpecError

if TYPE_CHECKING:
    from airflow.sdk import DAG

_FOLDER = "@runs"
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_NAMES = (
    "prev_data_interval_start_success",
    "prev_data_interval_end_success",
    "prev_start_date_success",
    "prev_end_date_success",
    "get_previous_dagrun",
)


class SucceededRun(BaseModel):
    """A run whose workflow succeeded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    dag_id: str
    run_id: str
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    start_date: datetime
    end_date: datetime
    scheduled: bool


class EarlierRuns:
    """The runs of one DAG that succeeded.

    :param catalog: the one that all runs of the DAG share.
    """

    def __init__(self, catalog: Catalog, dag_id: str) -> None:
        self._catalog = catalog
        # What a run's folder is to a task of it.
        self._folder = catalog.node_prefix(dag_id, _FOLDER, "run").rsplit("/", 2)[0]

    def add(self, run: SucceededRun) -> None:
        """Keep a run."""
        uri = self._uri(run.run_id, run.logical_date)
        self._catalog.write_bytes(uri, run.model_dump_json(indent=1).encode())

    def remove(self, run_id: str, logical_date: datetime) -> None:
        """Forget a run that has ended otherwise now: it was tried again."""
        self._catalog.delete(self._uri(run_id, logical_date))

    def last_before(self, logical_date: datetime) -> SucceededRun | None:
        """Return the run with the latest logical date before another's, None where there is none.

        :raises SpecError: its record is not one of this version.
        """
        own = _stamp(logical_date)
        earlier = [uri for uri in self._catalog.list(self._folder) if _stamp_of(uri) < own]
        if not earlier:
            return None
        latest = _stamp_of(max(earlier, key=_stamp_of))
        found = [self._read(uri) for uri in earlier if _stamp_of(uri) == latest]
        # Of two runs for one date, which Airflow does not have, the one that ended last.
        return max(found, key=lambda run: run.end_date)

    def _read(self, uri: str) -> SucceededRun:
        try:
            return SucceededRun.model_validate_json(self._catalog.read_bytes(uri))
        except ValidationError as error:
            raise SpecError(f"{uri} is not the record of a run of this version: {error}") from error

    def _uri(self, run_id: str, logical_date: datetime) -> str:
        digest = hashlib.sha256(run_id.encode()).hexdigest()[:16]
        return f"{self._folder}/{_stamp(logical_date)}~{digest}.json"


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP)


def _stamp_of(uri: str) -> str:
    return uri.rpartition("/")[2].partition("~")[0]


def asks_for_earlier_runs(dag: DAG, dag_file: Path) -> bool:
    """Whether a DAG names what earlier runs are needed for: in its file, what that imports, its templates."""
    return any(name in text for text in (*_field_texts(dag), *_file_texts(dag, dag_file)) for name in _NAMES)


def _field_texts(dag: DAG) -> Iterator[str]:
    task: Any
    for task in dag.tasks:
        values = [getattr(task, name, None) for name in task.template_fields]
        yield repr([task.partial_kwargs, getattr(task, "expand_input", None)] if task.is_mapped else values)


def _file_texts(dag: DAG, dag_file: Path) -> Iterator[str]:
    from airflow_provider_raynode.operators._function import local_files

    file = dag_file.expanduser().absolute()
    for path in (file, *local_files(file)) if file.is_file() else ():
        yield path.read_text(encoding="utf-8", errors="replace")
    searched = dag.template_searchpath or ()
    folders = [file.parent, *map(Path, [searched] if isinstance(searched, str) else searched)]
    for task in dag.tasks:
        for name in _template_files(task):
            for path in {folder / name for folder in folders}:
                if path.is_file():
                    yield path.read_text(encoding="utf-8", errors="replace")


def _template_files(task: Any) -> Iterable[str]:
    """Yield the names of files in a task's templated fields."""
    endings = tuple(task.template_ext or ())
    for name in task.template_fields if endings else ():
        value = task.partial_kwargs.get(name) if task.is_mapped else getattr(task, name, None)
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and each.endswith(endings):
                yield each
