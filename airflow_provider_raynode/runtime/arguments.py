"""What a node's function is called with: the function itself, and op_kwargs bound to its arguments by name. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.binding import check_binding, with_parameters
from airflow_provider_raynode.runtime.function import FunctionSource, read_function
from airflow_provider_raynode.spec import NodeSpec


def node_catalog(spec: NodeSpec) -> Catalog:
    """Return the catalog at the node's folder."""
    return Catalog(spec.catalog_uri).at(spec.node_prefix)


def read_call(
    spec: NodeSpec, space: Mapping[str, Any], *, replayed: bool = False
) -> tuple[FunctionSource, dict[str, Any]]:
    """Return the function, and the op_kwargs that it gets, references as they are.

    :param space: the hyperparameters, by their names at the top level.
    :param replayed: see `check_binding`.
    :raises RayNodeError: the function cannot be read, or an argument gets no value, or two.
    """
    source = read_function(spec.function, node_catalog(spec))
    function = source.load()
    op_kwargs = with_parameters(function, space, spec.op_kwargs, spec.context.parameters)
    check_binding(function, space, op_kwargs, replayed=replayed)
    return source, op_kwargs
