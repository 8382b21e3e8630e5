"""The catalog: data by reference. `put` in a task, a CatalogRef through XCom, `load` anywhere. No airflow, no ray.

Example::

    ref = catalog.put(frame)         # a small JSON dict: return it from a task
    frame = catalog.load(ref)        # in another task, or on a worker; verified by its digest
"""

from __future__ import annotations

from airflow_provider_raynode.catalog._active import active, get_ref, load, put, set_active, use
from airflow_provider_raynode.catalog._base import Serializer
from airflow_provider_raynode.catalog._kinds import register_serializer
from airflow_provider_raynode.catalog._layout import safe_segment
from airflow_provider_raynode.catalog._ref import CatalogRef
from airflow_provider_raynode.catalog._store import Catalog

__all__ = [
    "Catalog",
    "CatalogRef",
    "Serializer",
    "active",
    "get_ref",
    "load",
    "put",
    "register_serializer",
    "safe_segment",
    "set_active",
    "use",
]
