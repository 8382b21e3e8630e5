"""Good and bad configs, for several tests."""

from __future__ import annotations

from typing import Any

UNIFORM = {"type": "uniform", "low": 0, "high": 1}
SPACE = {"lr": UNIFORM}
TUNE: dict[str, Any] = {"metric": "accuracy", "mode": "max", "search_space": SPACE}

DESIGN = """\
ray_cluster:
  address: "ray://localhost:10001"      # or http(s)://host:8265, auto, local; default: the Airflow connection
  runtime_env:
    container: {image: "rayproject/ray-ml:2.8.0-py310"}
ray_tune:
  search_space:
    learning_rate: {type: loguniform, low: 0.0001, high: 0.1}
    batch_size: {type: choice, choices: [16, 32, 64, 128]}
    hidden_size: {type: randint, low: 64, high: 512}
  scheduler: {type: ASHAScheduler, max_t: 100, grace_period: 10, reduction_factor: 2}
  search_algorithm: {type: OptunaSearch, metric: accuracy, mode: max}
default_resources: {num_cpus: 2, num_gpus: 0, memory: 4000000000}
"""

ALL_DOMAINS: dict[str, Any] = {
    "a": {"type": "uniform", "low": -1.5, "high": 1},
    "b": {"type": "quniform", "low": 0, "high": 1, "q": 0.25},
    "c": {"type": "loguniform", "low": 1e-4, "high": 0.1, "base": 10},
    "d": {"type": "qloguniform", "low": 0.5, "high": 8, "q": 0.5},
    "e": {"type": "randn", "mean": 5, "sd": 2},
    "f": {"type": "qrandn", "mean": 5, "sd": 2, "q": 0.5},
    "g": {"type": "randint", "low": 3, "high": 9},
    "h": {"type": "qrandint", "low": 8, "high": 64, "q": 8},
    "i": {"type": "lograndint", "low": 2, "high": 100},
    "j": {"type": "qlograndint", "low": 4, "high": 64, "q": 4},
    "k": {"type": "choice", "choices": ["relu", None, 3, True, [1, 2], {"x": None}]},
    "l": {"type": "grid_search", "values": [1, "two"]},
    "m": {"n": {"o": UNIFORM, "p": "constant"}, "type": "resnet"},
    "q": [64, 64],
    "r": {"type": "constant", "value": {"type": "uniform", "low": None}},
    "s": None,
    "größe": {"categories": ["ü"], "type": "choice"},
}

CONDITIONAL: dict[str, Any] = {
    "type": "choice",
    "choices": [
        {"name": "sgd", "momentum": UNIFORM, "init": {"low": 0, "high": 1}},
        {
            "name": "adam",
            "inner": {
                "type": "Choice",
                "categories": [1, {"deep": {"q": {"type": "qrandint", "low": 10, "high": 200, "q": 50}}}],
            },
        },
        UNIFORM,
        {"type": "constant", "value": UNIFORM},
        [1, [2]],
    ],
}

GOOD: dict[str, dict[str, Any]] = {
    "smallest": {"ray_tune": TUNE},
    "every domain": {"ray_tune": {**TUNE, "search_space": ALL_DOMAINS}},
    "plain names": {"ray_tune": {**TUNE, "scheduler": "asha", "search_algorithm": "optuna"}},
    "metric below": {"ray_tune": {"search_space": SPACE, "scheduler": {"type": "asha", "metric": "m", "mode": "min"}}},
    "several metrics": {"ray_tune": {**TUNE, "metric": ["accuracy", "latency"], "mode": ["max", "min"]}},
    "several metrics, as Ray's OptunaSearch takes them": {
        "ray_tune": {
            "search_space": SPACE,
            "search_algorithm": {"type": "optuna", "metric": ["a", "b"], "mode": ["max", "min"], "sampler": "nsga2"},
        }
    },
    "further metrics": {"ray_tune": {**TUNE, "further_metrics": {"latency": "min"}, "stop": {"latency": 1}}},
    "pbt": {
        "ray_tune": {
            **TUNE,
            "scheduler": {"type": "pbt", "hyperparam_mutations": {"lr": UNIFORM, "k": [1, 2], "n": {"m": UNIFORM}}},
        }
    },
    "pb2": {
        "ray_tune": {**TUNE, "scheduler": {"type": "PB2", "hyperparam_bounds": {"lr": [0, 1], "n": {"m": [0, 2]}}}}
    },
    "resources change": {
        "ray_tune": {
            **TUNE,
            "scheduler": {
                "type": "resource_changing",
                "base_scheduler": {"type": "asha", "max_t": 9},
                "resources_allocation_function": {"type": "DistributeResourcesToTopJob", "increase_by": {"CPU": 1}},
            },
        }
    },
    "bohb": {
        "ray_tune": {**TUNE, "scheduler": "hb_bohb", "search_algorithm": {"type": "bohb", "bohb_config": {"x": 1}}}
    },
    "points": {
        "ray_tune": {**TUNE, "search_algorithm": {"type": "random", "points_to_evaluate": [{"lr": 0.5}]}},
    },
    "conditional": {
        "ray_tune": {
            **TUNE,
            "search_space": {"x": CONDITIONAL, "a/b": UNIFORM, "one": {**UNIFORM, "high": 0}},
            "search_algorithm": {
                "type": "optuna",
                "points_to_evaluate": [
                    {"x": {"name": "adam", "inner": {"deep": {"q": 100}}}, "a/b": 0.5},
                    {"x": {"name": "sgd", "init": {"low": 0, "high": 1}, "momentum": 1}, "a/b": 1, "one": 0},
                    {"x": 0.25, "a/b": 0},
                ],
            },
        }
    },
    "bounds that are no multiples": {
        "ray_tune": {
            **TUNE,
            "search_space": {
                "x": {"type": "qrandint", "low": 10, "high": 200, "q": 50},
                "y": {"type": "quniform", "low": 0.1, "high": 0.3, "q": 0.25},
                "z": {"type": "qloguniform", "low": 0.1, "high": 1, "q": 0.3},
            },
        }
    },
    "endless": {"ray_tune": {**TUNE, "num_samples": -1, "time_budget_s": 60}},
    "everything else": {
        "ray_cluster": {
            "address": "http://head:8265",
            "runtime_env": {
                "pip": ["torch"],
                "env_vars": {"A": "1"},
                "working_dir": ".",
                "excludes": ["*.bin"],
                "config": {"setup_timeout_seconds": 600},
            },
        },
        "ray_tune": {
            **TUNE,
            "num_samples": 4,
            "max_concurrent_trials": 2,
            "time_budget_s": 60,
            "stop": {"training_iteration": 9},
            "seed": 7,
            "failure": {"max_failures": 2},
            "checkpoint": {"num_to_keep": 1},
            "reuse_actors": False,
            "logger_callbacks": True,
            "keep_outputs": "all",
            "scope": "last-5-avg",
        },
        "default_resources": {"num_cpus": 0.5, "num_gpus": 0.5, "memory": 1000, "resources": {"tpu": 1}},
        "catalog": {"uri": "s3://bucket/prefix", "shared": True},
    },
    "train": {
        "ray_train": {
            "scaling": {"num_workers": [1, 4], "use_gpu": True, "resources_per_worker": {"CPU": 2}},
            "failure": {"max_failures": -1},
            "checkpoint": {"num_to_keep": 2},
            "worker_runtime_env": {"env_vars": {"A": "b"}},
        }
    },
}


def tune(**changes: Any) -> dict[str, Any]:
    """A config whose `ray_tune` has these keys too."""
    return {"ray_tune": {**TUNE, **changes}}


def space(value: Any) -> dict[str, Any]:
    """A config whose search space has the hyperparameter `x`."""
    return tune(search_space={"x": value})


def searcher(kind: Any, *domains: Any, **changes: Any) -> dict[str, Any]:
    """A config with a search algorithm over the domains `x0`, `x1`, …."""
    return tune(
        search_space={f"x{index}": each for index, each in enumerate(domains)} or SPACE,
        search_algorithm=kind,
        **changes,
    )
