"""The models against Ray itself: every class, every short name, every argument and default."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
from config_cases import ALL_DOMAINS, GOOD, tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config._kinds import Kind
from airflow_provider_raynode.config._section import folded
from airflow_provider_raynode.config.domains import DOMAINS
from airflow_provider_raynode.config.schedulers import SCHEDULERS, ResourceAllocation
from airflow_provider_raynode.config.searchers import SEARCHERS

pytest.importorskip("ray.tune")

# Where a model differs from Ray on purpose: what it has more, and other defaults.
MORE = {"BasicVariantGenerator": {"metric", "mode"}, "AxSearch": {"random_seed"}}
DEFAULTS: dict[tuple[str, str], Any] = {
    ("MedianStoppingRule", "time_attr"): "training_iteration",
    ("MedianStoppingRule", "grace_period"): 1,
    ("PopulationBasedTraining", "time_attr"): "training_iteration",
    ("PopulationBasedTraining", "perturbation_interval"): 5,
    ("PB2", "time_attr"): "training_iteration",
    ("PB2", "perturbation_interval"): 5,
    ("BayesOptSearch", "random_state"): None,  # Ray's 42, unless ray_tune.seed is there
    ("ResourceChangingScheduler", "resources_allocation_function"): ResourceAllocation(),
}
# Required here and checked by Ray only when it runs.
REQUIRED = {
    ("PopulationBasedTraining", "hyperparam_mutations"),
    ("PB2", "hyperparam_bounds"),
    ("NevergradSearch", "optimizer"),
    ("ZOOptSearch", "budget"),
}
KINDS: tuple[type[Kind], ...] = (*SCHEDULERS, *SEARCHERS)


def ray_class(kind: type[Kind]) -> Any:
    module, _, name = kind.ray_class.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.class_name())
def test_arguments_are_those_of_ray(kind: type[Kind]) -> None:
    signature = inspect.signature(ray_class(kind).__init__).parameters
    ray = {name for name, each in signature.items() if each.kind is each.POSITIONAL_OR_KEYWORD} - {"self"}
    ours = set(kind.model_fields) - {"type"}
    assert not ours & set(kind.not_in_yaml)
    assert ours | set(kind.not_in_yaml) == ray | MORE.get(kind.class_name(), set())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.class_name())
def test_defaults_are_those_of_ray(kind: type[Kind]) -> None:
    signature = inspect.signature(ray_class(kind).__init__).parameters
    for name, field in kind.model_fields.items():
        if name == "type" or name in MORE.get(kind.class_name(), ()):
            continue
        ray = signature[name].default
        key = (kind.class_name(), name)
        if field.is_required():
            assert key in REQUIRED or ray is inspect.Parameter.empty, key
        elif key in DEFAULTS:
            assert field.default == DEFAULTS[key] != ray, key
        else:
            assert field.default == ray, key


def test_every_scheduler_and_searcher_of_ray_is_there() -> None:
    from ray.tune import schedulers
    from ray.tune.search import SEARCH_ALG_IMPORT

    ours = {folded(name) for kind in KINDS for name in kind.names()}
    classes = {
        name for name in schedulers.__all__ if inspect.isclass(getattr(schedulers, name)) and name != "TrialScheduler"
    }
    for name in [*schedulers.SCHEDULER_IMPORT, *SEARCH_ALG_IMPORT, *classes, "PB2"]:
        assert folded(name) in ours, name


def test_every_short_name_means_rays_class() -> None:
    from ray.tune.schedulers import SCHEDULER_IMPORT

    for kind in SCHEDULERS:
        for name in kind.short_names:
            entry = SCHEDULER_IMPORT.get(name)
            if inspect.isclass(entry):
                assert ray_class(kind) is entry, name


def test_every_domain_is_what_ray_calls_so() -> None:
    import numpy as np
    from ray import tune as ray_tune

    from airflow_provider_raynode.runtime.space import build_search_space

    built = build_search_space(RayConfig.load(tune(search_space=ALL_DOMAINS)))
    assert {each["type"] for each in ALL_DOMAINS.values() if isinstance(each, dict)} - {"resnet"} == set(DOMAINS)
    for key, name in zip("abcdefghij", list(DOMAINS)[:10], strict=True):
        arguments = {one: each for one, each in ALL_DOMAINS[key].items() if one not in ("type", "base")}
        theirs = getattr(ray_tune, name)(*arguments.values()).sample(size=4000, random_state=np.random.default_rng(1))
        ours = built[key].sample(size=4000, random_state=np.random.default_rng(2))
        assert {type(each) for each in ours} == {type(theirs[0].item() if hasattr(theirs[0], "item") else theirs[0])}
        # Ray's quniform and qloguniform give the multiples at the two ends half the weight of the others.
        assert _distance(ours, theirs) < (0.15 if name in ("quniform", "qloguniform") else 0.05), name
    choices = {repr(each) for each in built["k"].sample(size=200, random_state=np.random.default_rng(3))}
    assert choices == {repr(each) for each in ["relu", None, 3, True, [1, 2], {"x": None}]}
    assert built["l"] == {"grid_search": [1, "two"]}
    assert built["m"]["n"]["p"] == "constant"
    assert built["m"]["type"] == "resnet"
    assert built["q"] == [64, 64]
    assert built["r"] == {"type": "uniform", "low": None}
    assert built["s"] is None
    assert built["größe"] == "ü"


def _distance(one: Any, other: Any) -> float:
    """The largest difference between two samples' distribution functions."""
    import numpy as np

    places = np.unique(np.concatenate([one, other]))
    ranks = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (one, other)]
    return float(np.max(np.abs(ranks[0] - ranks[1])))


@pytest.mark.parametrize("name", [name for name, config in GOOD.items() if "ray_tune" in config])
def test_builders_take_every_good_config(name: str) -> None:
    from airflow_provider_raynode.runtime.scheduler import build_scheduler
    from airflow_provider_raynode.runtime.searcher import build_searcher

    config = RayConfig.load(GOOD[name])
    assert config.ray_tune is not None
    if config.missing_libraries():
        pytest.skip("a library is not installed")
    scheduler = build_scheduler(config)
    assert (scheduler is None) == (config.ray_tune.scheduler is None)
    # Ray refuses a metric that stands in the TuneConfig and in the scheduler.
    if scheduler is not None:
        assert scheduler.set_search_properties(config.ray_tune.metric, config.ray_tune.mode)
    assert build_searcher(config) is not None


def test_what_ray_train_and_tune_call_their_settings() -> None:
    from ray import train
    from ray import tune as ray_tune

    from airflow_provider_raynode.config.scaling import Scaling
    from airflow_provider_raynode.config.train import TrainCheckpoint, TrainFailure, TrainLogging
    from airflow_provider_raynode.config.tune import Checkpoint, Failure

    for ours, ray, not_ours in (
        (Scaling, train.ScalingConfig, {"trainer_resources"}),
        (TrainLogging, train.LoggingConfig, set()),
        (TrainFailure, train.FailureConfig, {"fail_fast"}),
        (TrainCheckpoint, train.CheckpointConfig, {"checkpoint_frequency", "checkpoint_at_end"}),
        (Failure, ray_tune.FailureConfig, set()),
        (Checkpoint, ray_tune.CheckpointConfig, {"checkpoint_frequency", "checkpoint_at_end"}),
    ):
        theirs = {name: each.default for name, each in inspect.signature(ray).parameters.items() if name[0] != "_"}
        own = (
            {"min_successful", "on_resume", "stall_timeout_s", "on_stall"} if ours is Failure else set()
        )  # of the node, not of Ray
        assert set(ours.model_fields) - own == set(theirs) - not_ours, ours
        for name, field in ours.model_fields.items():
            if name in own or name == "log_level":  # the node itself says what Ray says at INFO
                continue
            # Left out it is Ray's own, and the node's where each trial of a search is a training.
            assert field.default == (None if name == "controller_failure_limit" else theirs[name]), (ours, name)


def test_runtime_env_knows_rays_keys() -> None:
    from ray.runtime_env import RuntimeEnv as Theirs
    from ray.runtime_env import RuntimeEnvConfig as TheirConfig

    from airflow_provider_raynode.config import RuntimeEnv, RuntimeEnvConfig

    public = {name for name in Theirs.known_fields if not name.startswith("_")}
    assert set(RuntimeEnv.model_fields) == public | {"nsight", "rocprof_sys"}
    assert set(RuntimeEnvConfig.model_fields) == set(TheirConfig.known_fields)
