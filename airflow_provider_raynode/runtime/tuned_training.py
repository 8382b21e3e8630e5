"""A trial of a search that is a distributed training: what Tune runs where the config has both sections."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train.v2.api.exceptions import WorkerGroupError

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.failures import TrialError
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.runtime.training.failure import causes, failure_of_rank
from airflow_provider_raynode.runtime.training.in_trial import in_trial
from airflow_provider_raynode.runtime.training.ledger import Failed, Snapshot
from airflow_provider_raynode.runtime.training.rendezvous import Rendezvous
from airflow_provider_raynode.runtime.training.result import failure_of
from airflow_provider_raynode.runtime.training.to_tune import ToTune, TrialOrigin
from airflow_provider_raynode.runtime.training.trainer import build_trainer, set_rays_environment
from airflow_provider_raynode.runtime.training.worker import OfTrial, TrainSetup, folder_of, train
from airflow_provider_raynode.runtime.worker import failure_uri
from airflow_provider_raynode.spec import NodeFailure

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.training.parquet import ParquetRows

# How many times the workers of a trial may fail to start.
_STARTS = 3


@dataclass(frozen=True, kw_only=True)
class TunedSetup(TrainSetup):
    """What every trial shares.

    :param config: the node's.
    :param datasets: those of the trainings, by name.
    :param start_timeout_s: seconds that the workers of a trial may take to start anew; None: without end.
    :param experiment: path of the search's folder on its storage: below it lie the trials' checkpoints.
    """

    further_metrics: tuple[str, ...] = ()
    config: RayConfig
    datasets: Mapping[str, ParquetRows] = field(default_factory=dict)
    start_timeout_s: float | None = None
    experiment: str = ""
    filesystem: Any = None


def trainings(setup: TunedSetup, inputs: Mapping[str, Any]) -> Callable[..., None]:
    """Return the function that Tune runs per trial.

    :param inputs: op_kwargs, loaded: they lie in Ray's object store once, and reach the workers from there.
    """
    datasets, setup = setup.datasets, replace(setup, datasets={})

    def trial(config: dict[str, Any], *, given: tuple[Any, Mapping[str, ParquetRows]]) -> None:
        run_training(config, setup=replace(setup, datasets=given[1]), inputs=given[0])

    # Not the reference itself, which Tune would resolve in the trial's own process.
    given = (ray.put(dict(inputs)) if inputs else None, datasets)
    trainable: Callable[..., None] = tune.with_parameters(trial, given=given)
    return trainable


def run_training(config: dict[str, Any], *, setup: TunedSetup, inputs: Any) -> None:
    """Run one trial: its workers, whose reports go on to Tune.

    :param config: the hyperparameters that Tune chose.
    :param inputs: reference in the object store of op_kwargs.
    """
    trial = OfTrial(tune.get_context().get_trial_id(), config, setup.further_metrics)
    with tagged(trial.trial_id):
        _run(trial, setup, inputs)


def _run(trial: OfTrial, setup: TunedSetup, inputs: Any) -> None:
    set_rays_environment()
    catalog = setup.catalog()
    told = ToTune(trial.trial_id, TrialOrigin.found(trial.trial_id))
    section = setup.config.ray_train
    assert section is not None
    rendezvous = Rendezvous(report_timeout_s=section.report_timeout_s, start_timeout_s=setup.start_timeout_s)
    trainer = build_trainer(
        _for_a_trial(setup.config),
        partial(train, setup, inputs, trial),
        # Each start of the trial has a folder of its own: of what one left half, nothing gets into the next.
        name=f"training-{secrets.token_hex(4)}",
        storage_path=f"{setup.experiment}/{trial.trial_id}",
        storage_filesystem=setup.filesystem,
        callbacks=[rendezvous, told],
        datasets=setup.datasets,
        base=in_trial,
    )
    try:
        result = trainer.fit()
    except Exception as error:
        failure = _failure(error, catalog, trial, told)
        with suppress(CatalogError):  # the trial's own error is the one to see
            catalog.write_bytes(failure_uri(catalog, trial.trial_id), failure.to_bytes())
        raise TrialError(f"{failure.type}: {failure.message}") from None
    told.returned(result.return_value)


def _for_a_trial(config: RayConfig) -> RayConfig:
    """Return the config for Ray Train.

    It removes no checkpoint: they are Tune's, which another trial may get. And it does not try without end to start the
    workers, whose place is reserved, where the author does not say otherwise.
    """
    section = config.ray_train
    assert section is not None
    update: dict[str, Any] = {"checkpoint": section.checkpoint.model_copy(update={"num_to_keep": None})}
    if section.failure.controller_failure_limit is None:
        update["failure"] = section.failure.model_copy(update={"controller_failure_limit": _STARTS})
    return config.model_copy(update={"ray_train": section.model_copy(update=update)})


def _failure(error: BaseException, catalog: Catalog, trial: OfTrial, told: ToTune) -> NodeFailure:
    """Return why the trial failed: the error of the rank that failed first, or the controller's."""
    ranks = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    failed = tuple(
        Failed(rank, told.workers[rank], failure_of_rank(rank, each), causes(rank, each), 1)
        for rank, each in ranks.items()
    )
    seen = Snapshot(last=told.last, world_size=len(told.workers), failures=failed)
    failure = failure_of(error, seen, folder_of(catalog, trial))
    return failure.model_copy(update={"trial_id": trial.trial_id})
