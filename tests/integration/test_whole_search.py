"""A search is whole, or says so and goes on: first failures, standstills, time budgets, failed trials."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from staged import result_of, stage

from airflow_provider_raynode import report
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.operators._attempt import as_attempt
from airflow_provider_raynode.runtime.driver import Driver, read_spec
from airflow_provider_raynode.spec import Completion, NodeProgress, NodeResult, digest

pytestmark = pytest.mark.ray

UNIFORM = {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}


class Node:
    """A staged node, whose attempts run in this process."""

    def __init__(self, root: Path, function: Any, ray_tune: dict[str, Any], **options: Any) -> None:
        options.setdefault("resources", {"num_cpus": 0.5})
        self.job, self.spec, self.catalog = stage(root, function, ray_tune, **options)

    def run(self) -> NodeResult:
        spec, attempt = read_spec(self.job.spec_uri, self.job.spec_sha256)
        Driver(spec, self.job.spec_sha256, attempt, embedded=False).run()
        return result_of(self.job, self.catalog)

    def retry(self) -> NodeResult:
        """Run the next attempt, which goes on with the search."""
        first = self.spec.search_of or self.spec.attempt
        self.spec = as_attempt(self.spec, self.spec.attempt + 1).model_copy(update={"search_of": first})
        data = self.spec.to_bytes()
        uri = f"{self.spec.attempt_prefix}/spec.json"
        self.catalog.write_bytes(uri, data)
        self.job = self.job.model_copy(
            update={
                "attempt": self.spec.attempt,
                "submission_id": self.spec.submission_id,
                "spec_uri": uri,
                "spec_sha256": digest(data),
            }
        )
        return self.run()

    def table(self, reference: dict[str, Any] | None) -> Any:
        assert reference is not None
        return self.catalog.load(reference)


@pytest.fixture
def node(connected: None, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Stage a function with a search."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def staged(function: Any, ray_tune: dict[str, Any], **options: Any) -> Node:
        return Node(tmp_path, function, ray_tune, **options)

    yield staged
    for number, handler in handlers.items():
        signal.signal(number, handler)


def account(result: NodeResult) -> Completion:
    assert result.completion is not None
    return result.completion


def test_fail_fast_fails_and_its_retry_runs_the_rest(node: Callable[..., Node], tmp_path: Path) -> None:
    def train(x: int, mark: str) -> None:
        for step in range(1, 6):
            time.sleep(0.4)
            if x == 1 and step == 2 and not Path(mark).exists():
                Path(mark).write_text("seen")
                raise MemoryError("first try only")
            report({"score": float(step)})

    search = {
        "max_concurrent_trials": 2,
        "failure": {"fail_fast": True},
        "search_space": {"x": {"type": "grid_search", "values": [0, 1, 2, 3]}},
    }
    ran = node(train, search, op_kwargs={"mark": str(tmp_path / "mark")})
    first = ran.run()
    assert first.failure is not None
    assert first.failure.type == "FailFast"
    assert "MemoryError: first try only" in first.failure.message
    assert account(first).ending == "fail_fast"
    assert first.trial_states["ERROR"] == 1
    assert "TERMINATED" not in first.trial_states, "a trial that was cut off is not finished"
    second = ran.retry()
    assert second.failure is None, second.failure
    assert second.trial_states == {"TERMINATED": 4}
    trials = ran.table(second.trials)
    assert sorted(trials["config/x"]) == [0, 1, 2, 3]
    assert set(trials["training_iteration"]) == {5}
    steps = ran.table(second.steps)
    assert len(steps) == 20
    assert set(steps["trial_id"]) == set(trials["trial_id"])
    assert list(steps[steps["trial_id"] == trials["trial_id"][0]]["training_iteration"]) == [1, 2, 3, 4, 5]


def test_a_failed_random_trial_does_not_stop_bayesopt(node: Callable[..., Node]) -> None:
    def train(x: float) -> dict[str, float]:
        if x > 0.7:
            raise ValueError("diverged")
        return {"score": x}

    search = {"type": "bayesopt", "random_search_steps": 3}
    result = node(
        train, {**UNIFORM, "num_samples": 6, "seed": 3, "max_concurrent_trials": 1, "search_algorithm": search}
    ).run()
    assert result.failure is None, result.failure
    assert account(result).ended == 6
    assert account(result).failed >= 1
    assert any("of 6 trials failed" in warning for warning in result.warnings)


# Every search algorithm without a Ray: tests/unit/runtime/test_steady.py.
@pytest.mark.parametrize(
    "algorithm",
    [{"type": "zoopt", "budget": 20}, {"type": "nevergrad", "optimizer": "NelderMead"}, {"type": "bohb"}],
    ids=lambda algorithm: algorithm["type"],
)
def test_failures_among_the_first_trials(node: Callable[..., Node], tmp_path: Path, algorithm: dict[str, Any]) -> None:
    def train(x: float, folder: str) -> dict[str, float]:
        number, _ = tempfile.mkstemp(dir=folder)
        os.close(number)
        if len(list(Path(folder).iterdir())) <= 3:
            raise ValueError("diverged")
        return {"score": -((x - 0.4) ** 2)}

    folder = tmp_path / "marks"
    folder.mkdir()
    scheduler = {"scheduler": {"type": "HyperBandForBOHB", "max_t": 9}} if algorithm["type"] == "bohb" else {}
    result = node(
        train,
        {
            **UNIFORM,
            "num_samples": 6,
            "seed": 3,
            "max_concurrent_trials": 1,
            "search_algorithm": algorithm,
            "failure": {"stall_timeout_s": 20},
            **scheduler,
        },
        op_kwargs={"folder": str(folder)},
    ).run()
    assert result.failure is None, result.failure
    assert (account(result).ended, account(result).failed) == (6, 3)


@pytest.mark.parametrize("on_stall", ["fail", "finish"])
def test_a_standstill(node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, on_stall: str) -> None:
    from ray.tune.search.optuna import OptunaSearch

    propose = OptunaSearch.suggest
    proposed: list[str] = []

    def two(self: Any, trial_id: str) -> Any:
        proposed.append(trial_id)
        return propose(self, trial_id) if len(proposed) <= 2 else None

    monkeypatch.setattr(OptunaSearch, "suggest", two)
    failure = {"stall_timeout_s": 3, "on_stall": on_stall}
    result = node(
        lambda x: {"score": x},
        {**UNIFORM, "num_samples": 5, "search_algorithm": {"type": "optuna"}, "failure": failure},
    ).run()
    assert account(result).ending == "stalled"
    assert account(result).summary() == "2 of 5 finished, 3 not begun"
    if on_stall == "finish":
        assert result.failure is None
        assert "OptunaSearch proposed none" in result.warnings[0]
    else:
        assert result.failure is not None
        assert result.failure.type == "SearchStalled"


def test_a_time_budget_cuts_off_and_a_retry_goes_on(node: Callable[..., Node]) -> None:
    def train(x: float) -> dict[str, float]:
        for step in range(1000):
            time.sleep(0.2)
            report({"score": float(step)})
        return {"score": -1.0}

    search = {**UNIFORM, "num_samples": 3, "time_budget_s": 20, "failure": {"min_successful": 3}}
    ran = node(train, search, resources={"num_cpus": 2})
    first = ran.run()
    assert first.failure is not None, "one trial at a time"
    assert first.failure.type == "TooFewSuccessful"
    assert first.trial_states["CUT_OFF"] == 1
    assert account(first).ending == "time_budget"
    second = ran.retry()
    assert second.trial_states["CUT_OFF"] == 1, "what was cut off is not finished, and ran again"
    steps = ran.table(second.steps)
    assert len(steps) > 1
    assert not steps.duplicated(["trial_id", "training_iteration"]).any()


def test_early_stopped_is_a_state_of_its_own(node: Callable[..., Node]) -> None:
    def train(x: int) -> dict[str, Any]:
        for step in range(5):
            report({"score": x + step, "status": "fine"})
        return {"score": x + 9, "status": "fine"}

    ran = node(train, {"stop": {"score": 7}, "search_space": {"x": {"type": "grid_search", "values": [0, 4, 5]}}})
    result = ran.run()
    assert result.failure is None, result.failure
    assert result.trial_states == {"TERMINATED": 1, "EARLY_STOPPED": 2}
    assert account(result).summary() == "1 of 3 finished, 2 stopped early"
    progress = NodeProgress.from_bytes(ran.catalog.read_bytes(f"{ran.job.attempt_prefix}/progress.json"))
    assert (progress.terminated, progress.early_stopped, progress.ended) == (1, 2, 3)
    trials = ran.table(result.trials).set_index("config/x")
    assert dict(trials["status"]) == {0: "TERMINATED", 4: "EARLY_STOPPED", 5: "EARLY_STOPPED"}
    assert set(trials["metrics/status"]) == {"fine"}
    assert len(ran.table(result.steps)) == 6 + 4 + 3


def test_hyperband_goes_on_after_it_was_cut_off(node: Callable[..., Node]) -> None:
    def train(x: float) -> None:
        for step in range(9):
            time.sleep(0.1)
            report({"score": x + step}, checkpoint={"step": step})

    search = {
        **UNIFORM,
        "num_samples": 5,
        "time_budget_s": 8,
        "scheduler": {"type": "HyperBandScheduler", "max_t": 9},
        "failure": {"min_successful": 5, "stall_timeout_s": 10},
    }
    ran = node(train, search)
    result = ran.run()
    for _ in range(4):
        if result.failure is None or account(result).ending != "time_budget":
            break
        result = ran.retry()
    assert account(result).ending in ("all_trials", "time_budget"), account(result)


def test_types_and_the_catalog(node: Callable[..., Node]) -> None:
    def train(x: Any, depth: Any) -> dict[str, Any]:
        if x is None:
            raise ValueError("no x")
        return {"score": x, "nan": float("nan"), "flag": x > 4}

    space = {
        "x": {"type": "grid_search", "values": [4, None, 8]},
        "depth": {"type": "grid_search", "values": [[64, 32], [16]]},
    }
    ran = node(train, {"search_space": space})
    result = ran.run()
    trials = ran.table(result.trials)
    assert isinstance(ran.catalog, Catalog)
    assert str(trials["config/x"].dtype) == "Int64"
    assert sorted(list(each) for each in trials["config/depth"]) == [[16]] * 3 + [[64, 32]] * 3
    assert str(trials["flag"].dtype) == "boolean"
    assert str(trials["training_iteration"].dtype) == "Int64"
    assert account(result).summary() == "2 of 6 failed, 4 finished"
