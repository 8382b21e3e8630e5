"""The variables in which Airflow looks for a connection or a variable, and a storage's driver for its credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

# What the drivers of a storage read, by the catalog's protocol.
_STORAGE_VARIABLES: dict[str, tuple[str, ...]] = {
    "s3": ("AWS_", "FSSPEC_S3"),
    "gs": ("GOOGLE_", "GCS_", "FSSPEC_GS", "FSSPEC_GCS", "STORAGE_EMULATOR_HOST"),
    "gcs": ("GOOGLE_", "GCS_", "FSSPEC_GS", "FSSPEC_GCS", "STORAGE_EMULATOR_HOST"),
    "az": ("AZURE_", "FSSPEC_A"),
    "abfs": ("AZURE_", "FSSPEC_A"),
}


def connection_variable(conn_id: str) -> str:
    """Return the name of the environment variable of a connection, empty where there is none."""
    return f"AIRFLOW_CONN_{conn_id.upper()}" if conn_id else ""


def variable_variable(key: str) -> str:
    """Return the name of the environment variable of an Airflow variable."""
    return f"AIRFLOW_VAR_{key.upper()}"


def catalog_connection(uri: str | None) -> str:
    """Return the connection that a catalog's URI names (`s3://conn_id@bucket/…`), empty where it names none."""
    return urlsplit(uri).netloc.rpartition("@")[0] if uri and "://" in uri else ""


def storage_prefixes(uri: str | None) -> tuple[str, ...]:
    """Return what the names of the variables begin with in which a catalog's driver looks for its credentials."""
    return _STORAGE_VARIABLES.get((uri or "").partition("://")[0], ())
