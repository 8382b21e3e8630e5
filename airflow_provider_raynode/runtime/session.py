"""What a function can use while Ray runs it: `report`, `get_checkpoint`, `context`. Imports no Ray by itself."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.secrets import NodeConnection, NodeSecrets, SecretsError
from airflow_provider_raynode.spec import RunContext

# What the function logs by `context().logger` is shown by `tagged`, which knows this name.
log = logging.getLogger("airflow_provider_raynode.trial")


@dataclass(frozen=True)
class NodeContext:
    """The run that a call of the function belongs to, as `context()` gives it on a worker.

    `map_variables` are the arguments of the mapped task group for this node; `params` the DAG run's params;
    `parameters` what the node's parameters_file holds. `trial_id` is empty outside a search. The ranks are those of a
    training; any other call is the only one of its world.
    """

    dag_id: str
    run_id: str
    node_id: str
    map_index: int
    attempt: int
    try_number: int
    logical_date: datetime | None
    params: dict[str, Any]
    map_variables: dict[str, Any]
    parameters: dict[str, Any]
    catalog: Catalog
    logger: logging.Logger
    trial_id: str = ""
    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    secrets: NodeSecrets | None = field(default=None, repr=False)
    shards: Callable[[str], Any] | None = field(default=None, repr=False)

    def shard(self, name: str = "train") -> Any:
        """Return this worker's shard of a dataset that `ray_train.data` names, as a `ray.data.DataIterator`.

        :raises RayNodeError: not in a training, or no dataset of that name.
        """
        if self.shards is None:
            raise RayNodeError(f"context().shard({name!r}) works only in a training: ray_train names its datasets")
        return self.shards(name)

    def lightgbm_params(self) -> dict[str, Any]:
        """Return the parameters with which the workers' calls of `lightgbm.train` build one model; {} for one worker.

        :raises RayNodeError: a training of several workers without `trainer: lightgbm`.
        """
        if self.world_size == 1:
            return {}
        from ray.train.lightgbm import get_network_params

        network = get_network_params()
        if not network:
            raise RayNodeError(
                "context().lightgbm_params(): ray_train.trainer is not lightgbm, so no network is set up"
            )
        return {"tree_learner": "data_parallel", "pre_partition": True, **network}

    def connection(self, conn_id: str) -> NodeConnection:
        """Return the Airflow connection that the node declares in `secrets` as `conn:ID`.

        :raises SecretsError: the node does not declare it.
        """
        return self._secrets().connection(conn_id)

    def variable(self, key: str, *, deserialize_json: bool = False) -> Any:
        """Return the Airflow variable that the node declares in `secrets` as `var:KEY`.

        :param deserialize_json: whether to return what its JSON says.
        :raises SecretsError: the node does not declare it.
        """
        return self._secrets().variable(key, deserialize_json=deserialize_json)

    def _secrets(self) -> NodeSecrets:
        if self.secrets is None:
            raise SecretsError("the node declares no secrets: ray_node(..., secrets=['conn:my_db', 'var:api_key'])")
        return self.secrets


@dataclass(kw_only=True)
class Session(ABC):
    """One call of the node's function on a worker: a trial, a training's worker, a task.

    `catalog` is the folder of what the function itself puts. `stopped`: the call has been ended from outside.
    """

    run: RunContext
    attempt: int
    catalog: Catalog
    secrets: NodeSecrets | None = field(default=None, repr=False)
    stopped: bool = False

    @abstractmethod
    def report(self, values: Mapping[str, Any], checkpoint: Any = None) -> None:
        """Take what the function reports."""

    @abstractmethod
    def checkpoint(self) -> Any:
        """Return what the call goes on from, None where it begins."""

    @abstractmethod
    def finish(self, returned: Any) -> Any:
        """Take what the function returned, and return what its caller on the worker gets."""

    def place(self) -> dict[str, Any]:
        """Return the fields of `NodeContext` that say which call this is."""
        return {}


_current: Session | None = None


def set_current(session: Session | None) -> None:
    """Make `session` the one of this process: a worker runs one call at a time, in whatever threads."""
    global _current
    _current = session


def report(metrics: Mapping[str, Any], checkpoint: Any = None) -> None:
    """Report a step: of a search, the scheduler may stop the trial here; of a training, every rank calls it.

    Outside a node, where the function is called as plain Python (in a unit test of its own, say), the metrics are
    logged and the call returns.

    :param metrics: values by name, the metric of the search or the training among them. What is not a number, a
        boolean or a short text is an output, kept in the catalog and replaced by the next report of the same name. In
        a training those of rank 0 count.
    :param checkpoint: what could be gone on from: the path of a folder, or any object that can be pickled; it is kept
        as it is at this moment. In a training, the folders of several ranks become one.
    :raises RayNodeError: the metric is missing or not a number, the checkpoint cannot be pickled, or a name that the
        config refers to (`stop`, `time_attr`, `checkpoint_score_attribute`) is missing.

    Example::

        for epoch in range(epochs):
            ...
            report({"accuracy": accuracy}, checkpoint={"epoch": epoch, "weights": weights})
    """
    if _current is None:
        log.info("report: %s", dict(metrics))
        return
    _current.report(metrics, checkpoint)


def get_checkpoint() -> Any:
    """Return what the call resumes from: the reported object, or the Path of the folder; None at the start."""
    return None if _current is None else _current.checkpoint()


def context() -> NodeContext:
    """Return the run that this call belongs to: ids, params, map variables, secrets, ranks, the catalog, a logger.

    :raises RayNodeError: not in a Ray node.
    """
    if _current is None:
        raise RayNodeError("context() works only while a Ray node runs the function")
    run = _current.run
    return NodeContext(
        dag_id=run.dag_id,
        run_id=run.run_id,
        node_id=run.node_id,
        map_index=run.map_index,
        attempt=_current.attempt,
        try_number=run.try_number,
        logical_date=run.logical_date,
        params=dict(run.params),
        map_variables=dict(run.map_variables),
        parameters=dict(run.parameters),
        catalog=_current.catalog,
        logger=log,
        secrets=_current.secrets,
        **_current.place(),
    )
