"""Every scheduler, as the builder makes it from a config, on a real Ray Tune: it must do what it is for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig

pytestmark = pytest.mark.ray

STEPS = 9
LR = {"type": "uniform", "low": 0, "high": 1}


@pytest.fixture(scope="module")
def embedded_ray() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        # The workers cannot import a test module.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


def climb(config: dict[str, Any]) -> None:
    """A trial whose score grows by its rate at each step, and which goes on from its checkpoint."""
    import tempfile

    from ray import tune

    step, total, rates = 0, 0.0, []
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step, total, rates = json.loads((Path(folder) / "state.json").read_text())
    while step < STEPS:
        step, total, rates = step + 1, total + config["lr"], [*rates, config["lr"]]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps([step, total, rates]))
            tune.report(
                {"score": total, "rates": rates, "step": step}, checkpoint=tune.Checkpoint.from_directory(folder)
            )


def search(scheduler: Any, folder: Path, samples: int = 6, **tune_section: Any) -> Any:
    from ray import tune

    from airflow_provider_raynode.runtime.completion import SearchEnd
    from airflow_provider_raynode.runtime.controller import controlled
    from airflow_provider_raynode.runtime.scheduler import build_scheduler
    from airflow_provider_raynode.runtime.searcher import build_searcher
    from airflow_provider_raynode.runtime.space import build_search_space

    config = RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "max",
                "seed": 3,
                "num_samples": samples,
                "search_space": {"lr": LR},
                "scheduler": scheduler,
                **tune_section,
            }
        }
    )
    section = config.ray_tune
    assert section is not None
    tuner = tune.Tuner(
        climb,
        param_space=build_search_space(config),
        tune_config=tune.TuneConfig(
            metric=section.metric,
            mode=section.mode,
            search_alg=build_searcher(config),
            scheduler=build_scheduler(config),
            num_samples=section.num_samples,
            reuse_actors=section.reuse_actors,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, name="search"),
    )
    with controlled(SearchEnd(section, samples, alone=True)):
        grid = tuner.fit()
    assert grid.num_errors == 0, grid.errors
    return grid


def steps(grid: Any) -> list[int]:
    return sorted(result.metrics["step"] for result in grid)


def test_fifo_runs_every_trial_to_its_end(embedded_ray: None, tmp_path: Path) -> None:
    assert steps(search("fifo", tmp_path)) == [STEPS] * 6


def test_asha_stops_bad_trials_early(embedded_ray: None, tmp_path: Path) -> None:
    grid = search({"type": "asha", "max_t": STEPS, "grace_period": 1, "reduction_factor": 2}, tmp_path, samples=8)
    assert min(steps(grid)) < STEPS
    assert max(steps(grid)) == STEPS


def test_hyperband_stops_bad_trials_early(embedded_ray: None, tmp_path: Path) -> None:
    grid = search({"type": "hyperband", "max_t": STEPS}, tmp_path, samples=8)
    assert min(steps(grid)) < STEPS


def test_bohb_with_its_scheduler(embedded_ray: None, tmp_path: Path) -> None:
    pytest.importorskip("hpbandster")
    grid = search({"type": "hb_bohb", "max_t": STEPS}, tmp_path, samples=8, search_algorithm="bohb")
    assert min(steps(grid)) < STEPS


def test_median_stops_bad_trials_early(embedded_ray: None, tmp_path: Path) -> None:
    grid = search({"type": "median", "grace_period": 2, "min_samples_required": 2}, tmp_path, samples=8)
    assert min(steps(grid)) < STEPS
    assert max(steps(grid)) == STEPS


def test_pbt_changes_hyperparameters_on_the_way(embedded_ray: None, tmp_path: Path) -> None:
    mutations = {"lr": LR, "kind": {"type": "choice", "choices": ["a", "b"]}, "nested": {"size": [1, 2, 4]}}
    # In step with each other, so that the worst and the best of all four are known at each change.
    scheduler = {"type": "pbt", "perturbation_interval": 2, "hyperparam_mutations": mutations, "synch": True}
    grid = search(scheduler, tmp_path, samples=4)
    assert steps(grid) == [STEPS] * 4
    changed = [result for result in grid if len(set(result.metrics["rates"])) > 1]
    assert changed
    assert all(result.config["kind"] in ("a", "b") for result in grid)
    assert all(result.config["nested"]["size"] in (1, 2, 4) for result in grid)


def test_pbt_schedule_is_replayed(embedded_ray: None, tmp_path: Path) -> None:
    # One change in nine steps: Ray 2.60 ends a replayed trial one report after its first change.
    scheduler = {"type": "pbt", "perturbation_interval": 5, "hyperparam_mutations": {"lr": LR}, "synch": True}
    search(scheduler, tmp_path / "first", samples=4)
    policy = next((tmp_path / "first").rglob("pbt_policy_*.txt"))
    grid = search({"type": "pbt_replay", "policy_file": str(policy)}, tmp_path / "second", samples=1, search_space={})
    # A line: the two trials, their steps, the config before and after the change.
    *_, before, after = json.loads(policy.read_text())
    rates = grid[0].metrics["rates"]
    assert (rates[0], rates[-1]) == (before["lr"], after["lr"])


def test_pb2_keeps_to_its_bounds(embedded_ray: None, tmp_path: Path) -> None:
    scheduler = {"type": "pb2", "perturbation_interval": 2, "hyperparam_bounds": {"lr": [0.2, 0.8]}, "synch": True}
    space = {"lr": {"type": "uniform", "low": 0.2, "high": 0.8}}
    grid = search(scheduler, tmp_path, samples=4, search_space=space)
    assert steps(grid) == [STEPS] * 4
    rates = [rate for result in grid for rate in result.metrics["rates"]]
    assert any(len(set(result.metrics["rates"])) > 1 for result in grid)
    assert 0.2 - 1e-6 <= min(rates) <= max(rates) <= 0.8 + 1e-6  # PB2 computes in 32 bits


def test_resource_changing_runs_over_its_base(embedded_ray: None, tmp_path: Path) -> None:
    scheduler = {
        "type": "resource_changing",
        "base_scheduler": {"type": "asha", "max_t": STEPS, "reduction_factor": 2},
        "resources_allocation_function": {"type": "DistributeResourcesToTopJob", "increase_by": {"CPU": 1}},
    }
    grid = search(scheduler, tmp_path, samples=2)
    assert len(grid) == 2
    assert max(steps(grid)) == STEPS


def test_a_placement_group_that_is_lost_is_asked_for_anew(
    embedded_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.air.execution import PlacementGroupResourceManager

    from airflow_provider_raynode.runtime import controller

    asked = []
    request_resources = PlacementGroupResourceManager.request_resources

    def never_told_of_the_first(self: Any, resource_request: Any) -> None:
        request_resources(self, resource_request)
        asked.append(resource_request)
        if len(asked) == 1:
            (group,) = self._request_to_staged_pgs[resource_request]
            del self._staging_future_to_pg[self._pg_to_staging_future[group]]
            never = ray.util.placement_group([{"CPU": 1000}]).ready()
            self._staging_future_to_pg[never] = group
            self._pg_to_staging_future[group] = never

    monkeypatch.setattr(PlacementGroupResourceManager, "request_resources", never_told_of_the_first)
    monkeypatch.setattr(controller, "_LOST_S", 1.0)
    assert steps(search("fifo", tmp_path, samples=1)) == [STEPS]
    assert len(asked) == 2


def steps_by_rate(grid: Any) -> list[int]:
    """The steps of each trial, the worst rate first."""
    rows = sorted((result.config["lr"], result.metrics["training_iteration"]) for result in grid)
    return [steps for _, steps in rows]


@pytest.mark.parametrize(
    ("pruner", "arguments"),
    [
        ("MedianPruner", {"n_startup_trials": 2, "n_warmup_steps": 2}),
        ("percentile_pruner", {"percentile": 50.0, "n_startup_trials": 2}),
        ("SuccessiveHalvingPruner", {"min_resource": 2, "reduction_factor": 2}),
        ("HyperbandPruner", {"min_resource": 2, "max_resource": STEPS, "reduction_factor": 2}),
        ("ThresholdPruner", {"lower": 0.5, "n_warmup_steps": 3}),
        ("PatientPruner", {"patience": 2, "wrapped_pruner": {"type": "MedianPruner", "n_startup_trials": 2}}),
        ("PatientPruner", {"patience": 2, "min_delta": 0.0}),
    ],
)
def test_a_pruner_of_optuna_stops_the_worst_and_lets_the_best_go_on(
    embedded_ray: None, tmp_path: Path, pruner: str, arguments: dict[str, Any]
) -> None:
    pytest.importorskip("optuna")
    space = {"lr": {"type": "grid_search", "values": [0.8, 0.7, 0.6, 0.01, 0.02]}}
    scheduler = {"type": pruner, **arguments}
    grid = search(scheduler, tmp_path, samples=1, search_space=space, max_concurrent_trials=1)
    assert not grid.errors
    steps = steps_by_rate(grid)
    assert steps[-1] == STEPS, "the best trial was stopped"
    if pruner == "PatientPruner":
        # Every rate makes the score grow at each step: none of them loses the patience.
        assert steps == [STEPS] * 5
    else:
        assert min(steps) < STEPS, "none was stopped"
        assert steps[0] <= steps[-1]


def test_a_pruner_works_beside_any_search_algorithm(embedded_ray: None, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    scheduler = {"type": "ThresholdPruner", "lower": 0.5, "time_attr": "step", "n_warmup_steps": 3}
    grid = search(scheduler, tmp_path, samples=6, search_algorithm={"type": "optuna", "sampler": "RandomSampler"})
    assert not grid.errors
    for result in grid:
        # The score of step n is n times the rate; the first decision is at step 3.
        kept = all(step * result.config["lr"] >= 0.5 for step in range(3, STEPS + 1))
        assert (result.metrics["step"] == STEPS) == kept
