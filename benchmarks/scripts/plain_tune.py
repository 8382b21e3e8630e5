"""A search as Ray's documentation writes it: the yardstick of `bench_node.py`. Prints the seconds of `Tuner.fit()`."""

from __future__ import annotations

import argparse
import json
import time

from ray import tune


def objective(config: dict) -> dict:
    if config["sleep"]:
        time.sleep(config["sleep"])
    return {"score": config["x"] ** 2}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--reuse-actors", action="store_true")
    parser.add_argument("--optuna", action="store_true")
    args = parser.parse_args()
    search_alg = None
    if args.optuna:
        from ray.tune.search.optuna import OptunaSearch

        search_alg = OptunaSearch()
    tuner = tune.Tuner(
        objective,
        param_space={"x": tune.uniform(-1, 1), "sleep": args.sleep},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=args.trials,
            search_alg=search_alg,
            reuse_actors=args.reuse_actors,
        ),
    )
    start = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - start
    assert len(results) == args.trials
    print("RESULT " + json.dumps({"fit_s": seconds, "best": results.get_best_result().metrics["score"]}))


if __name__ == "__main__":
    main()
