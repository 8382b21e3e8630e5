"""The table of a training's counted reports: kept with its checkpoints, read back without a gap and without a double.

Imports no Ray.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.tables import flat, frame, metric_column

log = logging.getLogger(__name__)

LIMIT = 1_000_000
"""Reports that are kept of a training."""

# Rows of a part; the last part is written anew with each checkpoint.
_PART = 1000

Step = tuple[int, float, dict[str, Any]]


class StepLog:
    """The steps of one driver, written below its folder.

    :param catalog: the catalog, at any folder.
    :param folder: URI of the driver's folder.
    """

    def __init__(self, catalog: Catalog, folder: str) -> None:
        self._catalog = catalog
        self._folder = folder
        self._part: list[Step] = []
        self._number = 1
        self._new: list[Step] = []
        self._kept = 0

    def add(self, step: int, seconds: float, metrics: Mapping[str, Any]) -> None:
        """Take a report."""
        if self._kept + len(self._new) < LIMIT:
            self._new.append((step, seconds, flat(metrics)))

    def forget(self) -> None:
        """Forget what was added since the last `flush`: it is reported again."""
        self._new.clear()

    def flush(self) -> None:
        """Write what was added."""
        self._kept += len(self._new)
        new, self._new = self._new, []
        while new:
            room = _PART - len(self._part)
            self._part += new[:room]
            new = new[room:]
            data = gzip.compress(json.dumps(self._part).encode(), compresslevel=1)
            self._catalog.write_bytes(f"{self._folder}/steps-{self._number:06}.json.gz", data)
            if len(self._part) >= _PART:
                self._number += 1
                self._part = []


def read_steps(catalog: Catalog, folders: Sequence[str]) -> list[Step]:
    """Return the steps of several drivers, in the order in which they worked: each step once, as last reported."""
    steps: list[Step] = []
    for folder in folders:
        for uri in sorted(catalog.list(folder)):
            if not uri.endswith(".json.gz"):
                continue
            try:
                part = json.loads(gzip.decompress(catalog.read_bytes(uri)))
            except (CatalogError, OSError, ValueError) as error:
                log.warning("Some steps of the training cannot be read: %s", error)
                continue
            for step, seconds, metrics in part:
                while steps and steps[-1][0] >= step:
                    steps.pop()
                steps.append((step, seconds, metrics))
    return steps


def write_steps(catalog: Catalog, steps: Sequence[Step]) -> CatalogRef | None:
    """Write `steps.parquet`; return its reference, None where nothing was reported."""
    if not steps:
        return None
    rows = [
        {
            "training_iteration": step,
            "time_total_s": seconds,
            **{metric_column(name): value for name, value in metrics.items()},
        }
        for step, seconds, metrics in steps
    ]
    return catalog.put(frame(rows), "steps", kind="parquet")
