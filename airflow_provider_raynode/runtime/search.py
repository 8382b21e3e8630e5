"""One search: the spec's config as a Ray Tune run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import ResultGrid
from ray.tune.search import Searcher

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.space_tree import SpaceTree
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.runtime.controller import controlled
from airflow_provider_raynode.runtime.experiment import (
    name_trials,
    restored_tuner,
    storage_of,
    write_state_often,
)
from airflow_provider_raynode.runtime.names import key_of, travelling
from airflow_provider_raynode.runtime.observer import Observer
from airflow_provider_raynode.runtime.references import references, training_references
from airflow_provider_raynode.runtime.scheduler import build_scheduler
from airflow_provider_raynode.runtime.search_state import keep_states_whole, search_of
from airflow_provider_raynode.runtime.searcher import build_searcher
from airflow_provider_raynode.runtime.space import build_search_space
from airflow_provider_raynode.runtime.steady import SteadySearcher
from airflow_provider_raynode.runtime.stop import build_stop
from airflow_provider_raynode.runtime.warm_start import earlier_trials
from airflow_provider_raynode.runtime.worker import TrialSetup, run_trial
from airflow_provider_raynode.spec import NodeSpec

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.tuned_training import TunedSetup


def run_search(
    spec: NodeSpec, setup: TrialSetup | TunedSetup, inputs: Mapping[str, Any], catalog: Catalog, observer: Observer
) -> ResultGrid:
    """Run the search to its end and return Tune's results.

    :param inputs: op_kwargs, loaded; they go into Ray's object store once.
    """
    config = spec.config
    search = config.ray_tune
    assert search is not None
    storage_path, filesystem = storage_of(spec, catalog)
    setup = replace(setup, references=(*references(search), *training_references(config)))
    if isinstance(setup, TrialSetup):
        trial = _trainable(setup, inputs)
    else:
        from airflow_provider_raynode.runtime.tuned_training import trainings

        experiment = f"{storage_path}/{spec.experiment_name}"
        trial = trainings(replace(setup, experiment=experiment, filesystem=filesystem), inputs)
    trainable = tune.with_resources(trial, resources(config))
    if not search.logger_callbacks:
        # It would miss, loudly, the files that nobody asked for.
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    space = build_search_space(config)
    observer.search = search_of(spec)
    keep_states_whole()
    name_trials(spec)
    tuner = restored_tuner(spec, trainable, space, storage_path, filesystem, observer)
    if tuner is None:
        searcher = build_searcher(config, earlier_trials(config, catalog))
        tuner = _new_tuner(spec, trainable, space, searcher, observer, storage_path, filesystem)
    write_state_often(local=catalog.is_local, trials=observer.seen)
    with controlled(observer.end, kill=config.ray_train is not None):
        return tuner.fit()


def _new_tuner(
    spec: NodeSpec,
    trainable: Any,
    space: dict[str, Any],
    searcher: Any,
    observer: Observer,
    storage_path: str,
    filesystem: Any,
) -> tune.Tuner:
    config = spec.config
    search = config.ray_tune
    assert search is not None
    name_trials(spec, searcher)
    assert search.metric is not None
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            # Several metrics are between the search algorithm and the node: Tune knows of one.
            metric=None if search.further_metrics else travelling(search.metric),
            mode=None if search.further_metrics else search.mode,
            num_samples=search.num_samples,
            max_concurrent_trials=search.max_concurrent_trials,
            time_budget_s=search.time_budget_s,
            search_alg=SteadySearcher(searcher) if isinstance(searcher, Searcher) else searcher,
            scheduler=build_scheduler(config),
            reuse_actors=search.reuse_actors,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=spec.experiment_name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            stop=build_stop(search),
            # fail_fast is the observer's: Tune would mark the trials that it cuts off as terminated.
            failure_config=tune.FailureConfig(max_failures=search.failure.max_failures),
            checkpoint_config=_checkpoints(config),
            callbacks=[observer],
            verbose=0,
        ),
    )


def _checkpoints(config: RayConfig) -> tune.CheckpointConfig:
    assert config.ray_tune is not None
    kept = config.ray_tune.checkpoint if config.ray_train is None else config.train_checkpoint
    fields = kept.model_dump()
    if kept.checkpoint_score_attribute is not None:
        fields["checkpoint_score_attribute"] = key_of(kept.checkpoint_score_attribute)
    return tune.CheckpointConfig(**fields)


def _trainable(setup: TrialSetup, inputs: Mapping[str, Any]) -> Callable[..., None]:
    """Return the function that Tune runs per trial.

    What is small travels with it, once per worker process. The inputs lie in Ray's object store: once per machine, but
    fetched anew by each trial, which costs some milliseconds, so a node without inputs does without.
    """
    if not inputs:

        def trial(config: dict[str, Any]) -> None:
            run_trial(config, setup=setup, inputs={})

        return trial

    def trial_with_inputs(config: dict[str, Any], *, inputs: Mapping[str, Any]) -> None:
        run_trial(config, setup=setup, inputs=inputs)

    trainable: Callable[..., None] = tune.with_parameters(trial_with_inputs, inputs=dict(inputs))
    return trainable


def total_trials(config: RayConfig) -> int | None:
    """Return how many trials the search has, None where only its time budget says."""
    search = config.ray_tune
    if search is None or search.num_samples < 0:
        return None
    tree = SpaceTree(search.search_space)
    points = getattr(search.search_algorithm, "points_to_evaluate", None) or []
    # A point that names a value of a grid is run with that value alone.
    fixed = sum(tree.combinations(tree.point(point).values) for point in points) if tree.grids else len(points)
    return fixed + (search.num_samples - len(points)) * tree.combinations()


def resources(config: RayConfig) -> dict[str, float] | tune.PlacementGroupFactory:
    """Return what one trial reserves, as `tune.with_resources` takes it.

    The workers of a training are in it: Tune starts a trial only where there is room for all of them.
    """
    unit = unit_of(config)
    labels = {} if unit.labels is None else {"bundle_label_selector": unit.labels}
    if config.ray_train is not None or labels:
        # Tune takes the first bundle for the trial's own process, which may reserve nothing.
        own: list[dict[str, float]] = [] if unit.processes[0].name == "trial" else [{}]
        return tune.PlacementGroupFactory([*own, *unit.bundles], unit.strategy, **labels)
    words = {"CPU": "cpu", "GPU": "gpu"}
    return {words.get(name, name): amount for name, amount in unit.bundles[0].items()}
