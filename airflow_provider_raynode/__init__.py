"""Ray as one composite node in an Airflow DAG: fan-out, execution, fan-in.

The public names load on first use, so that importing this package, and parsing a DAG file that uses it, imports
neither Ray nor the parts of Airflow that the file does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode import catalog as catalog
    from airflow_provider_raynode.argo.run_task import execute_ray_node as execute_ray_node
    from airflow_provider_raynode.boosting import lightgbm_callback as lightgbm_callback
    from airflow_provider_raynode.boosting import xgboost_callback as xgboost_callback
    from airflow_provider_raynode.catalog import CatalogRef as CatalogRef
    from airflow_provider_raynode.config import RayConfig as RayConfig
    from airflow_provider_raynode.hooks.ray import RayHook as RayHook
    from airflow_provider_raynode.operators.fan_in import RayFanInOperator as RayFanInOperator
    from airflow_provider_raynode.operators.fan_out import RayFanOutOperator as RayFanOutOperator
    from airflow_provider_raynode.operators.submit_job import RaySubmitJobOperator as RaySubmitJobOperator
    from airflow_provider_raynode.operators.task import RayTaskOperator as RayTaskOperator
    from airflow_provider_raynode.operators.train import RayTrainOperator as RayTrainOperator
    from airflow_provider_raynode.operators.tune import RayTuneOperator as RayTuneOperator
    from airflow_provider_raynode.returns import json_value as json
    from airflow_provider_raynode.returns import metric as metric
    from airflow_provider_raynode.returns import pickled as pickled
    from airflow_provider_raynode.runtime.session import context as context
    from airflow_provider_raynode.runtime.session import get_checkpoint as get_checkpoint
    from airflow_provider_raynode.runtime.session import report as report
    from airflow_provider_raynode.task_groups.ray_node import RayNode as RayNode
    from airflow_provider_raynode.task_groups.ray_node import ray_node as ray_node

__version__ = "0.1.0"

_PUBLIC: dict[str, tuple[str, str]] = {
    "CatalogRef": ("catalog", "CatalogRef"),
    "RayConfig": ("config", "RayConfig"),
    "RayFanInOperator": ("operators.fan_in", "RayFanInOperator"),
    "RayFanOutOperator": ("operators.fan_out", "RayFanOutOperator"),
    "RayHook": ("hooks.ray", "RayHook"),
    "RayNode": ("task_groups.ray_node", "RayNode"),
    "RaySubmitJobOperator": ("operators.submit_job", "RaySubmitJobOperator"),
    "RayTaskOperator": ("operators.task", "RayTaskOperator"),
    "RayTrainOperator": ("operators.train", "RayTrainOperator"),
    "RayTuneOperator": ("operators.tune", "RayTuneOperator"),
    "context": ("runtime.session", "context"),
    "execute_ray_node": ("argo.run_task", "execute_ray_node"),
    "get_checkpoint": ("runtime.session", "get_checkpoint"),
    # `json` is public at the package's root only: inside the package the name stays the standard library's.
    "json": ("returns", "json_value"),
    "lightgbm_callback": ("boosting", "lightgbm_callback"),
    "metric": ("returns", "metric"),
    "pickled": ("returns", "pickled"),
    "ray_node": ("task_groups.ray_node", "ray_node"),
    "report": ("runtime.session", "report"),
    "xgboost_callback": ("boosting", "xgboost_callback"),
}

__all__ = ["__version__", "catalog", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "catalog":
        return importlib.import_module(f"{__name__}.catalog")
    try:
        module, attribute = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
