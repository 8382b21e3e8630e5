"""Names of metrics on their way through Tune, which keeps its own values beside them. Pure: no airflow, no ray.

A metric whose name Tune uses itself (`done`, `config`, `pid`, …) travels under another key and comes out under its own
name: it neither steers Tune nor is lost.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from airflow_provider_raynode.config.tune import COUNTED

# Key of a Tune result under which a trial's references travel to the driver, as JSON text.
OUTPUTS_KEY = "raynode_outputs"
# Key of a Tune result that is a trial's last: what its function returned.
RETURNED_KEY = "raynode_returned"
_FRONT = "raynode:"

# Tune's counters of a function's trial: a config may name them in `stop`, `time_attr`, `checkpoint_score_attribute`.
COUNTERS = frozenset(
    {
        "iterations_since_restore",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "training_iteration",
    }
)
# Those that the node shows among a trial's metrics: a metric of the function's own cannot have these names.
SHOWN = COUNTED
# What Tune puts into a result or reads from it, apart from the counters.
_TUNES_OWN = frozenset(
    {
        "_metric",
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "episodes_this_iter",
        "episodes_total",
        "experiment_id",
        "experiment_tag",
        "hostname",
        "hyperband_info",
        "node_ip",
        "pid",
        "should_checkpoint",
        "timesteps_since_restore",
        "timesteps_this_iter",
        "timesteps_total",
        "trainable_name",
        "trial_id",
        OUTPUTS_KEY,
        RETURNED_KEY,
    }
)


def is_tunes_own(key: str) -> bool:
    """Whether `key` of a Tune result is Tune's, not a metric of the function."""
    return key in _TUNES_OWN or key in COUNTERS or key.startswith("__")


def travelling(name: str) -> str:
    """Return the key under which the function's metric `name` goes through Tune."""
    return _FRONT + name if is_tunes_own(name) or name.startswith((_FRONT, "config/")) else name


def arrived(key: str) -> str:
    """Return the name that the function gave what `travelling` made `key` of."""
    return key.removeprefix(_FRONT)


def key_of(name: str) -> str:
    """Return the key of a Tune result that a config means by `name`: a counter of Tune's, or a metric."""
    return name if name in COUNTERS else travelling(name)


def reported_in(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the function reported of a Tune result, by its own names, and the counters that the node shows."""
    return {arrived(key): value for key, value in result.items() if key in SHOWN or not is_tunes_own(key)}


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ` (did you mean …?)`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def listed(names: Collection[str]) -> str:
    """Return names for a message: sorted, at most 20, none too long to read."""
    shown = [name if len(name) <= 60 else f"{name[:59]}…" for name in sorted(names)]
    rest = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return (", ".join(shown[:20]) or "nothing") + rest
