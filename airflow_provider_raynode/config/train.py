"""The section `ray_train`: distributed training. Checked now; a node that runs it comes with a later version."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import (
    EmptyIsDefault,
    LimitOrNone,
    NonNegativeNumber,
    PositiveInteger,
    PositiveNumber,
    Switch,
    Text,
)
from airflow_provider_raynode.config.runtime_env import RuntimeEnv


class Scaling(Section):
    """The workers of a training: Ray's ScalingConfig."""

    num_workers: PositiveInteger | tuple[PositiveInteger, PositiveInteger] = Field(
        default=1, description="number of workers, or [least, most] of an elastic training"
    )
    use_gpu: Switch = Field(default=False, description="whether each worker gets a GPU")
    resources_per_worker: dict[Text, NonNegativeNumber] | None = Field(
        default=None, description="resources of a worker, e.g. {CPU: 2}; left out: 1 CPU, and 1 GPU with use_gpu"
    )
    trainer_resources: dict[Text, NonNegativeNumber] | None = Field(
        default=None, description="resources of the coordinating process"
    )
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        default="PACK", description="how workers are placed on nodes"
    )
    accelerator_type: Text | None = Field(default=None, description="kind of accelerator, e.g. A100")
    label_selector: dict[str, str] | list[dict[str, str]] | None = Field(
        default=None, description="labels that a worker's node must have"
    )
    use_tpu: Switch = Field(default=False, description="whether each worker gets TPUs")
    topology: Text | None = Field(default=None, description="topology of the TPU slice, e.g. 2x2x2")
    elastic_resize_monitor_interval_s: PositiveNumber = Field(
        default=60.0, description="seconds between two looks for more workers in an elastic training"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what contradicts itself."""
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            yield ("num_workers",), f"{self.num_workers[0]} is above {self.num_workers[1]}: [least, most]"
        if self.use_gpu and self.use_tpu:
            yield ("use_tpu",), "cannot be beside use_gpu"
        if self.use_gpu and (self.resources_per_worker or {}).get("GPU") == 0:
            yield ("resources_per_worker", "GPU"), "0 contradicts use_gpu"


class TrainFailure(Section):
    """What happens when a worker fails: the FailureConfig of Ray Train."""

    max_failures: LimitOrNone = Field(
        default=0, description="times that the training goes on from its last checkpoint; -1: without end"
    )
    controller_failure_limit: LimitOrNone = Field(
        default=-1, description="failures of the controller that are survived; -1: without end"
    )
    max_preemption_failures: LimitOrNone = Field(
        default=-1, description="preempted nodes that are survived; -1: without end"
    )
    relax_collectives_on_preemption: Switch = Field(
        default=False, description="whether collectives may go on without a preempted worker"
    )
    preemption_grace_s: NonNegativeNumber = Field(default=0.0, description="seconds given to a preempted worker")


class TrainCheckpoint(Section):
    """Which checkpoints are kept: the CheckpointConfig of Ray Train."""

    num_to_keep: PositiveInteger | None = Field(default=None, description="checkpoints kept; left out: all")
    checkpoint_score_attribute: Text | None = Field(
        default=None, description="metric that says which checkpoints are best; left out: the latest"
    )
    checkpoint_score_order: Literal["max", "min"] = Field(default="max", description="which end of it is best")


class RayTrain(Section):
    """A distributed training: Ray's ScalingConfig and RunConfig."""

    scaling: Annotated[Scaling, EmptyIsDefault] = Field(default_factory=Scaling, description="the workers")
    failure: Annotated[TrainFailure, EmptyIsDefault] = Field(
        default_factory=TrainFailure, description="what happens when a worker fails"
    )
    checkpoint: Annotated[TrainCheckpoint, EmptyIsDefault] = Field(
        default_factory=TrainCheckpoint, description="which checkpoints are kept"
    )
    worker_runtime_env: RuntimeEnv | None = Field(default=None, description="runtime environment of the workers alone")
