"""`progress.json` while the search runs, and one line of it in the job's log now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.spec import NodeProgress

log = logging.getLogger(__name__)

Snapshot = Callable[[], dict[str, Any]]


def eta(elapsed_s: float, done: int, total: int | None) -> float | None:
    """Return the seconds until the last trial ends, if the rest goes as fast as what is done; None before the first."""
    if not done or total is None:
        return None
    return elapsed_s / done * max(total - done, 0)


class ProgressWriter:
    """Writes a snapshot of the search to the catalog once a second, where it has changed, from a thread of its own.

    A slow or failing catalog delays the next snapshot, never the search.
    """

    def __init__(self, catalog: Catalog, uri: str, *, interval_s: float = 1.0) -> None:
        self._catalog = catalog
        self._uri = uri
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._snapshot: Snapshot = dict
        self._written: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self, snapshot: Snapshot) -> None:
        """Write what `snapshot` returns (fields of NodeProgress), from now on."""
        self._snapshot = snapshot
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="raynode-progress", daemon=True)
        self._thread.start()

    def write(self, **fields: Any) -> None:
        """Write one snapshot now, with `fields` over what the search says."""
        with self._lock:
            values = {**self._snapshot(), **fields}
            if values == self._written:
                return
            elapsed = time.monotonic() - self._started
            done = sum(values.get(name, 0) for name in ("terminated", "early_stopped", "errored"))
            progress = NodeProgress.model_validate(
                {
                    **values,
                    "elapsed_s": round(elapsed, 1),
                    "eta_s": values["eta_s"] if "eta_s" in values else eta(elapsed, done, values.get("total")),
                    "updated": datetime.now(UTC),
                }
            )
            try:
                self._catalog.write_bytes(self._uri, progress.to_bytes())
            except CatalogError as error:
                if not self._failed:
                    log.warning("The progress cannot be written: %s", error)
                self._failed = True
                return
            self._written = values

    def stop(self, **fields: Any) -> None:
        """End the thread and write the last snapshot."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with suppress(Exception):
            self.write(**fields)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            with suppress(RuntimeError):  # the search changed a dict under the snapshot: the next one will do
                self.write()
