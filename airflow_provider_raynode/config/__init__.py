"""RayConfig: the config file of a Ray node as pydantic models. Pure: neither Airflow nor Ray is imported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config._yaml import read_yaml
from airflow_provider_raynode.config.ray_config import RayConfig

if TYPE_CHECKING:
    from airflow_provider_raynode.config.cluster import CatalogSection, RayCluster
    from airflow_provider_raynode.config.libraries import MissingLibrary
    from airflow_provider_raynode.config.ray_map import RayMap
    from airflow_provider_raynode.config.resources import Resources
    from airflow_provider_raynode.config.runtime_env import Container, RuntimeEnv, RuntimeEnvConfig
    from airflow_provider_raynode.config.train import RayTrain
    from airflow_provider_raynode.config.tune import Checkpoint, Failure, RayTune

__all__ = [
    "CatalogSection",
    "Checkpoint",
    "Container",
    "Failure",
    "MissingLibrary",
    "RayCluster",
    "RayConfig",
    "RayMap",
    "RayTrain",
    "RayTune",
    "Resources",
    "RuntimeEnv",
    "RuntimeEnvConfig",
    "read_yaml",
]

# What most configs do without is imported at its first use.
_LATER = {
    "cluster": ("CatalogSection", "RayCluster"),
    "libraries": ("MissingLibrary",),
    "ray_map": ("RayMap",),
    "resources": ("Resources",),
    "runtime_env": ("Container", "RuntimeEnv", "RuntimeEnvConfig"),
    "train": ("RayTrain",),
    "tune": ("Checkpoint", "Failure", "RayTune"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
