"""The settings file of the export (`--settings argo.yaml`) as pydantic models."""

from __future__ import annotations

from airflow_provider_raynode.argo.settings.dag_source import DagSource
from airflow_provider_raynode.argo.settings.pod import PodOverrides, PodSettings
from airflow_provider_raynode.argo.settings.workflow import ArgoSettings

__all__ = ["ArgoSettings", "DagSource", "PodOverrides", "PodSettings"]
