"""A line in the driver's log for each trial that fails: its error, and where the whole traceback is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ray.tune.experiment import Trial

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.runtime.failures import told_by_ray
from airflow_provider_raynode.runtime.relay import without_colours
from airflow_provider_raynode.runtime.worker import failure_uri
from airflow_provider_raynode.runtime.worker_log import WorkerLog
from airflow_provider_raynode.spec import NodeFailure

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
        uri = failure_uri(self._attempt, trial.trial_id)
        try:
            failure, written = NodeFailure.from_bytes(self._attempt.read_bytes(uri)), True
        except (CatalogError, SpecError):  # its process died, and left nothing
            reports = int((trial.last_result or {}).get("training_iteration") or 0)
            failure, written = told_by_ray(_text_of(trial), trial.trial_id, reports), False
        with suppress(CatalogError):
            if again:  # what comes of the next try must not be taken for this
                kept = f"{uri.removesuffix('.json')}_{trial.num_failures}.json"
                self._attempt.write_bytes(kept, failure.to_bytes())
                if written:
                    self._attempt.delete(uri)
                uri = kept
            elif not written:
                self._attempt.write_bytes(uri, failure.to_bytes())
        error = " ".join(f"{failure.type}: {failure.message}".split())
        if len(error) > _LONGEST:
            error = f"{error[:_LONGEST]} …"
        what = "failed, and is tried again" if again else "failed"
        self._workers.after(trial.trial_id, f"[{trial.trial_id}] {what}: {error} (traceback: {uri})")


def _text_of(trial: Trial) -> str | None:
    """Return Ray's own account: it lies on this machine first, and in the catalog some time later."""
    try:
        data = Path(trial.error_file).read_bytes()
    except (OSError, TypeError):
        return None
    return without_colours(data).decode("utf-8", "replace")
