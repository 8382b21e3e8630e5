"""RayConfig: the config file of a Ray node as pydantic models. Pure: neither Airflow nor Ray is imported."""

from __future__ import annotations

from airflow_provider_raynode.config._yaml import read_yaml
from airflow_provider_raynode.config.cluster import (
    CatalogSection,
    Container,
    RayCluster,
    Resources,
    RuntimeEnv,
    RuntimeEnvConfig,
)
from airflow_provider_raynode.config.libraries import MissingLibrary
from airflow_provider_raynode.config.ray_config import RayConfig
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
    "RayTrain",
    "RayTune",
    "Resources",
    "RuntimeEnv",
    "RuntimeEnvConfig",
    "read_yaml",
]
