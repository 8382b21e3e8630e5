"""Loading of a node's inputs: each reference once, however often it stands in op_kwargs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef

log = logging.getLogger(__name__)


def load_inputs(op_kwargs: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return op_kwargs with every reference, in any depth, replaced by its data.

    :raises CatalogError: an object is gone, altered, or not to be trusted.
    """
    loaded: dict[str, Any] = {}

    def resolve(value: Any) -> Any:
        if CatalogRef.is_ref(value):
            key = f"{value['kind']}:{value['sha256']}:{value['uri']}"
            if key not in loaded:
                log.info("Loading %s (%s, %d bytes)", value["uri"], value["kind"], value["size"])
                loaded[key] = catalog.load(value)
            return loaded[key]
        if isinstance(value, dict):
            return {name: resolve(item) for name, item in value.items()}
        if isinstance(value, list):
            return [resolve(item) for item in value]
        return value

    return {name: resolve(value) for name, value in op_kwargs.items()}
