"""What Airflow's provider manager reads of this package."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the shape of Airflow's `provider.yaml` runtime schema."""
    return {"package-name": "airflow-provider-raynode", "name": "Ray node", "description": "Ray as one composite node", "versions": ["0.1.0"]}
