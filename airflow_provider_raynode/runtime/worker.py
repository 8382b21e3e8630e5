"""One trial on a worker: bind, call, report. The trainable that Tune runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.call import CallSetup, call, secrets_of
from airflow_provider_raynode.runtime.checkpoints import checkpoint_folder, origin_in, origin_of
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, arrived
from airflow_provider_raynode.runtime.references import Reference, ReportCheck
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.runtime.trial import Origin, Trial
from airflow_provider_raynode.spec import NodeFailure


@dataclass(frozen=True, kw_only=True)
class TrialSetup(CallSetup):
    """What every trial of a node shares; it travels with the trainable, once per worker process."""

    metric: str
    further_metrics: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()


def run_trial(config: dict[str, Any], *, setup: TrialSetup, inputs: Mapping[str, Any]) -> None:
    """Run the node's function with one set of hyperparameters.

    :param config: the hyperparameters that Tune chose.
    :param setup: what the trials share.
    :param inputs: op_kwargs with their references loaded; NumPy arrays in it share the node's memory, read-only.
    """
    trial_id = tune.get_context().get_trial_id()
    with tagged(trial_id):
        _run_trial(trial_id, config, setup, inputs)


def _run_trial(trial_id: str, config: dict[str, Any], setup: TrialSetup, inputs: Mapping[str, Any]) -> None:
    catalog = setup.catalog()
    trial = Trial(
        trial_id=trial_id,
        run=setup.run,
        attempt=setup.attempt,
        catalog=catalog.child(f"trials/{trial_id}"),
        store=catalog.child(_outputs_of(trial_id, setup.driver)),
        returns=setup.returns,
        metric=setup.metric,
        further_metrics=setup.further_metrics,
        secrets=secrets_of(setup, catalog),
        send=partial(_send, trial_id),
        check=ReportCheck(setup.references),
        origin=_origin(),
    )

    def record(failure: NodeFailure) -> None:
        with suppress(CatalogError):  # the trial's own error is the one to see
            catalog.write_bytes(failure_uri(catalog, trial_id), failure.to_bytes())

    call(setup, trial, config, inputs, record=record, trial_id=trial_id)


def _outputs_of(trial_id: str, driver: int) -> str:
    """Return the folder of a trial's outputs: those of a driver that was cut off, and runs on, are not in the way."""
    return f"outputs/{trial_id}" if driver == 1 else f"outputs/{trial_id}/driver_{driver}"


def failure_uri(attempt: Catalog, trial_id: str) -> str:
    """Return where a failing trial leaves its error, below the attempt's folder."""
    return f"{attempt.prefix_uri}/trials/{trial_id}/error.json"


def _origin() -> Origin | None:
    """Return what the trial goes on from, None where it begins."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    try:
        return Origin(**json.loads(origin_of(checkpoint) or b""))
    except (ValueError, TypeError):
        return Origin()


def _send(trial_id: str, metrics: dict[str, Any], checkpoint: Any) -> None:
    if checkpoint is None:
        tune.report(metrics)
        return
    own = {arrived(key): value for key, value in metrics.items() if key not in (OUTPUTS_KEY, RETURNED_KEY)}
    text = json.dumps({"trial_id": trial_id, "metrics": own})
    with checkpoint_folder(checkpoint) as folder, origin_in(folder, text):
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(folder)))
