"""A line in the driver's log for each trial that fails: its error, and where the whole traceback is."""

from __future__ import annotations

from contextlib import suppress

from ray.tune.experiment import Trial

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.collect import _failure
from airflow_provider_raynode.runtime.worker import failure_uri
from airflow_provider_raynode.runtime.worker_log import WorkerLog

_LONGEST = 500


class Teller:
    """Tells of failed trials, each after its own last lines.

    :param attempt: the catalog at the attempt's folder.
    :param workers: the log that the lines go to.
    """

    def __init__(self, attempt: Catalog, workers: WorkerLog) -> None:
        self._attempt = attempt
        self._workers = workers

    def __call__(self, trial: Trial, again: bool) -> None:
        """Tell that `trial` has failed, and whether it is tried again."""
        failure = _failure(trial, self._attempt)
        uri = failure_uri(self._attempt, trial.trial_id)
        with suppress(CatalogError):
            if not self._attempt.exists(uri):  # its worker died, and left nothing
                self._attempt.write_bytes(uri, failure.to_bytes())
        error = " ".join(f"{failure.type}: {failure.message}".split())
        if len(error) > _LONGEST:
            error = f"{error[:_LONGEST]} …"
        what = "failed, and is tried again" if again else "failed"
        self._workers.after(trial.trial_id, f"[{trial.trial_id}] {what}: {error} (traceback: {uri})")
