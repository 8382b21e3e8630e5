"""Which catalog `put`, `load` and `get_ref` work on in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from airflow_provider_raynode.catalog._ref import CatalogRef
from airflow_provider_raynode.catalog._store import Catalog
from airflow_provider_raynode.exceptions import CatalogError

_here: ContextVar[Catalog | None] = ContextVar("raynode_catalog", default=None)
_process: Catalog | None = None
# Named, not imported: this room works without Airflow, and that module is used only where Airflow is loaded already.
_AIRFLOW_SIDE = "airflow_provider_raynode.hooks.catalog"


def set_active(catalog: Catalog | None) -> None:
    """Make `catalog` the one of this process, in every thread; the driver does so on a worker. None takes it back."""
    global _process
    _process = catalog


@contextmanager
def use(catalog: Catalog) -> Iterator[Catalog]:
    """Make `catalog` the active one in this thread or coroutine, while the context is open."""
    token = _here.set(catalog)
    try:
        yield catalog
    finally:
        _here.reset(token)


def active() -> Catalog:
    """Return the catalog that `put` writes to here: the task's folder in Airflow, the trial's on a worker.

    :raises CatalogError: neither in a task nor in a trial.
    """
    catalog = _here.get() or _process
    if catalog is not None:
        return catalog
    if "airflow.sdk" in sys.modules:
        current: Catalog = importlib.import_module(_AIRFLOW_SIDE).current_catalog()
        return current
    raise CatalogError(
        "there is no catalog here: catalog.put, load and get_ref work in an Airflow task and in a trial. Elsewhere use "
        "Catalog('/path').put(…), or `with catalog.use(Catalog('/path')):`"
    )


def put(value: Any, name: str | None = None, *, kind: str | None = None) -> CatalogRef:
    """Store `value` in the running task's or trial's folder and return its reference; see `Catalog.put`."""
    return active().put(value, name, kind=kind)


def load(ref: Mapping[str, Any]) -> Any:
    """Return the value of a reference, verified; see `Catalog.load`."""
    return active().load(ref)


def get_ref(name: str, *, task_id: str | None = None, map_index: int = -1) -> CatalogRef:
    """Return the reference of what was put under `name` in this run; see `Catalog.get_ref`."""
    return active().get_ref(name, task_id=task_id, map_index=map_index)
