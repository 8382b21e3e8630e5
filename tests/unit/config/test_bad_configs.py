"""A table of wrong configs with what the message must say: key path, value, what is allowed, the nearest name."""
# ruff: noqa: E501  one case per line

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from config_cases import SPACE, TUNE, UNIFORM, searcher, space, tune

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.schema import json_schema
from airflow_provider_raynode.exceptions import ConfigError

INT = {"type": "randint", "low": 1, "high": 9}
LOG = {"type": "loguniform", "low": 0.1, "high": 1}
GRID = {"type": "grid_search", "values": [1, 2]}
FORK = {"type": "choice", "choices": [{"name": "sgd", "m": UNIFORM}, {"name": "adam", "m": UNIFORM, "b": LOG}]}
MUTATIONS = {"lr": UNIFORM}
PBT = {"type": "pbt", "hyperparam_mutations": MUTATIONS}

# config, exact text of the message's line after the source, whether a JSON schema can see it
# fmt: off
BAD: list[tuple[dict[Any, Any], str, bool]] = [
    # unknown keys, at each depth
    ({"ray_tune": TUNE, "ray_tunes": {}}, "ray_tunes: unknown key, did you mean 'ray_tune'? allowed: ray_cluster,", True),
    (tune(num_sampels=3), "ray_tune.num_sampels: unknown key, did you mean 'num_samples'? allowed: search_space,", True),
    (tune(zzz=3), "ray_tune.zzz: unknown key; allowed: search_space, metric, mode,", True),
    ({"ray_cluster": {"adress": "auto"}}, "ray_cluster.adress: unknown key, did you mean 'address'? allowed: address,", True),
    (
        {"ray_cluster": {"runtime_env": {"env_var": {}}}},
        "ray_cluster.runtime_env.env_var: unknown key, did you mean 'env_vars'? allowed: working_dir,",
        True,
    ),
    (
        {"ray_cluster": {"runtime_env": {"container": {"image": "i", "run_option": []}}}},
        "ray_cluster.runtime_env.container.run_option: unknown key, did you mean 'run_options'? allowed: image,",
        True,
    ),
    (tune(failure={"max_failure": 1}), "ray_tune.failure.max_failure: unknown key, did you mean 'max_failures'?", True),
    ({"default_resources": {"num_cpu": 1}}, "default_resources.num_cpu: unknown key, did you mean 'num_cpus'?", True),
    ({"catalog": {"url": "/c"}}, "catalog.url: unknown key, did you mean 'uri'? allowed: uri, shared", True),
    ({"ray_train": {"scaling": {"num_worker": 1}}}, "ray_train.scaling.num_worker: unknown key, did you mean", True),
    (
        tune(scheduler={"type": "asha", "grace_perod": 1}),
        "ray_tune.scheduler.grace_perod: unknown key, did you mean 'grace_period'? allowed: type, time_attr,",
        True,
    ),
    (
        searcher({"type": "optuna", "sed": 1}),
        "ray_tune.search_algorithm.sed: unknown key, did you mean 'seed'? allowed:",
        True,
    ),
    (space({**UNIFORM, "hihg": 2}), "ray_tune.search_space.x.hihg: unknown key, did you mean 'high'? allowed: type, low, high", True),
    # wrong kinds of values
    ({"ray_tune": 3}, "ray_tune: 3 is not a mapping (key: value)", True),
    ({"ray_tune": [TUNE]}, "is not a mapping (key: value)", True),
    (tune(metric=5), "ray_tune.metric: 5 is not text: put it in quotes", True),
    (tune(metric=""), "ray_tune.metric: is empty", True),
    (tune(mode="maximum"), "ray_tune.mode: 'maximum' is not allowed, did you mean 'max'? allowed: min, max", True),
    (tune(mode=False), "ray_tune.mode: False is not allowed (YAML reads an unquoted yes, no, on or off as a boolean", True),
    (tune(metric=True), "ray_tune.metric: True is not text (YAML reads an unquoted yes, no, on or off as a boolean", True),
    (tune(num_samples=True), "ray_tune.num_samples: True is a boolean, not an integer", True),
    (tune(num_samples="many"), "ray_tune.num_samples: 'many' is not an integer", True),
    (tune(num_samples=2.5), "ray_tune.num_samples: 2.5 is not an integer", True),
    (tune(num_samples=0), "ray_tune.num_samples: 0 is not allowed: 1 or more, or -1 with time_budget_s", False),
    (tune(num_samples=-3), "ray_tune.num_samples: -3 is not allowed: 1 or more, or -1 with time_budget_s", False),
    (tune(num_samples=-1), "ray_tune.num_samples: -1 (without end) needs time_budget_s", False),
    (tune(max_concurrent_trials=0), "ray_tune.max_concurrent_trials: 0 is below 1, the least allowed", True),
    (tune(time_budget_s=0), "ray_tune.time_budget_s: 0 is not above 0", True),
    (tune(time_budget_s=float("inf")), "ray_tune.time_budget_s: inf is not a finite number", False),
    (tune(stop={"training_iteration": "soon"}), "ray_tune.stop.training_iteration: 'soon' is not a number", True),
    (tune(stop=5), "ray_tune.stop: 5 is not a mapping (key: value)", True),
    (tune(seed=-1), "ray_tune.seed: -1 is below 0, the least allowed", True),
    (tune(reuse_actors="maybe"), "ray_tune.reuse_actors: 'maybe' is neither true nor false", True),
    (tune(keep_outputs="bset"), "ray_tune.keep_outputs: 'bset' is not allowed, did you mean 'best'? allowed: best, all", True),
    (tune(scope="last-5"), "ray_tune.scope: 'last-5' is not allowed, did you mean 'last'? allowed: last, all,", True),
    # metric and mode
    ({"ray_tune": {"search_space": SPACE, "mode": "max"}}, "ray_tune.metric: is missing: the name of the returned", False),
    ({"ray_tune": {"search_space": SPACE, "metric": "m"}}, "ray_tune.mode: is missing: max or min", False),
    (
        tune(scheduler={"type": "asha", "metric": "loss"}),
        "ray_tune.scheduler.metric: 'loss' contradicts 'accuracy' in another place: say it once, in ray_tune.metric",
        False,
    ),
    (
        searcher({"type": "optuna", "mode": "min"}),
        "ray_tune.search_algorithm.mode: 'min' contradicts 'max' in another place",
        False,
    ),
    (
        {"ray_tune": {"search_space": SPACE, "search_algorithm": {"type": "optuna", "metric": "a", "mode": "max"},
                      "scheduler": {"type": "asha", "metric": "b"}}},
        "ray_tune.scheduler.metric: 'b' contradicts 'a' in another place",
        False,
    ),
    (searcher({"type": "optuna", "metric": ["a", "b"]}), "ray_tune.search_algorithm.metric: ['a', 'b'] contradicts 'accuracy'", False),
    # the search space
    (tune(search_space={}), "ray_tune.search_space: is missing or empty: name at least one hyperparameter", False),
    (tune(search_space=[1]), "ray_tune.search_space: [1] is not a mapping (name: domain or constant)", True),
    (space({"type": "unifrom", "low": 0, "high": 1}), "ray_tune.search_space.x.type: 'unifrom' is no domain, did you mean 'uniform'?", False),
    (space({"type": "loguniformm"}), "ray_tune.search_space.x.type: 'loguniformm' is no domain, did you mean 'loguniform'?", False),
    (space({"type": "float", "low": 0, "high": 1}), "ray_tune.search_space.x.type: 'float' is no domain, did you mean 'uniform'?", False),
    (space({"type": "beta", "low": 0, "high": 1}), "ray_tune.search_space.x.type: 'beta' is no domain", False),
    (space({"type": "sample_from"}), "ray_tune.search_space.x.type: 'sample_from' needs code and cannot be said here", False),
    (space({"low": 0, "high": 1}), "ray_tune.search_space.x: type is missing, e.g. type: uniform", False),
    (space({"grid_search": [1, 2]}), "ray_tune.search_space.x: write a grid as {type: grid_search, values: […]}", False),
    (space({"eval": "1 + 1"}), "ray_tune.search_space.x: code cannot be said here", False),
    (space({"type": "uniform", "low": 0.5, "high": 0.1}), "ray_tune.search_space.x.low: 0.5 is not below high (0.1)", False),
    (space({"type": "randint", "low": 3, "high": 3}), "ray_tune.search_space.x.low: 3 is not below high (3)", False),
    (space({"type": "uniform", "low": 0}), "ray_tune.search_space.x.high: is missing: it is required", True),
    (space({"type": "uniform", "low": "a", "high": 1}), "ray_tune.search_space.x.low: 'a' is not a number", True),
    (space({"type": "uniform", "low": True, "high": 2}), "ray_tune.search_space.x.low: True is a boolean, not a number", True),
    (space({"type": "uniform", "low": 0, "high": float("nan")}), "ray_tune.search_space.x.high: nan is not a finite number", False),
    (space({"type": "uniform", "low": 0, "high": 10**400}), "is not a finite number", False),
    (space({"type": "randint", "low": 0, "high": 2.5}), "ray_tune.search_space.x.high: 2.5 is not an integer", True),
    (space({"type": "randint", "low": 0, "high": 2**63}), "ray_tune.search_space.x.high: 9223372036854775808 is not below", True),
    (space({"type": "loguniform", "low": 0, "high": 1}), "ray_tune.search_space.x.low: 0 is not above 0, which a logarithmic", False),
    (space({"type": "lograndint", "low": 0, "high": 9}), "ray_tune.search_space.x.low: 0 is not above 0, which a logarithmic", False),
    (space({**LOG, "base": 1}), "ray_tune.search_space.x.base: 1 is no base of a logarithm", False),
    (space({"type": "quniform", "low": 0, "high": 1, "q": 0}), "ray_tune.search_space.x.q: 0 is not above 0", True),
    (space({"type": "quniform", "low": 0.5, "high": 1.5, "q": 2}), "ray_tune.search_space.x.q: no multiple of it (2) lies between low (0.5) and high (1.5)", False),
    (space({"type": "qrandint", "low": 51, "high": 99, "q": 50}), "ray_tune.search_space.x.q: no multiple of it (50) lies between low (51) and high (99)", False),
    (space({"type": "quniform", "low": 0, "high": 1e6, "q": 1e-12}), "ray_tune.search_space.x.q: 1e-12 is too small for numbers up to 1e+06", False),
    (space({"type": "qrandn", "mean": 1e6, "sd": 1, "q": 1e-12}), "ray_tune.search_space.x.q: 1e-12 is too small for numbers up to 1.00001e+06", False),
    (space({"type": "qrandint", "low": 3, "high": 3}), "ray_tune.search_space.x.low: 3 is not below high (3), which is exclusive", False),
    (space({"type": "qrandint", "low": 17, "high": 23, "q": 6.5}), "ray_tune.search_space.x.q: 6.5 is not an integer", True),
    (space({"type": "qrandint", "low": 1, "high": 9, "q": 0}), "ray_tune.search_space.x.q: 0 is below 1, the least allowed", True),
    (space({"type": "randn", "sd": 0}), "ray_tune.search_space.x.sd: 0 is not above 0", True),
    (space({"type": "choice", "choices": []}), "ray_tune.search_space.x.choices: has 0 entries, the least allowed is 1", True),
    (space({"type": "choice", "choices": "abc"}), "ray_tune.search_space.x.choices: 'abc' is not a list ([a, b, …])", True),
    (space({"type": "choice"}), "ray_tune.search_space.x.choices: is missing: it is required", True),
    (
        space({"type": "choice", "choices": [1], "categories": [2]}),
        "ray_tune.search_space.x.categories: categories and choices are the same: keep choices",
        True,
    ),
    (space({"type": "choice", "choices": [[UNIFORM]]}), "ray_tune.search_space.x.choices[0][0]: a domain cannot stand inside a list: give it a key of its own", False),
    (space({"type": "choice", "choices": [GRID]}), "ray_tune.search_space.x.choices[0]: a grid cannot stand inside choices", False),
    (space({"type": "choice", "choices": [{"a": {"b": GRID}}]}), "ray_tune.search_space.x.choices[0].a.b: a grid cannot stand inside choices", False),
    (space({"type": "choice", "choices": [{"a": {"type": "unifrom", "low": 0, "high": 1}}]}), "ray_tune.search_space.x.choices[0].a.type: 'unifrom' is no domain, did you mean 'uniform'?", False),
    (space({"type": "choice", "choices": [{"a": {**UNIFORM, "low": 2}}]}), "ray_tune.search_space.x.choices[0].a.low: 2 is not below high (1)", False),
    (space({"type": "grid_search", "values": [UNIFORM]}), "ray_tune.search_space.x.values[0]: a domain cannot stand inside values", False),
    (space({"type": "constant", "value": {"eval": "1 + 1"}}), "ray_tune.search_space.x.value: cannot be said here: Ray would take it for a grid or for code", False),
    (tune(search_space={"run_config": UNIFORM}), "ray_tune.search_space.run_config: is a name that Ray keeps to itself here", False),
    (searcher({"type": "optuna", "sampler": "brute_force"}, UNIFORM), "ray_tune.search_space.x0: has no end of values, and BruteForceSampler runs each", False),
    (searcher({"type": "optuna", "sampler": "brute_force"}, {"type": "lograndint", "low": 1, "high": 10**6}), "ray_tune.search_space.x0: has 999999 values, and BruteForceSampler runs each", False),
    (tune(search_space={"eval": UNIFORM}), "ray_tune.search_space.eval: cannot be the only name of the space", False),
    (space([UNIFORM]), "ray_tune.search_space.x[0]: a domain cannot stand inside a list: give it a key of its own", False),
    (space({"y": {"type": "uniform", "low": 1, "high": 0}}), "ray_tune.search_space.x.y.low: 1 is not below high (0)", False),
    (space({"type": "constant"}), "ray_tune.search_space.x.value: is missing: it is required", True),
    (space(object), "is of type builtins.type: allowed are text, numbers, booleans, lists and mappings", False),
    (tune(search_space={True: 1}), "ray_tune.search_space: the key True is not text: put it in quotes", False),
    (space(float("nan")), "ray_tune.search_space.x: nan is not a finite number", False),
    # schedulers
    (tune(scheduler="asah"), "ray_tune.scheduler.type: 'asah' is not allowed, did you mean 'asha'? allowed: FIFOScheduler,", True),
    (tune(scheduler=5), "ray_tune.scheduler: 5 is neither the name of a scheduler nor a mapping with type", True),
    (tune(scheduler={"max_t": 5}), "ray_tune.scheduler.type: is missing: which scheduler; allowed: FIFOScheduler,", True),
    (tune(scheduler={"type": "asha", "max_t": 5, "grace_period": 9}), "ray_tune.scheduler.grace_period: 9 is above max_t (5)", False),
    (tune(scheduler={"type": "asha", "max_t": 1.5}), "ray_tune.scheduler.max_t: 1.5 is not an integer", True),
    (tune(scheduler={"type": "asha", "reduction_factor": 1}), "ray_tune.scheduler.reduction_factor: 1 is not above 1", True),
    (tune(scheduler={"type": "asha", "brackets": 0}), "ray_tune.scheduler.brackets: 0 is below 1, the least allowed", True),
    (tune(scheduler={"type": "pbt"}), "ray_tune.scheduler.hyperparam_mutations: is missing: it is required", True),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {}}), "ray_tune.scheduler.hyperparam_mutations: has 0 entries", False),
    (tune(scheduler={**PBT, "quantile_fraction": 0.6}), "ray_tune.scheduler.quantile_fraction: 0.6 is above 0.5, the most allowed", True),
    (tune(scheduler={**PBT, "perturbation_interval": 0}), "ray_tune.scheduler.perturbation_interval: 0 is not above 0", True),
    (tune(scheduler={**PBT, "custom_explore_fn": "f"}), "ray_tune.scheduler.custom_explore_fn: cannot be said here: it is a function", True),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {"lr": 3}}), "ray_tune.scheduler.hyperparam_mutations.lr: 3 is neither a list of values nor a domain", False),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {"lr": []}}), "ray_tune.scheduler.hyperparam_mutations.lr: is an empty list", False),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {"lr": GRID}}), "ray_tune.scheduler.hyperparam_mutations.lr: a grid cannot be a mutation", False),
    (tune(scheduler={"type": "pb2", "hyperparam_bounds": {"lr": [1, 0]}}), "ray_tune.scheduler.hyperparam_bounds.lr: 1 is not below 0: [low, high]", False),
    (tune(scheduler={"type": "pb2", "hyperparam_bounds": {"lr": 5}}), "ray_tune.scheduler.hyperparam_bounds.lr: 5 is not [low, high] with two numbers", False),
    (tune(scheduler={"type": "pbt_replay", "policy_file": "/p"}, num_samples=2), "ray_tune.num_samples: 2 is not 1: PopulationBasedTrainingReplay repeats one trial", False),
    (tune(scheduler="resource_changing", reuse_actors=True), "ray_tune.reuse_actors: must be false with ResourceChangingScheduler", False),
    (tune(scheduler={"type": "resource_changing", "base_scheduler": "ahsa"}), "ray_tune.scheduler.base_scheduler.type: 'ahsa' is not allowed, did you mean 'asha'?", True),
    (
        tune(scheduler={"type": "resource_changing", "base_scheduler": {"type": "asha", "mode": "min"}}),
        "ray_tune.scheduler.base_scheduler.mode: 'min' contradicts 'max' in another place",
        False,
    ),
    # search algorithms and what goes with them
    (searcher("optna"), "ray_tune.search_algorithm.type: 'optna' is not allowed, did you mean 'optuna'? allowed: BasicVariantGenerator,", True),
    (searcher({"type": "optuna", "storage": "x"}), "ray_tune.search_algorithm.storage: cannot be said here: it is an object of Optuna", True),
    (searcher({"type": "optuna", "space": {}}), "ray_tune.search_algorithm.space: cannot be said here: the space is ray_tune.search_space", True),
    (searcher({"type": "optuna", "evaluated_rewards": [1]}), "ray_tune.search_algorithm.evaluated_rewards: has 1 entries, points_to_evaluate has 0", False),
    (searcher("nevergrad"), "ray_tune.search_algorithm.optimizer: is missing: it is required", False),
    (searcher("zoopt"), "ray_tune.search_algorithm.budget: is missing: it is required", False),
    (searcher({"type": "zoopt", "budget": 5}), "ray_tune.search_algorithm.budget: 5 is below ray_tune.num_samples (10)", False),
    (searcher({"type": "zoopt", "budget": 10}, GRID), "ray_tune.search_space.x0: ZOOptSearch has no grid: use choice", False),
    (searcher("optuna", UNIFORM, points_to_evaluate=[]), "ray_tune.points_to_evaluate: unknown key", True),
    (searcher("optuna", GRID), "ray_tune.search_space.x0: OptunaSearch has no grid: use choice, or leave search_algorithm out", False),
    (searcher("optuna", 5), "ray_tune.search_space: nothing in it varies: OptunaSearch needs at least one domain", False),
    (searcher("bohb"), "ray_tune.search_algorithm.type: TuneBOHB works only with the scheduler HyperBandForBOHB, not with FIFOScheduler", False),
    (tune(scheduler="hb_bohb"), "ray_tune.scheduler.type: HyperBandForBOHB works only with the search algorithm TuneBOHB, not with BasicVariantGenerator", False),
    (searcher("optuna", scheduler=PBT), "ray_tune.search_algorithm.type: OptunaSearch does not work with PopulationBasedTraining", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{"lr": 1, "x": 1}]}), "ray_tune.search_algorithm.points_to_evaluate[0].x: is not in the search space", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{"lr": 2}]}), "points_to_evaluate[0].lr: 2 is not between low (0) and high (1)", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{}]}), "points_to_evaluate[0]: lr is missing: a point names every", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{"lr": True}]}), "points_to_evaluate[0].lr: True is a boolean, not a number", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{"lr": {}}]}), "points_to_evaluate[0].lr: {} is not a number", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": 1.5}]}, INT), "points_to_evaluate[0].x0: 1.5 is not an integer", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": 9}]}, INT), "points_to_evaluate[0].x0: 9 is not between low (1) and high (8)", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": 0.3}]}, {"type": "quniform", "low": 0, "high": 1, "q": 0.25}), "points_to_evaluate[0].x0: 0.3 is not a multiple of q (0.25); the nearest is 0.25", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": 3}]}, GRID), "points_to_evaluate[0].x0: 3 is none of the choices", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": True}]}, {"type": "choice", "choices": [1, 2]}), "points_to_evaluate[0].x0: True is none of the choices", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": {"name": "sgd", "m": 3}}]}, FORK), "points_to_evaluate[0].x0.m: 3 is not between low (0) and high (1)", False),
    (searcher({"type": "random", "points_to_evaluate": [{"x0": {"m": 0.5}}]}, FORK), "points_to_evaluate[0].x0: {'m': 0.5} is none of the choices", False),
    (searcher({"type": "optuna", "points_to_evaluate": [{"x0": {"name": "sgd"}}]}, FORK), "points_to_evaluate[0]: x0.m is missing: a point names every", False),
    (searcher({"type": "random", "points_to_evaluate": [{"lr": 0.5}] * 3}, num_samples=2), "ray_tune.search_algorithm.points_to_evaluate: has 3 entries, more than ray_tune.num_samples (2)", False),
    (tune(search_space={"lr": {"type": "choice", "choices": ["a", 1]}}, scheduler=PBT), "ray_tune.scheduler.hyperparam_mutations.lr: uniform changes numbers, and {'type': 'choice'", False),
    (tune(search_space={"lr": {"type": "choice", "choices": [1, 2]}}, scheduler={"type": "PB2", "hyperparam_bounds": {"lr": [1, 2]}}), "ray_tune.scheduler.hyperparam_bounds.lr: PB2 changes numbers within bounds, and", False),
    (tune(search_space={"lr": UNIFORM}, scheduler={"type": "PB2", "hyperparam_bounds": {"lr": [2, 3]}}), "ray_tune.scheduler.hyperparam_bounds.lr: leaves no value of the domain in search_space: 2 is above 1", False),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {"lr": {"x": UNIFORM}}}), "ray_tune.scheduler.hyperparam_mutations.lr: is a nested part here and not in search_space", False),
    (tune(search_space={"a": {"lr": UNIFORM}}, scheduler={"type": "pbt", "hyperparam_mutations": {"a": [1, 2]}}), "ray_tune.scheduler.hyperparam_mutations.a: is one value here and not in search_space", False),
    (tune(search_space={"x": FORK}, scheduler={"type": "pbt", "hyperparam_mutations": {"x": {"m": UNIFORM}}}), "ray_tune.scheduler.hyperparam_mutations.x: is a nested part here and not in search_space", False),
    (tune(scheduler={"type": "pbt", "hyperparam_mutations": {"x": {"type": "choice", "choices": [{"m": INT}]}}}), "ray_tune.scheduler.hyperparam_mutations.x.choices[0].m: a domain cannot stand inside the choices of a mutation", False),
    # failure, checkpoint
    (tune(failure={"max_failures": -2}), "ray_tune.failure.max_failures: -2 is below -1, the least allowed", True),
    (tune(failure={"max_failures": 1, "fail_fast": True}), "ray_tune.failure.max_failures: 1 contradicts fail_fast", False),
    (tune(checkpoint={"num_to_keep": 0}), "ray_tune.checkpoint.num_to_keep: 0 is below 1, the least allowed", True),
    (tune(checkpoint={"checkpoint_at_end": True}), "ray_tune.checkpoint.checkpoint_at_end: cannot be said here: a function reports", True),
    # cluster, resources, catalog, train
    ({"ray_cluster": {"address": "ftp://x"}}, "ray_cluster.address: 'ftp://x' is not an address of Ray; allowed: http(s)://host:8265", False),
    ({"ray_cluster": {"address": "lcoal"}}, "ray_cluster.address: 'lcoal' is not an address of Ray, did you mean 'local'? allowed:", False),
    ({"ray_cluster": {"address": "http://x:99999"}}, "ray_cluster.address: 'http://x:99999' is not an address of Ray: its port is '99999', expected 1 to 65535", False),
    ({"ray_cluster": {"address": "x:99999"}}, "ray_cluster.address: 'x:99999' is not an address of Ray: its port is '99999'", False),
    ({"ray_cluster": {"address": "ray://[::1]:0"}}, "ray_cluster.address: 'ray://[::1]:0' is not an address of Ray: its port is '0'", False),
    ({"ray_cluster": {"address": "http://x:port/y"}}, "ray_cluster.address: 'http://x:port/y' is not an address of Ray: its port is 'port'", False),
    ({"ray_cluster": {"address": "https://me:secret@x"}}, "ray_cluster.address: holds a user or a password", False),
    ({"ray_cluster": {"runtime_env": {"env_vars": {"PIN": 4711}}}}, "ray_cluster.runtime_env.env_vars.PIN: the value is a int, not text", True),
    ({"ray_cluster": {"runtime_env": {"image_uri": "i", "pip": ["x"]}}}, "ray_cluster.runtime_env.pip: cannot be beside image_uri", False),
    ({"ray_cluster": {"runtime_env": {"image_uri": "i", "container": {"image": "i"}}}}, "ray_cluster.runtime_env.image_uri: cannot be beside container", False),
    ({"ray_cluster": {"runtime_env": {"pip": ["x"], "uv": ["y"]}}}, "ray_cluster.runtime_env.uv: cannot be beside pip", False),
    ({"ray_cluster": {"runtime_env": {"container": {}}}}, "ray_cluster.runtime_env.container.image: is missing: it is required", True),
    ({"default_resources": {"num_cpus": 0}}, "default_resources.num_cpus: 0 is not above 0", True),
    ({"default_resources": {"num_gpus": 1.5}}, "default_resources.num_gpus: 1.5 is neither below 1 nor whole", False),
    ({"default_resources": {"memory": "4GB"}}, "default_resources.memory: '4GB' is not an integer", True),
    ({"default_resources": {"resources": {"CPU": 1}}}, "default_resources.resources.CPU: is Ray's own resource: say it in num_cpus", False),
    ({"catalog": {"uri": "relative/folder"}}, "catalog.uri: 'relative/folder' is neither an absolute path (/…) nor a URI", False),
    ({"catalog": {"shared": "x"}}, "catalog.shared: 'x' is neither true nor false", True),
    ({"ray_train": {"scaling": {"num_workers": [4, 1]}}}, "ray_train.scaling.num_workers: 4 is above 1: [least, most]", False),
    ({"ray_train": {"scaling": {"placement_strategy": "PAK"}}}, "ray_train.scaling.placement_strategy: 'PAK' is not allowed, did you mean 'PACK'?", True),
]
# fmt: on


@pytest.mark.parametrize(("config", "line", "by_schema"), BAD, ids=[line[:60] for _, line, _ in BAD])
def test_bad_config_is_refused_by_name(config: dict[Any, Any], line: str, by_schema: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        RayConfig.load(config, source="the.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("the.yaml: ")
    assert line in lines[0]


def test_table_is_as_large_as_promised() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("config", [config for config, _, by_schema in BAD if by_schema], ids=repr)
def test_schema_refuses_what_a_schema_can_see(config: dict[Any, Any]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(config)


def test_every_problem_is_listed_with_its_place() -> None:
    config = {
        "ray_cluster": {"address": "nowhere", "runtime_env": {"env_vars": {"A": 1}}},
        "ray_tune": {
            "metric": 5,
            "num_sampels": 3,
            "search_space": {
                "a": {"type": "uniform", "low": 1, "high": 0},
                "b": {"type": "choice", "choices": []},
                "c": float("inf"),
            },
            "scheduler": {"type": "asha", "max_t": 0, "x": 1},
            "search_algorithm": "optna",
        },
        "catalog": {"shared": 3},
    }
    with pytest.raises(ConfigError) as caught:
        RayConfig.load(config, source="f.yaml")
    places = {line.split(": ")[1] for line in str(caught.value).splitlines()}
    assert places == {
        "ray_cluster.address",
        "ray_cluster.runtime_env.env_vars.A",
        "ray_tune.metric",
        "ray_tune.num_sampels",
        "ray_tune.search_space.c",
        "ray_tune.scheduler.max_t",
        "ray_tune.scheduler.x",
        "ray_tune.search_algorithm.type",
        "catalog.shared",
    } | {"ray_tune.search_space.a.low", "ray_tune.search_space.b.choices"}


def test_secrets_stay_out_of_the_message() -> None:
    config = {"ray_cluster": {"address": "http://user:hunter2@head", "runtime_env": {"env_vars": {"PIN": 90125}}}}
    with pytest.raises(ConfigError) as caught:
        RayConfig.load(config)
    assert "hunter2" not in str(caught.value)
    assert "90125" not in str(caught.value)
