"""Delivery of a node's secrets to the job of an attempt: the ciphertext in the catalog, the key with the job."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.operators._secrets import parse_secrets, read_secrets
from airflow_provider_raynode.runtime.secrets import KEY_VARIABLE, seal
from airflow_provider_raynode.spec import SECRETS_FILE_VARIABLE

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.spec import NodeSpec


def deliver_secrets(spec: NodeSpec, node: Catalog) -> Mapping[str, str]:
    """Write the secrets of an attempt, encrypted with a fresh key, and return the environment that leads to them.

    The file has a name of its own at each call: of two processes that submit one job, only one is the job's, and
    neither must spoil the other's.

    :raises ConfigError: a connection or variable is not defined, or they are too large.
    """
    if not spec.secrets:
        return {}
    data, key = seal(read_secrets(parse_secrets(spec.secrets)), spec.submission_id)
    name = f"secrets-{secrets.token_hex(8)}.bin"
    node.write_bytes(f"{spec.attempt_prefix}/{name}", data)
    return {SECRETS_FILE_VARIABLE: name, KEY_VARIABLE: key}


def delete_secrets(spec: NodeSpec, node: Catalog) -> None:
    """Delete what is left of an attempt's secrets: its driver does so at its end, unless it was killed."""
    if not spec.secrets:
        return
    with suppress(CatalogError):
        for uri in node.list(spec.attempt_prefix):
            if uri.rpartition("/")[2].startswith("secrets-"):
                node.delete(uri)
