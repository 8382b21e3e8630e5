"""Every reported step of every trial: kept beside the search's state while it runs, one table at its end."""

from __future__ import annotations

import gzip
import json
import logging
import queue
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.tables import common_kind, flat, frame, kind_of, metric_column
from airflow_provider_raynode.spec import NodeSpec

log = logging.getLogger(__name__)

# trial id, training_iteration, time_total_s, metrics
Step = tuple[str, int, float, dict[str, Any]]

LIMIT = 1_000_000
"""Steps that are kept of a search; of what is reported after them, each trial's last is in the trials table."""

_PART = 2000


class Steps:
    """Collects the steps; full parts go to the catalog, from a thread of their own, the rest is in the search's state.

    A search that goes on after a crash thus has the steps of exactly those trials that its state knows.

    :param catalog: the catalog at the attempt's folder.
    """

    def __init__(self, spec: NodeSpec, catalog: Catalog) -> None:
        self._catalog = catalog
        self._folder = f"{spec.experiment_prefix}/{spec.experiment_name}-steps"
        self._attempt = spec.attempt
        self._parts: list[str] = []
        self._writing: dict[int, list[Step]] = {}
        self._tail: list[Step] = []
        self._kept = 0
        self._left_out = 0
        self._begun = 0
        self._lock = threading.Lock()
        self._queue: queue.Queue[int | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def add(self, trial_id: str, result: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Take a report.

        :param metrics: what the function reported, without what Tune added.
        """
        if self._kept >= LIMIT:
            self._left_out += 1
            return
        self._kept += 1
        step = (trial_id, int(result.get("training_iteration", 0)), float(result.get("time_total_s", 0)), flat(metrics))
        self._tail.append(step)
        if len(self._tail) >= _PART:
            self._begin_part()

    def get_state(self) -> dict[str, Any]:
        """Return where the full parts lie, and the steps that are in none."""
        with self._lock:
            unwritten = [step for number in sorted(self._writing) for step in self._writing[number]]
            return {
                "parts": list(self._parts),
                "tail": unwritten + self._tail,
                "kept": self._kept,
                "left_out": self._left_out,
                "begun": self._begun,
            }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on after the steps of an earlier attempt."""
        self._parts, self._tail = list(state["parts"]), list(state["tail"])
        self._kept, self._left_out, self._begun = state["kept"], state["left_out"], state["begun"]

    def close(self) -> None:
        """Wait until the full parts are written."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=60)
            self._thread = None

    def write(self, trial_ids: Collection[str]) -> tuple[CatalogRef | None, str | None]:
        """Write `steps.parquet`; return its reference, None where nothing was reported, and a warning.

        A step that was run again, after a crash or from an older checkpoint, stands in it once, as last reported.

        :param trial_ids: the trials of the search: those that a retry has replaced are left out.
        """
        import pandas as pd

        self.close()
        known = set(trial_ids)
        kept, kinds = self._kept_steps(known)
        if not kept:
            return None, None
        frames, number = [], 0
        for part in self._all_parts():
            rows = []
            for step in part:
                if number in kept:
                    rows.append(_row(step))
                number += 1
            if rows:
                frames.append(frame(rows, kinds))
        table = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        warning = None
        if self._left_out:
            warning = (
                f"the steps table holds the first {self._kept} steps of {self._kept + self._left_out}: more are not "
                "kept; the last step of each trial is in the trials table"
            )
        return self._catalog.put(table, "steps", kind="parquet"), warning

    def remove_parts(self) -> None:
        """Remove the parts, where nobody will go on with the search."""
        if self._parts:
            with suppress(CatalogError):
                self._catalog.delete(self._folder)

    def _kept_steps(self, known: set[str]) -> tuple[set[int], dict[str, str]]:
        """Return the numbers of the steps that stand, and the types of the columns."""
        standing: dict[str, list[tuple[int, int]]] = {}
        kinds: dict[str, set[str]] = {}
        number = 0
        for part in self._all_parts():
            for trial_id, iteration, _, _ in part:
                if trial_id in known:
                    own = standing.setdefault(trial_id, [])
                    while own and own[-1][0] >= iteration:
                        own.pop()
                    own.append((iteration, number))
                number += 1
            for step in part:
                if step[0] in known:
                    for name, value in _row(step).items():
                        kinds.setdefault(name, set()).add(kind_of(value))
        return (
            {number for own in standing.values() for _, number in own},
            {name: common_kind(found) for name, found in kinds.items()},
        )

    def _all_parts(self) -> Iterator[list[Any]]:
        for uri in self._parts:
            try:
                yield json.loads(gzip.decompress(self._catalog.read_bytes(uri)))
            except (CatalogError, OSError, ValueError) as error:
                log.warning("Some steps of an earlier attempt cannot be read: %s", error)
        for number in sorted(self._writing):
            yield self._writing[number]
        yield self._tail

    # -- full parts ----------------------------------------------------------------------------------------------------

    def _begin_part(self) -> None:
        with self._lock:
            self._begun += 1
            self._writing[self._begun] = self._tail
            self._tail = []
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="raynode-steps", daemon=True)
            self._thread.start()
        self._queue.put(self._begun)

    def _run(self) -> None:
        while self._queue.get() is not None:
            # In their order: the steps of one trial follow each other.
            for number in sorted(self._writing):
                uri = f"{self._folder}/part-{self._attempt}-{number:06}.json.gz"
                try:
                    data = json.dumps(self._writing[number]).encode()
                    self._catalog.write_bytes(uri, gzip.compress(data, compresslevel=1))
                except CatalogError:
                    break  # it stays in the state, and is tried again with the next one
                with self._lock:
                    self._parts.append(uri)
                    del self._writing[number]


def _row(step: Any) -> dict[str, Any]:
    trial_id, iteration, seconds, metrics = step
    named = {metric_column(name): value for name, value in metrics.items()}
    return {"trial_id": trial_id, "training_iteration": iteration, "time_total_s": seconds, **named}
