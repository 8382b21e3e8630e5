"""The search algorithm as Ray Tune takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import SearchAlgorithm, Searcher

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.searchers import (
    BasicVariantGenerator,
    BayesOptSearch,
    NevergradSearch,
    OptunaSearch,
    ZOOptSearch,
)
from airflow_provider_raynode.config.searchers import Searcher as SearcherConfig
from airflow_provider_raynode.config.space_tree import SpaceTree
from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime._ray_class import ray_class, seed_globals
from airflow_provider_raynode.runtime.encoding import EncodedSearcher, EncodedZOOpt, Encoding
from airflow_provider_raynode.runtime.names import travelling
from airflow_provider_raynode.runtime.random_search import RandomSearch

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.warm_start import EarlierTrial

# What each library does not know: Nevergrad rounds, which makes the two ends of a range of integers half as likely.
_ENCODINGS: dict[type[SearcherConfig], dict[str, bool]] = {
    BayesOptSearch: {"integers": False, "choices": False},
    NevergradSearch: {"integers": False},
    ZOOptSearch: {"always_new": True},
}


def build_searcher(config: RayConfig, earlier: Sequence[EarlierTrial] = ()) -> Searcher | SearchAlgorithm | None:
    """Return the search algorithm of the search; None where the config has no search.

    Metric, mode and the search space are not in it: Ray hands on those of the `Tuner`. `max_concurrent_trials` is in it
    only where Ray would ignore that of the `TuneConfig` (random and grid search). `ray_tune.seed` seeds it; where it
    takes no seed, Python's and numpy's global generators of this process are seeded.

    :param earlier: the trials of an earlier search, the best first: told to an algorithm that learns from known
        results, else the first of them are run again.
    :raises ConfigError: its library is not installed, or has no such optimizer.
    """
    tune = config.ray_tune
    if tune is None:
        return None
    config.check_libraries()
    searcher = tune.search_algorithm or BasicVariantGenerator(type="BasicVariantGenerator")
    seed_globals(tune.seed)
    # What is None is left to Ray's own default.
    arguments = {name: value for name, value in searcher.arguments().items() if value is not None}
    if searcher.seed_argument is not None and tune.seed is not None:
        arguments.setdefault(searcher.seed_argument, tune.seed)
    tree = SpaceTree(config.search_space)
    points = [tree.point(point).values for point in arguments.pop("points_to_evaluate", ())]
    told = isinstance(searcher, OptunaSearch) and not tune.further_metrics
    if tune.warm_start is not None and not told:
        points += [tree.point(trial.config).values for trial in earlier[: tune.warm_start.points]]
    if isinstance(searcher, BasicVariantGenerator):
        arguments["max_concurrent"] = _concurrency(tune, searcher)
        return RandomSearch(tree, points, **arguments)
    if isinstance(searcher, OptunaSearch) and tune.further_metrics:
        # Ray hands on a single metric only.
        arguments["metric"] = [travelling(name) for name in tune.objectives]
        arguments["mode"] = list(tune.objectives.values())
    if isinstance(searcher, OptunaSearch) and searcher.sampler is not None:
        from airflow_provider_raynode.runtime.sampler import build_sampler

        arguments["sampler"] = build_sampler(searcher.sampler, arguments.pop("seed", None))
    if isinstance(searcher, NevergradSearch):
        arguments["optimizer"] = _nevergrad_optimizer(searcher.optimizer)
    encoding = Encoding(tree, **_ENCODINGS.get(type(searcher), {}), every_value=searcher.runs_every_value)
    if isinstance(searcher, ZOOptSearch):
        return EncodedZOOpt(ray_class(searcher)(**arguments), tree, encoding, points)
    if points:
        arguments["points_to_evaluate"] = [encoding.proposal(point) for point in points]
    run = [] if arguments.get("evaluated_rewards") else points
    known = [(trial.config, trial.value) for trial in earlier] if told else []
    return EncodedSearcher(ray_class(searcher)(**arguments), tree, encoding, run, known)


def _concurrency(tune: RayTune, searcher: BasicVariantGenerator) -> int:
    limits = [limit for limit in (searcher.max_concurrent, tune.max_concurrent_trials) if limit]
    return min(limits, default=0)


def _nevergrad_optimizer(name: str) -> Any:
    from nevergrad.optimization import registry  # type: ignore[import-untyped,unused-ignore]

    from airflow_provider_raynode.config._section import one_of

    if name not in registry:
        near = one_of(name, sorted(registry)).partition(" allowed: ")[0]
        raise ConfigError(
            f"ray_tune.search_algorithm.optimizer: {near} allowed: the {len(registry)} names of Nevergrad's registry"
        )
    return registry[name]
