"""A worker of a training: the node's function as the one that Ray Train runs on each rank."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import TrainContext, get_train_context
from ray.train.v2._internal.execution.train_fn_utils import DistributedTrainFnUtils, set_train_fn_utils

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.call import CallSetup, call, secrets_of
from airflow_provider_raynode.runtime.checkpoints import checkpoint_folder
from airflow_provider_raynode.runtime.noise import quiet_train
from airflow_provider_raynode.runtime.references import Reference, ReportCheck
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.runtime.training.rank import taking_part
from airflow_provider_raynode.runtime.training.session import ENDING_KEY, OBJECT_KEY, TrainingSession
from airflow_provider_raynode.runtime.training.shards import shard, with_shards
from airflow_provider_raynode.runtime.training.state import Origin
from airflow_provider_raynode.runtime.training.trial_rank import TrialRankSession
from airflow_provider_raynode.spec import NodeFailure


@dataclass(frozen=True, kw_only=True)
class TrainSetup(CallSetup):
    """What every rank of a node shares; it travels with the function, once per machine."""

    metric: str | None = None
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class OfTrial:
    """Whose the training is, where it is a trial of a search.

    :param config: its hyperparameters.
    """

    trial_id: str
    config: Mapping[str, Any]
    further_metrics: tuple[str, ...] = ()


# What this process's rank goes on from, as the controller says.
_origin = Origin()
# Names the checkpoints of this start of the workers: what an earlier start left half is never added to.
_token = secrets.token_hex(4)


def begin_with(origin: Origin) -> None:
    """Take what this process's rank goes on from; Ray has just told it which rank it is."""
    global _origin
    run_config: Any = get_train_context().train_run_context.run_config
    quiet_train(run_config.logging_config.log_level)
    _origin = origin


def train(setup: TrainSetup, inputs: Any, trial: OfTrial | None = None) -> dict[str, Any] | None:
    """Run the node's function as this process's rank; return rank 0's last report.

    :param inputs: reference in the object store of op_kwargs with their own references loaded.
    :param trial: the trial that the training is.
    """
    context = get_train_context()
    rank = context.get_world_rank()
    with tagged(tag_of(rank, trial)), taking_part(after=_origin.last.step) as part:
        catalog = setup.catalog()
        session = _session(setup, context, catalog, trial)
        set_train_fn_utils(_NodeTrainFnUtils(session))
        worker = ray.get_runtime_context().get_actor_id() or ""

        def record(failure: NodeFailure) -> None:
            part.told(failure)
            with suppress(CatalogError):  # the rank's own error is the one to see
                catalog.write_bytes(failure_uri(folder_of(catalog, trial), rank, worker), failure.to_bytes())

        loaded: Mapping[str, Any] = {} if inputs is None else with_shards(ray.get(inputs))
        config = {} if trial is None else trial.config
        trial_id = None if trial is None else trial.trial_id
        returned: dict[str, Any] | None = call(
            setup, session, config, loaded, record=record, trial_id=trial_id, rank=rank
        )
        if part.ending is None:
            return returned
    # It was stopped at a report, with every other rank, whatever its function made of that.
    return None if rank else {**session.ended(), ENDING_KEY: part.ending}


def tag_of(rank: int, trial: OfTrial | None = None) -> str:
    """Return how the lines of a rank are tagged in the log."""
    return f"rank {rank}" if trial is None else f"{trial.trial_id} rank {rank}"


def folder_of(attempt: Catalog, trial: OfTrial | None) -> Catalog:
    """Return the catalog at the folder of the training: the attempt's, or a trial's below it."""
    return attempt if trial is None else attempt.child(f"trials/{trial.trial_id}")


def failure_uri(training: Catalog, rank: int, worker: str) -> str:
    """Return where a failing rank leaves its error, below the training's folder.

    :param worker: id of its worker: each start of the workers has its own.
    """
    return f"{training.prefix_uri}/ranks/{rank}/error-{worker[:16]}.json"


def _session(setup: TrainSetup, context: TrainContext, catalog: Catalog, trial: OfTrial | None) -> TrainingSession:
    rank = context.get_world_rank()
    kind: Any = TrainingSession
    outputs = "outputs"
    if trial is not None:
        outputs = f"outputs/{trial.trial_id}"
        kind = partial(TrialRankSession, trial_id=trial.trial_id, further_metrics=trial.further_metrics)
    session: TrainingSession = kind(
        run=setup.run,
        attempt=setup.attempt,
        catalog=folder_of(catalog, trial).child(f"ranks/{rank}"),
        store=catalog.child(outputs if setup.driver == 1 else f"{outputs}/driver_{setup.driver}"),
        returns=setup.returns,
        secrets=secrets_of(setup, catalog),
        rank=rank,
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        node_rank=context.get_node_rank(),
        metric=setup.metric,
        send=_Sender(context, rank),
        find=lambda: _checkpoint_of(context),
        shards=shard,
        check=ReportCheck(setup.references),
        origin=_origin,
    )
    return session


def _checkpoint_of(context: TrainContext) -> Checkpoint | None:
    """Return what the rank goes on from: Ray's, or the checkpoint of an earlier driver, which Ray does not know."""
    found: Checkpoint | None = context.get_checkpoint()
    if found is None and _origin.checkpoint is not None:
        return Checkpoint(_origin.checkpoint, context.get_storage().storage_filesystem)
    return found


class _Sender:
    """Makes a report of Ray's of one of ours."""

    def __init__(self, context: TrainContext, rank: int) -> None:
        self._context = context
        self._rank = rank

    def __call__(self, metrics: dict[str, Any], checkpoint: Any, **options: Any) -> None:
        # Rank 0's name counts.
        given = options.pop("checkpoint_dir_name", None) or f"checkpoint_{self._context.report_call_index + 1:06}"
        options["checkpoint_dir_name"] = f"{given}-{_token}"
        if checkpoint is None or isinstance(checkpoint, Checkpoint):
            self._context.report(metrics, checkpoint, **options)
        elif self._rank != 0 and not _is_folder(checkpoint):
            self._context.report({**metrics, OBJECT_KEY: True}, None, **options)
        else:
            with checkpoint_folder(checkpoint) as folder:
                self._context.report(metrics, Checkpoint.from_directory(str(folder)), **options)


def _is_folder(checkpoint: Any) -> bool:
    from pathlib import Path

    return isinstance(checkpoint, Path) or (isinstance(checkpoint, str) and Path(checkpoint).is_dir())


class _NodeTrainFnUtils(DistributedTrainFnUtils):
    """What Ray's own functions do in a node: `ray.train.report` is the node's."""

    def __init__(self, session: TrainingSession) -> None:
        self._session = session

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None = None, *args: Any, **options: Any) -> None:
        """Report as the node's own `report` does, with Ray's options."""
        names = (
            "checkpoint_dir_name",
            "checkpoint_upload_mode",
            "delete_local_checkpoint_after_upload",
            "checkpoint_upload_fn",
            "validation",
        )
        self._session.report(metrics, checkpoint, **dict(zip(names, args, strict=False)), **options)

    def get_checkpoint(self) -> Checkpoint | None:
        """Return Ray's checkpoint that the rank goes on from."""
        return self._session.find()
