"""The models of samplers and pruners against Optuna itself: every class, every argument and default."""

from __future__ import annotations

import importlib
import inspect
import pickle
from typing import Any

import pytest
from config_cases import tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config._kinds import Kind
from airflow_provider_raynode.config.pruners import PRUNERS
from airflow_provider_raynode.config.samplers import SAMPLERS
from airflow_provider_raynode.exceptions import ConfigError

pytest.importorskip("optuna")

OURS = {"type", "time_attr", "metric", "mode"}
# What Optuna 5 leaves to be found out, said outright.
DEFAULTS: dict[tuple[str, str], Any] = {("TPESampler", "multivariate"): False}
# Deprecated arguments, which a config does not take.
DEPRECATED = {
    "TPESampler": {
        "consider_prior",
        "prior_weight",
        "consider_magic_clip",
        "consider_endpoints",
        "warn_independent_sampling",
    }
}
KINDS: tuple[type[Kind], ...] = (*PRUNERS, *SAMPLERS)
EXAMPLES: dict[str, dict[str, Any]] = {
    "PercentilePruner": {"percentile": 25},
    "ThresholdPruner": {"upper": 1},
    "PatientPruner": {"patience": 1, "wrapped_pruner": "hyperband_pruner"},
}


def signature(kind: type[Kind]) -> dict[str, inspect.Parameter]:
    module, _, name = kind.ray_class.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    return {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.class_name())
def test_arguments_and_defaults_are_those_of_optuna(kind: type[Kind]) -> None:
    theirs = signature(kind)
    ours = set(kind.model_fields) - OURS
    assert not ours & set(kind.not_in_yaml)
    assert ours | set(kind.not_in_yaml) == set(theirs) - DEPRECATED.get(kind.class_name(), set())
    for name in ours:
        field, default = kind.model_fields[name], theirs[name].default
        if field.is_required():
            assert default is inspect.Parameter.empty, name
        elif (kind.class_name(), name) in DEFAULTS:
            assert field.default == DEFAULTS[kind.class_name(), name] != default
        elif name != "wrapped_pruner":
            assert field.default == default, name


def test_every_pruner_and_sampler_of_optuna_is_there_or_has_another_name() -> None:
    import optuna

    named = {kind.class_name() for kind in KINDS}
    for module in (optuna.pruners, optuna.samplers):
        classes = {name for name in module.__all__ if inspect.isclass(getattr(module, name))}
        elsewhere = {"BasePruner", "NopPruner", "BaseSampler", "BaseGASampler", "GridSampler", "PartialFixedSampler"}
        assert classes - named <= elsewhere


@pytest.mark.parametrize("kind", PRUNERS, ids=lambda kind: kind.class_name())
def test_every_pruner_is_built(kind: type[Kind]) -> None:
    from airflow_provider_raynode.runtime.scheduler import build_scheduler

    scheduler = {"type": kind.class_name(), **EXAMPLES.get(kind.class_name(), {})}
    config = RayConfig.load(tune(scheduler=scheduler))
    assert RayConfig.load(config.model_dump(mode="json", exclude_unset=True)) == config
    built: Any = build_scheduler(config)
    assert type(built._pruner).__name__ == kind.class_name()
    # Tune writes the scheduler into its experiment before the search begins.
    pickle.loads(pickle.dumps(built))


@pytest.mark.parametrize("kind", SAMPLERS, ids=lambda kind: kind.class_name())
def test_every_sampler_is_built_with_the_seed_of_the_search(kind: type[Kind]) -> None:
    from airflow_provider_raynode.runtime.sampler import build_sampler

    config = RayConfig.load(
        {
            "ray_cluster": {"address": "auto"},
            **tune(
                seed=3,
                search_algorithm={"type": "optuna", "sampler": kind.class_name()},
                search_space={"layers": {"type": "randint", "low": 1, "high": 9}},
            ),
        }
    )
    assert config.ray_tune is not None
    missing = config.missing_libraries()
    if missing:
        pytest.skip(str(missing[0]))
    sampler: Any = config.ray_tune.search_algorithm.sampler  # type: ignore[union-attr]
    assert type(build_sampler(sampler, 3)).__name__ == kind.class_name()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("scheduler", {"type": "MedianPrunr"}, "did you mean 'MedianPruner'?"),
        ("scheduler", {"type": "MedianPruner", "warmup": 2}, "scheduler.warmup: unknown key"),
        ("scheduler", {"type": "ThresholdPruner"}, "scheduler.lower: is missing, and so is upper"),
        ("scheduler", {"type": "HyperbandPruner", "max_resource": 1.5}, "max_resource: 1.5 is neither an integer"),
        (
            "scheduler",
            {"type": "PatientPruner", "patience": 1, "wrapped_pruner": {"type": "MedianPruner", "mode": "max"}},
            "wrapped_pruner.mode: is that of the PatientPruner",
        ),
        ("search_algorithm", {"type": "optuna", "sampler": "tpesampel"}, "did you mean 'TPESampler'?"),
        ("search_algorithm", {"type": "optuna", "sampler": {"type": "tpe", "gamma": 3}}, "it is a function"),
        ("search_algorithm", {"type": "optuna", "sampler": {"type": "tpe", "group": True}}, "needs multivariate"),
        ("search_algorithm", {"type": "optuna", "seed": 1, "sampler": {"type": "tpe", "seed": 2}}, "contradicts seed"),
        ("search_algorithm", {"type": "hyperopt", "sampler": "tpe"}, "search_algorithm.sampler: unknown key"),
    ],
)
def test_mistakes_are_named(part: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RayConfig.load({"ray_cluster": {"address": "auto"}, **tune(**{part: value})})
    assert message in str(caught.value)
