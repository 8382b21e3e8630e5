"""The Airflow side of the catalog: which one a task uses, and Airflow connections for remote storage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError


def default_uri() -> str:
    """Return the catalog of this Airflow: `[raynode] catalog`, or the folder `raynode_catalog` in AIRFLOW_HOME."""
    from airflow.sdk.configuration import conf

    configured = conf.get("raynode", "catalog", fallback="").strip()
    if configured:
        return str(configured)
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    return str(Path(home).expanduser().absolute() / "raynode_catalog")


def catalog_for(uri: str | None = None) -> Catalog:
    """Return the catalog at `uri`, default the catalog of this Airflow.

    `s3://conn_id@bucket/prefix` reads and writes with that Airflow connection; the references that come out hold no
    connection id, so that a worker uses credentials of its own for them.

    :raises CatalogError: the URI is not one, or its driver is not installed.
    """
    plain, conn_id = _split(uri or default_uri())
    default_plain, default_conn = _split(default_uri())
    if conn_id is None and (plain == default_plain or plain.startswith(f"{default_plain}/")):
        conn_id = default_conn
    filesystem = None if conn_id is None else _filesystem(plain, conn_id)
    return Catalog(plain, filesystem=filesystem, trusted=_trusted())


def current_catalog() -> Catalog:
    """Return the catalog of the running task: the default catalog, at the task's folder.

    :raises CatalogError: no task runs here.
    """
    from airflow.sdk import get_current_context

    try:
        task_instance = get_current_context()["ti"]
    except RuntimeError as error:
        raise CatalogError(
            "there is no catalog here: catalog.put, load and get_ref work inside a running Airflow task, not while the "
            "DAG file is parsed"
        ) from error
    catalog = catalog_for()
    index = task_instance.map_index
    prefix = catalog.node_prefix(
        task_instance.dag_id, task_instance.run_id, task_instance.task_id, -1 if index is None else index
    )
    return catalog.at(prefix)


def _trusted() -> tuple[str, ...]:
    from airflow.sdk.configuration import conf

    listed = conf.get("raynode", "trusted_catalogs", fallback="")
    return tuple(_split(each.strip())[0] for each in listed.split(",") if each.strip())


def _split(uri: str) -> tuple[str, str | None]:
    """Return the URI without its connection id, and the id."""
    if "://" not in uri:
        return uri.rstrip("/") or "/", None
    parts = urlsplit(uri)
    conn_id, mark, host = parts.netloc.rpartition("@")
    plain = f"{parts.scheme}://{host}{parts.path}".rstrip("/")
    return plain, conn_id if mark else None


def _filesystem(uri: str, conn_id: str) -> Any:
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(uri, conn_id=conn_id).fs
    except (ImportError, ValueError) as error:
        protocol = uri.partition("://")[0]
        raise CatalogError(
            f"{uri}: Airflow has no filesystem for {protocol}:// here ({error}): install the provider of that storage, "
            "e.g. apache-airflow-providers-amazon with s3fs"
        ) from error
