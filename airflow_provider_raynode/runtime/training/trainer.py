"""A Ray trainer of `ray_train`, with a controller that the driver can ask how far it is."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.frameworks import Framework
from airflow_provider_raynode.runtime.noise import quiet_train
from airflow_provider_raynode.runtime.training.ledger import Ledger, Snapshot
from airflow_provider_raynode.runtime.training.shards import trainer_arguments

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.training.parquet import ParquetRows

# Seconds between two looks of Ray's controller at its workers: it takes their reports then.
HEALTH_CHECK_INTERVAL_S = 0.1
# Seconds between two looks of the driver at the controller.
_LOOK_S = 0.2

# Trainer: its module and class, that of its config, and its argument for that.
_TRAINERS = {
    "data_parallel": ("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer", "", "", ""),
    "torch": ("ray.train.v2.torch.torch_trainer", "TorchTrainer", "ray.train.torch", "TorchConfig", "torch_config"),
    "xgboost": (
        "ray.train.v2.xgboost.xgboost_trainer",
        "XGBoostTrainer",
        "ray.train.v2.xgboost.config",
        "XGBoostConfig",
        "xgboost_config",
    ),
    "lightgbm": (
        "ray.train.v2.lightgbm.lightgbm_trainer",
        "LightGBMTrainer",
        "ray.train.lightgbm.config",
        "LightGBMConfig",
        "lightgbm_config",
    ),
    "jax": ("ray.train.v2.jax.jax_trainer", "JaxTrainer", "ray.train.v2.jax.config", "JaxConfig", "jax_config"),
    "tensorflow": (
        "ray.train.v2.tensorflow.tensorflow_trainer",
        "TensorflowTrainer",
        "ray.train.tensorflow",
        "TensorflowConfig",
        "tensorflow_config",
    ),
}
_RAYS_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(HEALTH_CHECK_INTERVAL_S),
    # What the function prints and logs goes where it goes in a trial.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
}


def set_rays_environment() -> None:
    """Set what Ray Train reads from the environment of the driver and passes on, where the author has not."""
    for name, value in _RAYS_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def build_trainer(
    config: RayConfig,
    train: Callable[[], Any],
    *,
    name: str,
    storage_path: str,
    storage_filesystem: Any,
    callbacks: Sequence[Any] = (),
    datasets: Mapping[str, ParquetRows] | None = None,
    base: Callable[[type[DataParallelTrainer]], type[DataParallelTrainer]] = lambda trainer: trainer,
) -> Any:
    """Return the trainer that a config asks for.

    :param train: what each worker runs.
    :param name: of the run: its folder below `storage_path`.
    :param callbacks: callbacks of Ray Train.
    :param base: makes the class to use of Ray's own.
    """
    section = config.ray_train
    assert section is not None
    module, trainer_name, config_module, config_name, argument = _TRAINERS[section.trainer]
    trainer: Any = base(getattr(importlib.import_module(module), trainer_name))
    arguments: dict[str, Any] = {}
    given = {} if section.framework_config is None else _given(section.framework_config)
    if section.trainer == "torch" and section.report_timeout_s is not None:
        # A rank that hangs keeps the others in an all-reduce as well.
        given.setdefault("timeout_s", math.ceil(section.report_timeout_s))
    if argument and given:
        arguments[argument] = getattr(importlib.import_module(config_module), config_name)(**given)
    checkpoint = config.train_checkpoint
    return trainer(
        train,
        scaling_config=scaling_config(config),
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=storage_filesystem,
            failure_config=FailureConfig(**section.failure.model_dump(exclude_none=True)),
            checkpoint_config=CheckpointConfig(
                num_to_keep=checkpoint.num_to_keep,
                checkpoint_score_attribute=checkpoint.checkpoint_score_attribute,
                checkpoint_score_order=checkpoint.checkpoint_score_order,
            ),
            logging_config=LoggingConfig(log_level=section.logging.log_level),
            worker_runtime_env=_runtime_env(section.worker_runtime_env),
            callbacks=list(callbacks),
        ),
        **trainer_arguments(datasets or {}),
        **arguments,
    )


def scaling_config(config: RayConfig) -> ScalingConfig:
    """Return the workers that a config asks for, in Ray's words."""
    section = config.ray_train
    assert section is not None
    scaling = section.scaling
    return ScalingConfig(
        num_workers=scaling.num_workers,
        use_gpu=scaling.use_gpu,
        # Whole numbers as such: some of Ray's backends count with them.
        resources_per_worker={
            name: int(amount) if amount == int(amount) else amount
            for name, amount in scaling.worker(config.default_resources).items()
        },
        placement_strategy=scaling.placement_strategy,
        accelerator_type=scaling.accelerator_type,
        label_selector=scaling.labels(config.default_resources),
        use_tpu=scaling.use_tpu,
        topology=scaling.topology,
        elastic_resize_monitor_interval_s=scaling.elastic_resize_monitor_interval_s,
    )


def _given(section: Framework) -> dict[str, Any]:
    return {name: value for name, value in section.model_dump().items() if value is not None}


def _runtime_env(environment: Any) -> dict[str, Any] | None:
    return None if environment is None else environment.model_dump(exclude_none=True, exclude_unset=True)


def watched(trainer: type[DataParallelTrainer], watch: Callable[[Snapshot], None]) -> type[DataParallelTrainer]:
    """Return the trainer as one that tells, while it trains, how far it is.

    :param watch: takes what the controller says; called in the thread that called `fit`.
    """
    return type(f"Watched{trainer.__name__}", (_Watched, trainer), {"watch": staticmethod(watch)})


class NodeController(TrainController):
    """Ray's controller, which writes a report down before Ray acts on it, and says how far it is when asked."""

    def __init__(self, **arguments: Any) -> None:
        quiet_train(arguments["train_run_context"].run_config.logging_config.log_level)
        super().__init__(**arguments)
        ledger = [each for each in self._callbacks if isinstance(each, Ledger)]
        self._ledger = ledger[0]
        # First the ledger: a checkpoint that Ray knows, and for which it may remove another one, is written down.
        reports = self._report_handler._report_callbacks
        self._report_handler._report_callbacks = [*ledger, *(each for each in reports if each not in ledger)]

    def _set_state(self, state: Any) -> None:
        following = getattr(state, "next_state", state)
        if type(following).__name__ == "FinishedState":
            self._ledger.finished(self._return_value)
        super()._set_state(state)

    async def told(self) -> Snapshot:
        """Return how far the training is."""
        return self._ledger.snapshot()


class _Watched(DataParallelTrainer):
    """What `watched` puts before a trainer."""

    watch: Callable[[Snapshot], None]

    def _create_default_callbacks(self) -> list[Any]:
        # Its detached actor looks for a dashboard, and outlives the job; placement groups end with the driver.
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        environment = get_env_vars_to_propagate()
        environment.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        actor: Any = ray.remote(num_cpus=0, label_selector=here, runtime_env={"env_vars": environment})(NodeController)
        controller = actor.remote(**arguments)
        done = controller.run.remote()
        asked = controller.told.remote()
        while not ray.wait([done], timeout=_LOOK_S)[0]:
            # It does not answer while it starts the workers.
            if ray.wait([asked], timeout=0)[0]:
                type(self).watch(ray.get(asked))
                asked = controller.told.remote()
        ray.get(done)
        type(self).watch(ray.get(controller.told.remote()))
        return ray.get(controller.get_result.remote())
