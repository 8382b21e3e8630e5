"""A training inside the placement group of the trial of Tune that it is.

By itself Ray Train reserves a placement group of its own for its workers. As a trial that is a second reservation, made
while the trial holds its own: trials that each hold a part wait for each other without end, and what Tune stops leaves
its workers and their placement group behind. Here the trial reserves the whole at once, Tune queues what does not fit,
and whatever ends the trial's process, or the search, ends its workers and frees their place with it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup

from airflow_provider_raynode.runtime.noise import quiet_train


def in_trial(trainer: type[DataParallelTrainer]) -> type[DataParallelTrainer]:
    """Return the trainer as one that runs inside the placement group of this process, with its controller in it.

    The workers take the last bundles of the group. The controller is no process of its own, so that nothing outlives
    the trial's.
    """
    return type(f"{trainer.__name__}InTrial", (_InTrial, trainer), {})


class _InTrial(DataParallelTrainer):
    """What `in_trial` puts before a trainer."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        # The first has a detached actor, which would watch over a placement group that is not the training's, the other
        # a process that hands out datasets, where there are some.
        needless: tuple[type, ...] = (PlacementGroupCleanerCallback,)
        needless += () if self.datasets else (DatasetsCallback,)
        return [each for each in callbacks if not isinstance(each, needless)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        run_config: Any = self.run_config
        quiet_train(run_config.logging_config.log_level)
        if sum(node["Alive"] for node in ray.nodes()) == 1:
            # A process that would watch for a node that is taken away, and leaves the others.
            os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
        arguments["scaling_policy"] = _Reserved(self.train_run_context.scaling_config)
        controller = _Controller(**arguments)
        run: Any = controller.run
        try:
            asyncio.run(run())
        finally:
            controller.end_workers()
        return controller.get_result()


class _WorkersInTrial(WorkerGroup):
    """Workers in the bundles that the trial has reserved for them."""

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        group = ray.util.get_current_placement_group()
        if group is None:
            raise RuntimeError("the trial has no placement group")
        return _TrialsPlacementGroup(group)

    def _create_workers(
        self,
        num_workers: int,
        placement_group: PlacementGroup,
        resources_per_worker: dict[str, float],
        placement_group_bundle_indices: list[int] | None = None,
        starting_world_rank: int = 0,
        world_size: int | None = None,
        replica_group_size: int | None = None,
    ) -> list[Any]:
        last = placement_group.bundle_count
        indices = placement_group_bundle_indices or list(range(last - num_workers, last))
        ranks = (starting_world_rank, world_size, replica_group_size)
        return super()._create_workers(num_workers, placement_group, resources_per_worker, indices, *ranks)


class _TrialsPlacementGroup(DefaultPlacementGroupHandle):
    """The trial's placement group, which stays when its workers start anew."""

    def shutdown(self) -> None:
        """Leave it: Tune removes it when the trial ends."""


class _Controller(TrainController):
    """Ray Train's controller, in the trial's process."""

    worker_group_cls = _WorkersInTrial

    def end_workers(self) -> None:
        """Kill the workers, where some are left."""
        group = self.get_worker_group()
        if group is None:
            return
        for worker in group.get_workers():
            ray.kill(worker.actor)


class _Reserved(ScalingPolicy):
    """The workers that are reserved: of the autoscaler, Tune asks for the trial as a whole."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Ask nobody for resources."""

    async def before_controller_shutdown(self) -> None:
        """Take nothing back."""

    def before_controller_abort(self) -> None:
        """Take nothing back."""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start all workers."""
        return ResizeDecision(
            num_workers=self._get_num_workers_for_resource_request(),
            resources_per_worker=self.scaling_config._resources_per_worker_not_none,
        )

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Leave their number as it is."""
        return NoopDecision()

    def _get_num_workers_for_resource_request(self) -> int:
        workers = self.scaling_config.num_workers
        return workers if isinstance(workers, int) else workers[0]
