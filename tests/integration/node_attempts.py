"""A staged node whose attempts run as child processes, each of which can be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from staged import result_of, stage

from airflow_provider_raynode.launchers.local import LocalLauncher
from airflow_provider_raynode.operators._attempt import as_attempt
from airflow_provider_raynode.spec import NodeProgress, NodeResult, digest


class Node:
    """A staged node whose attempts run as child processes."""

    def __init__(self, root: Path, function: Any, ray_tune: dict[str, Any] | None = None, **options: Any) -> None:
        options.setdefault("resources", {"num_cpus": 1})
        self.job, self.spec, self.catalog = stage(root, function, ray_tune, **options)

    def next_attempt(self, **changes: Any) -> None:
        first = self.spec.search_of or self.spec.attempt
        self.spec = as_attempt(self.spec, self.spec.attempt + 1).model_copy(update={"search_of": first, **changes})
        data = self.spec.to_bytes()
        uri = f"{self.spec.attempt_prefix}/spec.json"
        self.catalog.write_bytes(uri, data)
        self.job = self.job.model_copy(
            update={
                "attempt": self.spec.attempt,
                "submission_id": self.spec.submission_id,
                "spec_uri": uri,
                "spec_sha256": digest(data),
            }
        )

    def progress(self) -> NodeProgress | None:
        uri = f"{self.job.attempt_prefix}/progress.json"
        return NodeProgress.from_bytes(self.catalog.read_bytes(uri)) if self.catalog.exists(uri) else None

    def run(self, *, until: Callable[[], bool] | None = None, number: int = signal.SIGKILL) -> str:
        """Run the attempt to its end, or send its driver a signal once `until` is true; return its log."""
        with LocalLauncher() as launcher:
            launcher.ensure(self.job)
            end = time.monotonic() + 120
            while not launcher.status(self.job).state.ended:
                assert time.monotonic() < end, launcher.read_log(self.job, 0, final=True).text
                if until is not None and until():
                    assert launcher._process is not None
                    os.kill(launcher._process.pid, number)
                    until = None
                time.sleep(0.05)
            return launcher.read_log(self.job, 0, final=True).text

    @property
    def result(self) -> NodeResult:
        return result_of(self.job, self.catalog)
