"""The asynchronous wait for a Ray job, in Airflow's triggerer."""

from airflow_provider_raynode.triggers.ray_job import RayJobTrigger

__all__ = ["RayJobTrigger"]
