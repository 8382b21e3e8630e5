"""What an earlier search found, for one that begins with it: read from its trials table."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.space_tree import SpaceTree
from airflow_provider_raynode.exceptions import CatalogError, ConfigError
from airflow_provider_raynode.runtime.completion import EARLY_STOPPED, FINISHED
from airflow_provider_raynode.runtime.tables import CONFIG_COLUMN, metric_column

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_KEY = "ray_tune.warm_start.trials"


@dataclass(frozen=True)
class EarlierTrial:
    """A trial of an earlier search: its hyperparameters, in the order and types of the table, and its metric."""

    config: dict[str, Any]
    value: float


def earlier_trials(config: RayConfig, catalog: Catalog) -> list[EarlierTrial]:
    """Return the trials of `ray_tune.warm_start` that lie in the search space, the best first; empty without one.

    Trials that failed, were cut off or have no finite metric are left out.

    :raises ConfigError: the table cannot be read, is not one of a node, or none of its trials lies in the space.
    """
    search = config.ray_tune
    if search is None or search.warm_start is None or search.metric is None:
        return []
    frame = _read(search.warm_start.trials, catalog)
    metric = metric_column(search.metric)
    for column in (CONFIG_COLUMN, "status", metric):
        if column not in frame.columns:
            raise ConfigError(
                f"{_KEY}: the table has no column {column!r}: it is not a trials table of this package, or its search "
                f"had another metric; its columns are {', '.join(map(str, frame.columns))}"
            )
    tree = SpaceTree(config.search_space)
    ended = list(_rows(frame, metric))
    found = [trial for trial in ended if _lies_in(tree, trial.config)]
    if not found:
        raise ConfigError(
            f"{_KEY}: none of the {len(ended)} trials that ended with a finite {search.metric!r} lies in "
            "ray_tune.search_space: leave warm_start out, or take the space of the earlier search"
        )
    log.info("Beginning with %d of the %d trials of an earlier search", len(found), len(ended))
    return sorted(found, key=lambda trial: trial.value, reverse=search.mode == "max")


def _read(trials: str | dict[str, Any], catalog: Catalog) -> pd.DataFrame:
    import pandas as pd

    try:
        if isinstance(trials, dict):
            frame = catalog.load(trials)
        else:
            frame = pd.read_parquet(io.BytesIO(Catalog(trials.rpartition("/")[0]).read_bytes(trials)))
    except (CatalogError, ValueError, OSError) as error:
        raise ConfigError(f"{_KEY}: {error}") from error
    if not isinstance(frame, pd.DataFrame):
        raise ConfigError(f"{_KEY}: it is a {type(frame).__name__}, not a table: take the reference `trials` of a node")
    return frame


def _rows(frame: pd.DataFrame, metric: str) -> Iterator[EarlierTrial]:
    for _, row in frame.iterrows():
        value = row[metric]
        if row["status"] in (FINISHED, EARLY_STOPPED) and isinstance(value, int | float) and math.isfinite(value):
            yield EarlierTrial(json.loads(row[CONFIG_COLUMN]), float(value))


def _lies_in(tree: SpaceTree, config: dict[str, Any]) -> bool:
    point = tree.point(config)
    return not point.problems and not point.missing
