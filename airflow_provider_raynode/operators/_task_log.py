"""How far a job's log has been shown in the task's log: kept with the attempt, for whoever goes on showing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_raynode.exceptions import CatalogError

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.spec import JobRef


def read_offset(job: JobRef, catalog: Catalog) -> int:
    """Return the number of bytes that were shown, 0 where nobody has kept it."""
    try:
        kept = json.loads(catalog.read_bytes(_uri(job)))
        return int(kept["offset"])
    except (CatalogError, ValueError, KeyError, TypeError):
        return 0


def write_offset(job: JobRef, catalog: Catalog, offset: int) -> None:
    """Keep the number of bytes that were shown.

    :raises CatalogError: it cannot be written.
    """
    catalog.write_bytes(_uri(job), json.dumps({"offset": offset}).encode())


def _uri(job: JobRef) -> str:
    return f"{job.attempt_prefix}/task_log.json"
