"""What the pods of a run keep in the catalog: task records, XComs, the task state store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SpecError

TaskState = Literal["running", "success", "skipped", "failed", "upstream_failed", "up_for_retry"]
# In a task's folder of the catalog, beside what the task itself puts there.
_FOLDER = "airflow_task"


class TaskRecord(BaseModel):
    """The state of one task instance, as its pods leave it.

    A pod that was killed leaves `running`, or `up_for_retry` where Argo does not try again: once Argo calls the node
    done, both mean failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    state: TaskState
    try_number: int = Field(ge=0, description="Airflow's, 1 first; 0 for a task that was decided without a try")
    first_try: int = Field(
        default=1, ge=0, description="the try with which this Argo node began; more than 1 after argo retry"
    )
    started: datetime
    ended: datetime | None = None
    skipped: tuple[tuple[str, int], ...] = Field(
        default=(), description="(task_id, map_index) downstream that this task skipped: a branch, a short circuit"
    )
    error: str = ""
    tag: str = ""
    structure: str = Field(default="", description="structure hash of the DAG that ran")
    rendered_map_index: str | None = None

    def has_skipped(self, task_id: str, map_index: int) -> bool:
        """Whether this task is a branch or a short circuit that skipped a task instance."""
        return any(name == task_id and index in (-1, map_index) for name, index in self.skipped)


class RunStore:
    """The records, XComs and task state of one DAG run, below `<catalog>/<dag_id>/<run_id>/<task_id>/<map_index>/`.

    :param catalog: the catalog that all pods of the run share.
    """

    def __init__(self, catalog: Catalog, dag_id: str, run_id: str) -> None:
        self.catalog = catalog
        self.dag_id = dag_id
        self.run_id = run_id

    # -- records ---------------------------------------------------------------------------------------------------

    def record(self, task_id: str, map_index: int = -1) -> TaskRecord | None:
        """Return the record of a task instance, None where no pod of it has begun.

        :raises SpecError: the record is not one of this version.
        """
        uri = self._uri(task_id, map_index, "record.json")
        data = self._read(uri)
        if data is None:
            return None
        try:
            return TaskRecord.model_validate_json(data)
        except ValidationError as error:
            raise SpecError(f"{uri} is not a task record of this version: {error}") from error

    def write_record(self, record: TaskRecord) -> None:
        """Write a task instance's record in place of an earlier one."""
        uri = self._uri(record.task_id, record.map_index, "record.json")
        self.catalog.write_bytes(uri, record.model_dump_json(indent=1).encode())

    def map_indexes(self, task_id: str) -> list[int]:
        """Return the map indexes that have a folder, without -1, in order."""
        parent = self.catalog.node_prefix(self.dag_id, self.run_id, task_id).rpartition("/")[0]
        names = (uri.rpartition("/")[2] for uri in self.catalog.list(parent))
        return sorted(int(name) for name in names if name.isdigit())

    # -- XComs -----------------------------------------------------------------------------------------------------

    def xcom(self, task_id: str, map_index: int, key: str) -> tuple[bool, Any]:
        """Return whether an XCom was pushed, and its value as JSON data."""
        data = self._read(self._uri(task_id, map_index, "xcom", key))
        return (False, None) if data is None else (True, json.loads(data))

    def set_xcom(self, task_id: str, map_index: int, key: str, value: Any) -> None:
        """Keep an XCom; `value` is JSON data."""
        # What JSON has not fails the task, as it does with Airflow's API.
        self.catalog.write_bytes(
            self._uri(task_id, map_index, "xcom", key), json.dumps(value, allow_nan=False).encode()
        )

    def delete_xcom(self, task_id: str, map_index: int, key: str) -> None:
        """Remove an XCom; one that is not there is no error."""
        self.catalog.delete(self._uri(task_id, map_index, "xcom", key))

    def xcom_keys(self, task_id: str, map_index: int) -> list[str]:
        """Return the keys that a task instance pushed."""
        return self._keys(task_id, map_index, "xcom")

    def xcom_indexes(self, task_id: str, key: str) -> list[int]:
        """Return the map indexes that pushed `key`, -1 for an unmapped task, in order."""
        return [index for index in (-1, *self.map_indexes(task_id)) if self.xcom(task_id, index, key)[0]]

    def clear_xcoms(self, task_id: str, map_index: int) -> None:
        """Remove what an earlier try pushed."""
        self.catalog.delete(self._uri(task_id, map_index, "xcom"))

    # -- task state store ------------------------------------------------------------------------------------------

    def store_get(self, task_id: str, map_index: int, key: str) -> tuple[bool, Any]:
        """Return whether a key is in the task state store, and its value as JSON data."""
        data = self._read(self._uri(task_id, map_index, "store", key))
        return (False, None) if data is None else (True, json.loads(data))

    def store_set(self, task_id: str, map_index: int, key: str, value: Any) -> None:
        """Keep a key of the task state store, over the tries of the task."""
        self.catalog.write_bytes(self._uri(task_id, map_index, "store", key), json.dumps(value).encode())

    def store_delete(self, task_id: str, map_index: int, key: str) -> None:
        """Remove a key from the task state store."""
        self.catalog.delete(self._uri(task_id, map_index, "store", key))

    def store_clear(self, task_id: str, map_index: int) -> None:
        """Empty the task state store of a task instance."""
        self.catalog.delete(self._uri(task_id, map_index, "store"))

    def store_keys(self, task_id: str, map_index: int) -> list[str]:
        """Return the keys in the task state store."""
        return self._keys(task_id, map_index, "store")

    # -- below the surface -----------------------------------------------------------------------------------------

    def _uri(self, task_id: str, map_index: int, *path: str) -> str:
        prefix = self.catalog.node_prefix(self.dag_id, self.run_id, task_id, map_index)
        *folders, name = path
        if folders:
            # A key is any text; quoted it is one segment, and can be read back.
            name = f"{quote(name, safe='')}.json"
        elif name in ("xcom", "store"):
            return f"{prefix}/{_FOLDER}/{name}"
        return "/".join((prefix, _FOLDER, *folders, name))

    def _read(self, uri: str) -> bytes | None:
        try:
            return self.catalog.read_bytes(uri)
        except CatalogError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
        if self.catalog.exists(uri):
            # It is there and could not be read: that is no absence.
            return self.catalog.read_bytes(uri)
        return None

    def _keys(self, task_id: str, map_index: int, folder: str) -> list[str]:
        uris: Iterable[str] = self.catalog.list(self._uri(task_id, map_index, folder))
        return [unquote(uri.rpartition("/")[2].removesuffix(".json")) for uri in uris]
