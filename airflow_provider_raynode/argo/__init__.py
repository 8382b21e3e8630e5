"""Argo Workflows: the export of a DAG, the runner of its tasks, the offline check.

The public names load at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.export import export_dag_file as export_dag_file
    from airflow_provider_raynode.argo.lint import lint_file as lint_file
    from airflow_provider_raynode.argo.run_task import execute_ray_node as execute_ray_node

_PLACES = {"execute_ray_node": "run_task", "export_dag_file": "export", "lint_file": "lint"}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
