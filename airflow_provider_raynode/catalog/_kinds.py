"""The registry of kinds."""

from __future__ import annotations

import difflib
from typing import Any

from airflow_provider_raynode.catalog._base import Serializer
from airflow_provider_raynode.catalog._json import JsonSerializer
from airflow_provider_raynode.catalog._numpy import NumpySerializer
from airflow_provider_raynode.catalog._parquet import ParquetSerializer
from airflow_provider_raynode.catalog._path import DirectorySerializer, FileSerializer
from airflow_provider_raynode.catalog._pickled import PickledSerializer
from airflow_provider_raynode.exceptions import CatalogError

# Asked from the end: the pickle takes what no other kind holds.
_serializers: dict[str, Serializer] = {
    each.kind: each
    for each in (
        PickledSerializer(),
        JsonSerializer(),
        DirectorySerializer(),
        FileSerializer(),
        ParquetSerializer(),
        NumpySerializer(),
    )
}


def register_serializer(serializer: Serializer) -> None:
    """Add a kind, or replace the one of the same name; register it in every process that puts or loads it."""
    _serializers.pop(serializer.kind, None)
    _serializers[serializer.kind] = serializer


def serializer_of(kind: str) -> Serializer:
    """Return the serializer of a kind.

    :raises CatalogError: no such kind here.
    """
    try:
        return _serializers[kind]
    except KeyError:
        near = difflib.get_close_matches(kind, _serializers, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise CatalogError(
            f"unknown kind {kind!r}{hint}; known here: {', '.join(sorted(_serializers))}. A kind of your own must be "
            "registered with register_serializer in this process too"
        ) from None


def serializer_for(value: Any) -> Serializer:
    """Return the serializer that holds `value` best."""
    return next(each for each in reversed(list(_serializers.values())) if each.accepts(value))
