"""Settings for tests that look at something else than the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_raynode.argo.settings import ArgoSettings


def loaded(said: Any) -> ArgoSettings:
    """Return the settings; their runs claim no volume for the catalog, which a file in the image names."""
    if isinstance(said, Mapping):
        said = {"configuration_file": "/etc/raynode.yaml", **said}
    return ArgoSettings.load(said)
