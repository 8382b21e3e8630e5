"""The section `ray_train`: a distributed training, alone or as each trial of a search."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import (
    EmptyIsDefault,
    LimitOrNone,
    NonNegativeNumber,
    Number,
    PositiveInteger,
    PositiveNumber,
    Switch,
    Text,
)
from airflow_provider_raynode.config.frameworks import ByTrainer, Framework, Trainer
from airflow_provider_raynode.config.runtime_env import RuntimeEnv
from airflow_provider_raynode.config.scaling import Scaling

DEFAULT_REPORT_TIMEOUT_S = 1800.0
# What the node counts of a training beside what its function reports.
COUNTED = ("training_iteration", "time_total_s")

_OURS = "the node says it, so that a retry finds its training again"
_TUNES = "Ray Tune's"


class TrainFailure(Section):
    """What happens when a worker fails: the FailureConfig of Ray Train."""

    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "fail_fast": "Ray Train has none any more, a training is one: max_failures: 0 ends it with the first failure; "
        "for the trials of a search it is ray_tune.failure.fail_fast",
    }

    max_failures: LimitOrNone = Field(
        default=0, description="times that the training goes on from its last checkpoint; -1: without end"
    )
    controller_failure_limit: LimitOrNone | None = Field(
        default=None,
        description="times that the workers may fail to start; -1: without end; left out: -1, beside ray_tune, where a "
        "trial has its place already, 3",
    )
    max_preemption_failures: LimitOrNone = Field(
        default=-1, description="preempted nodes that are survived, beside max_failures; -1: without end"
    )
    relax_collectives_on_preemption: Switch = Field(
        default=False, description="whether collectives may go on without a preempted worker"
    )
    preemption_grace_s: NonNegativeNumber = Field(default=0.0, description="seconds given to a preempted worker")


class TrainCheckpoint(Section):
    """Which checkpoints are kept: the CheckpointConfig of Ray Train."""

    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "checkpoint_frequency": "the function reports its checkpoints itself: report(metrics, checkpoint=…)",
        "checkpoint_at_end": "the function reports its checkpoints itself: report(metrics, checkpoint=…)",
    }

    num_to_keep: PositiveInteger | None = Field(
        default=None,
        description="checkpoints kept, and the latest beside them, from which a training goes on; left out: all",
    )
    checkpoint_score_attribute: Text | None = Field(
        default=None,
        description="metric that says which checkpoints are best; left out: the node's `metric`, where there is one, "
        "else the latest are",
    )
    checkpoint_score_order: Literal["max", "min"] = Field(
        default="max", description="which end of it is best; that of the node's `metric` is its `mode`"
    )


class TrainLogging(Section):
    """What Ray Train itself says: its LoggingConfig."""

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = Field(
        default="WARNING",
        description="least level of the lines of Ray Train's own logger; how the workers fare the node says itself",
    )


class Dataset(Section):
    """A parquet file, or a folder of them, that reaches the workers as a Ray Dataset."""

    op_kwarg: Text | None = Field(
        default=None, description="the name in the node's op_kwargs whose value is the CatalogRef, path or URI of it"
    )
    uri: Text | None = Field(default=None, description="its path or URI, where no task of the DAG makes it")
    shard: Switch = Field(
        default=True, description="whether each worker gets its part of the rows; false: each gets them all"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a dataset that is nowhere, or in two places."""
        if self.op_kwarg is None and self.uri is None:
            yield ("op_kwarg",), "is missing: the name in op_kwargs that holds the reference (or uri: its path)"
        if self.op_kwarg is not None and self.uri is not None:
            yield ("uri",), "stands beside op_kwarg: keep one of them"
        if self.uri is not None and "://" not in self.uri and not self.uri.startswith("/"):
            yield ("uri",), f"{self.uri!r} is neither an absolute path (/…) nor a URI (s3://bucket/data.parquet)"


def _dataset(value: Any) -> Any:
    """Return the mapping that a short form stands for: a path or URI by its slash, else a name in op_kwargs."""
    if isinstance(value, str):
        return {"uri": value} if "/" in value else {"op_kwarg": value}
    return value


class RayTrain(Section):
    """A distributed training: Ray's ScalingConfig and RunConfig, the framework, and when it ends."""

    renamed: ClassVar[Mapping[str, str]] = {
        "scaling_config": "scaling",
        "failure_config": "failure",
        "checkpoint_config": "checkpoint",
        "logging_config": "logging",
    }
    not_in_yaml: ClassVar[Mapping[str, str]] = {
        **{key: f"write it in ray_train.scaling.{key}" for key in Scaling.model_fields},
        **{key: f"write it in ray_train.failure.{key}" for key in TrainFailure.model_fields},
        **{key: f"write it in ray_train.checkpoint.{key}" for key in TrainCheckpoint.model_fields},
        **{key: f"write it in ray_train.framework_config.{key}" for key in ("backend", "init_method", "timeout_s")},
        **Scaling.not_in_yaml,
        **TrainFailure.not_in_yaml,
        **TrainCheckpoint.not_in_yaml,
        "log_level": "write it in ray_train.logging.log_level",
        "run_config": "its keys stand in ray_train itself: failure, checkpoint, logging, worker_runtime_env",
        "backend_config": "it is framework_config",
        "torch_config": "it is framework_config, with trainer: torch",
        "xgboost_config": "it is framework_config, with trainer: xgboost",
        "lightgbm_config": "it is framework_config, with trainer: lightgbm",
        "jax_config": "it is framework_config, with trainer: jax",
        "tensorflow_config": "it is framework_config, with trainer: tensorflow",
        "train_loop_per_worker": "the function is the node's python_callable",
        "train_loop_config": "the function's arguments are the node's op_kwargs",
        "datasets": "it is data, by name: the key in op_kwargs that holds the reference",
        "dataset_config": "it is data.<name>.shard: whether each worker gets its part, or all of the rows",
        "resume_from_checkpoint": "a retry goes on from the last checkpoint by itself; give an earlier training's in "
        "op_kwargs",
        "metadata": "Ray Train has none any more: put it into the checkpoint",
        "validation_config": "it takes code: validate in the function, and report what you found",
        "name": _OURS,
        "storage_path": "checkpoints lie in the node's catalog: catalog.uri says where",
        "storage_filesystem": "checkpoints lie in the node's catalog: catalog.uri says where",
        "callbacks": "they take code: report from the function, the node counts and shows it",
        "sync_config": f"it is {_TUNES}, and Ray Train has none any more: checkpoints go straight to the catalog",
        "verbose": f"it is {_TUNES}, and Ray Train has none any more: logging.log_level",
        "progress_reporter": f"it is {_TUNES}, and Ray Train has none any more: the node shows the progress",
        "log_to_file": f"it is {_TUNES}, and Ray Train has none any more: the task's log has what the workers print",
    }

    trainer: Trainer = Field(
        default="data_parallel",
        description="what is set up among the workers before the function runs: nothing, or the framework's own group",
    )
    framework_config: Annotated[Framework, ByTrainer()] | None = Field(
        default=None, description="how it is set up: the keys of Ray's TorchConfig, XGBoostConfig, … as `trainer` says"
    )
    scaling: Annotated[Scaling, EmptyIsDefault] = Field(default_factory=Scaling, description="the workers")
    metric: Text | None = Field(
        default=None,
        description="the reported value by which the best checkpoint is chosen; left out: "
        "checkpoint.checkpoint_score_attribute, and without one the latest checkpoint is the result; beside ray_tune "
        "it is ray_tune.metric",
    )
    mode: Literal["min", "max"] | None = Field(
        default=None, description="whether the least or the greatest value is best; required with metric"
    )
    stop: dict[Text, Number] | None = Field(
        default=None,
        description="the training ends when a counted report reaches a bound, e.g. {training_iteration: 20}, the "
        "number of reports: the metric in its own direction (with mode min at or below the bound), every other value "
        "at or above it; beside ray_tune it is ray_tune.stop",
    )
    time_budget_s: PositiveNumber | None = Field(
        default=None,
        description="seconds after which the training ends with what it has; beside ray_tune it is "
        "ray_tune.time_budget_s, of the whole search",
    )
    report_timeout_s: PositiveNumber | None = Field(
        default=DEFAULT_REPORT_TIMEOUT_S,
        description="seconds that workers which have reported, or ended, wait for the others; then the training fails "
        "with the ranks that are missing; null: without end",
    )
    failure: Annotated[TrainFailure, EmptyIsDefault] = Field(
        default_factory=TrainFailure, description="what happens when a worker fails"
    )
    checkpoint: Annotated[TrainCheckpoint, EmptyIsDefault] = Field(
        default_factory=TrainCheckpoint, description="which checkpoints are kept"
    )
    data: dict[Text, Annotated[Dataset, BeforeValidator(_dataset)]] = Field(
        default_factory=dict,
        description="the datasets by name, e.g. {train: rows, validation: {op_kwarg: held_out, shard: false}}: each "
        "the name in op_kwargs of a CatalogRef to parquet, or a path or URI; in the function context().shard(name)",
    )
    logging: Annotated[TrainLogging, EmptyIsDefault] = Field(
        default_factory=TrainLogging, description="what Ray Train itself says"
    )
    worker_runtime_env: RuntimeEnv | None = Field(default=None, description="runtime environment of the workers alone")

    def problems(self) -> Iterator[Problem]:
        """Yield what does not fit together."""
        from airflow_provider_raynode.config._train_rules import training_problems

        yield from training_problems(self)

    @property
    def best_by(self) -> tuple[str, Literal["min", "max"]] | None:
        """The metric that says which checkpoint is best, and its mode, where the section names one."""
        if self.metric is not None and self.mode is not None:
            return self.metric, self.mode
        if self.checkpoint.checkpoint_score_attribute is not None:
            return self.checkpoint.checkpoint_score_attribute, self.checkpoint.checkpoint_score_order
        return None
