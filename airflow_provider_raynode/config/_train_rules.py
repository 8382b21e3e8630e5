"""What does not fit together in `ray_train`, and between it and the rest of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_raynode.config._section import Problem
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config.frameworks import JaxConfig, TorchConfig
from airflow_provider_raynode.config.paths import local_files
from airflow_provider_raynode.config.train import COUNTED, RayTrain
from airflow_provider_raynode.config.tune import Checkpoint

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_config import RayConfig

_HALF = 0.5


def training_problems(train: RayTrain) -> Iterator[Problem]:
    """Yield what does not fit together, below `ray_train`."""
    yield from _metric_problems(train)
    yield from _framework_problems(train)
    yield from _environment_problems(train)


def _metric_problems(train: RayTrain) -> Iterator[Problem]:
    attribute, order = train.checkpoint.checkpoint_score_attribute, train.checkpoint.checkpoint_score_order
    for loc, name in ((("metric",), train.metric), (("checkpoint", "checkpoint_score_attribute"), attribute)):
        if name in COUNTED:
            yield loc, f"{name!r} is counted by the node itself: name a value that the function reports"
    if train.metric is not None and train.mode is None:
        yield ("mode",), "is missing: max or min, whichever of the metric is best"
    if train.mode is not None and train.metric is None:
        yield ("metric",), "is missing: mode is of it; leave both out where the latest checkpoint is the result"
    if attribute is None and order == "min":
        yield (
            ("checkpoint", "checkpoint_score_order"),
            "has no effect without checkpoint_score_attribute: name the metric",
        )
    if attribute is None or train.metric is None or train.mode is None:
        return
    if attribute == train.metric and order != train.mode:
        yield (
            ("checkpoint", "checkpoint_score_order"),
            f"{order!r} contradicts mode: {train.mode}, of the same metric: write {train.mode}",
        )
    elif attribute != train.metric and train.checkpoint.num_to_keep is not None:
        yield (
            ("checkpoint", "checkpoint_score_attribute"),
            f"{attribute!r} with num_to_keep would drop the best checkpoint by {train.metric!r}: leave it out, or make "
            "it the same metric",
        )


def _framework_problems(train: RayTrain) -> Iterator[Problem]:
    scaling, config = train.scaling, train.framework_config
    if scaling.use_tpu and train.trainer not in ("jax", "torch", "data_parallel"):
        yield ("scaling", "use_tpu"), f"the trainer {train.trainer} does not run on TPUs: use jax or torch"
    if isinstance(config, JaxConfig):
        for key in ("use_tpu", "use_gpu"):
            said, used = getattr(config, key), getattr(scaling, key)
            if said is not None and said != used:
                yield ("framework_config", key), f"{said} contradicts scaling.{key}: {used}; leave it out here"
    if train.trainer == "jax" and scaling.bounds[1] > 1 and not (scaling.use_gpu or scaling.use_tpu):
        yield (
            ("scaling", "num_workers"),
            f"{scaling.bounds[1]} workers of the trainer jax would each train alone: Ray connects them on GPUs or "
            "TPUs only; say scaling.use_gpu or use_tpu, or trainer: data_parallel and connect them in the function",
        )
    gpus = (scaling.resources_per_worker or {}).get("GPU", 1)
    if train.trainer == "jax" and scaling.use_gpu and gpus != int(gpus):
        yield ("scaling", "resources_per_worker", "GPU"), f"{gpus:g} is not whole: JAX takes whole GPUs"
    if train.trainer == "torch":
        yield from _torch_problems(train, config if isinstance(config, TorchConfig) else TorchConfig())


def _torch_problems(train: RayTrain, config: TorchConfig) -> Iterator[Problem]:
    scaling = train.scaling
    named = [backend for _, backend in config.backends()]
    if "nccl" in named and not scaling.use_gpu:
        yield (
            ("framework_config", "backend"),
            f"{shown(config.backend)} needs a GPU for each worker: scaling.use_gpu: true, or gloo, which runs on CPUs",
        )
    if "tpu_dist" in named and not scaling.use_tpu:
        yield ("framework_config", "backend"), "'tpu_dist' needs TPUs: scaling.use_tpu: true"
    gpus = (scaling.resources_per_worker or {}).get("GPU", 1.0)
    alone = scaling.bounds[1] == 1 or scaling.placement_strategy == "STRICT_SPREAD"
    if scaling.use_gpu and ("nccl" in named or not named) and 0 < gpus <= _HALF and not alone:
        yield (
            ("scaling", "resources_per_worker", "GPU"),
            f"{gpus:g}: workers that share a GPU cannot speak over NCCL: give each a whole one, or "
            "framework_config: {backend: gloo}",
        )


def _environment_problems(train: RayTrain) -> Iterator[Problem]:
    """Yield what Ray does for a whole job only, and not for some of its processes."""
    environment = train.worker_runtime_env
    if environment is None:
        return
    of_job = "for the whole job: say it in ray_cluster.runtime_env"
    here: dict[str, str] = {}
    local_files(environment, lambda key, path: here.setdefault(key, path))
    for key in here:
        what = "lies on this machine and is read" if key.startswith(("pip", "uv", "conda")) else "is uploaded"
        name = key.partition("[")[0].partition(".")[0]
        yield ("worker_runtime_env", name), f"{shown(here[key])} {what} {of_job}.{name}"
    for key in ("excludes", "worker_process_setup_hook"):
        if getattr(environment, key) is not None:
            yield ("worker_runtime_env", key), f"has no effect for workers alone, Ray takes it {of_job}.{key}"
    for name in environment.env_vars or {}:
        if name.startswith("RAY_JOB_STOP_"):
            yield ("worker_runtime_env", "env_vars", name), f"is of the job, not of its workers, {of_job}.env_vars"


def between_sections(config: RayConfig) -> Iterator[Problem]:
    """Yield what `ray_train` and the rest of the file contradict in each other."""
    yield from _beside_search_problems(config)
    yield from _worker_resource_problems(config)


def _beside_search_problems(config: RayConfig) -> Iterator[Problem]:
    """Yield what cannot stand in `ray_train` and `ray_tune` where each trial is a training."""
    tune, train = config.ray_tune, config.ray_train
    if tune is None or train is None:
        return
    for key in ("metric", "mode"):
        said, theirs = getattr(train, key), getattr(tune, key)
        if said is not None and said != theirs:
            yield ("ray_train", key), f"{said!r} contradicts ray_tune.{key}: {theirs}; say it once, there"
    if train.stop:
        yield ("ray_train", "stop"), "beside ray_tune a trial is the training: say it in ray_tune.stop"
    if train.time_budget_s is not None:
        yield (
            ("ray_train", "time_budget_s"),
            "beside ray_tune the search has the budget: ray_tune.time_budget_s; for each training "
            "ray_tune.stop: {time_total_s: …}",
        )
    if tune.checkpoint != Checkpoint.model_construct():
        yield (
            ("ray_tune", "checkpoint"),
            "beside ray_train the workers report the checkpoints: say it in ray_train.checkpoint",
        )
    if tune.reuse_actors:
        yield (
            ("ray_tune", "reuse_actors"),
            "true cannot be beside ray_train: a process whose training was stopped has not ended; leave it out",
        )
    if tune.scheduler is not None and tune.scheduler.type == "ResourceChangingScheduler":
        yield (
            ("ray_tune", "scheduler"),
            "ResourceChangingScheduler changes what a trial reserves while it runs, and a training has the workers "
            "that it began with: leave one of them out",
        )
    if train.scaling.elastic:
        least, most = train.scaling.bounds
        yield (
            ("ray_train", "scaling", "num_workers"),
            f"[{least}, {most}] cannot be beside ray_tune: a trial reserves all its workers before it begins, so that "
            "no trial waits for another; write one number",
        )
    if train.scaling.use_tpu and train.scaling.topology is not None:
        yield (
            ("ray_train", "scaling", "topology"),
            "cannot be beside ray_tune: Ray Train reserves a slice of TPUs by itself, outside the trial; leave it out",
        )


def _worker_resource_problems(config: RayConfig) -> Iterator[Problem]:
    """Yield what `default_resources` gives the workers of a training and its `scaling` contradicts."""
    train, default = config.ray_train, config.default_resources
    if train is None:
        return
    scaling = train.scaling
    own = scaling.resources_per_worker or {}
    for key, name, given in (("use_gpu", "GPU", default.num_gpus), ("use_tpu", "TPU", default.resources.get("TPU"))):
        where = ("default_resources", "num_gpus") if name == "GPU" else ("default_resources", "resources", "TPU")
        if given and name not in own and not getattr(scaling, key):
            yield where, f"{given:g} contradicts ray_train.scaling.{key}: false; say {key}: true, or leave it out"
    if scaling.use_gpu and default.num_gpus == 0 and "GPU" not in own:
        yield ("default_resources", "num_gpus"), "0 contradicts ray_train.scaling.use_gpu: leave one of them out"
    if not scaling.worker(default):
        yield ("ray_train", "scaling", "resources_per_worker"), "a worker reserves nothing, and Ray cannot place it"
