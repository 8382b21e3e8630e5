"""The class of Ray that a config names, and the seeds of the libraries that take none."""

from __future__ import annotations

import importlib
import random
from typing import Any

import numpy as np

from airflow_provider_raynode.config._kinds import Kind


def ray_class(kind: Kind) -> Any:
    """Return Ray's class for a scheduler or a search algorithm of the config."""
    module, _, name = kind.ray_class.partition(":")
    return getattr(importlib.import_module(module), name)


def seed_globals(seed: int | None) -> None:
    """Seed Python's and numpy's global generators, from which PBT, Nevergrad, ZOOpt and HpBandSter draw."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)
