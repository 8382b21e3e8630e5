"""The examples of Ray Tune's guides, each rewritten for a plain function, on a real Ray: their results are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driven import Ran

from airflow_provider_raynode import get_checkpoint, pickled, report

pytestmark = pytest.mark.ray

STEPS = 12
LR = {"type": "uniform", "low": 0.01, "high": 1}
FOUR = {"search_space": {"lr": {"type": "grid_search", "values": [0.1, 0.2, 0.3, 0.4]}}}


def textbook(lr: float) -> None:
    """The loop of Ray's guide to PBT: the state comes from a checkpoint, and goes into one at each step."""
    state = get_checkpoint() or {"i": 0, "score": 0.0, "rates": []}
    for i in range(state["i"], STEPS):
        state["i"], state["score"] = i + 1, state["score"] + lr
        state["rates"].append(lr)
        report({"score": state["score"], "rate": lr, "i": state["i"]}, checkpoint=state)


def check_population(ran: Ran) -> None:
    """Check that the result is one that was trained so: state, score and hyperparameters belong together."""
    assert ran.code == 0, ran.result.failure
    assert set(ran.table["status"]) <= {"TERMINATED", "EARLY_STOPPED"}
    state = ran.output("checkpoint")
    assert state["i"] == ran.best.metrics["i"] == STEPS
    assert ran.best.metrics["score"] == pytest.approx(sum(state["rates"]))
    assert ran.best.config["lr"] == ran.best.metrics["rate"] == state["rates"][-1]
    assert ran.best.metrics["score"] == ran.table["score"].max()
    for _, row in ran.table.iterrows():
        assert row["config/lr"] == row["rate"], "no trial is shown with hyperparameters that it never ran with"


# The worse of the two takes over the other's last checkpoint, and has no steps left.
TWO = {"search_space": {"lr": {"type": "grid_search", "values": [0.1, 1.0]}}}
AT_THE_END = {
    "type": "pbt",
    "perturbation_interval": STEPS,
    "quantile_fraction": 0.5,
    "synch": True,
    "hyperparam_mutations": {"lr": LR},
}


def test_pbt_takes_over_a_trial_that_has_no_steps_left(run: Callable[..., Ran]) -> None:
    ran = run(textbook, {**TWO, "scheduler": AT_THE_END})
    check_population(ran)
    assert ran.best.metrics["score"] == pytest.approx(STEPS)
    assert sorted(ran.table["rate"]) == [0.1, 1.0], "its own last report stands, with what it ran with"
    assert not any("failed" in warning for warning in ran.result.warnings)


def test_what_is_returned_after_a_take_over_is_the_others(run: Callable[..., Ran]) -> None:
    def train(lr: float) -> dict[str, Any]:
        state = get_checkpoint() or {"i": 0, "score": 0.0}
        for i in range(state["i"], STEPS):
            state = {"i": i + 1, "score": state["score"] + lr}
            report({"score": state["score"], "model": [lr, i + 1]}, checkpoint=state)
        return {"model": ["final", lr]}

    ran = run(train, {**TWO, "scheduler": AT_THE_END}, returns=[pickled("model")])
    assert ran.best.config == {"lr": 1.0}
    assert ran.output("model") == ["final", 1.0]
    assert sorted(ran.table["config/lr"]) == [0.1, 1.0]


@pytest.mark.parametrize("synch", [False, True])
def test_pbt(run: Callable[..., Ran], synch: bool) -> None:
    pbt = {"type": "pbt", "perturbation_interval": 3, "synch": synch, "hyperparam_mutations": {"lr": LR}}
    ran = run(textbook, {**FOUR, "scheduler": pbt, "checkpoint": {"num_to_keep": 4}})
    check_population(ran)
    assert ran.best.metrics["score"] >= 0.4 * STEPS - 1e-6 or synch


def test_pb2(run: Callable[..., Ran]) -> None:
    pytest.importorskip("sklearn")
    pb2 = {"type": "pb2", "perturbation_interval": 3, "synch": True, "hyperparam_bounds": {"lr": [0.01, 1]}}
    check_population(run(textbook, {"search_space": {"lr": LR}, "num_samples": 3, "seed": 1, "scheduler": pb2}))


def test_pbt_is_replayed(run: Callable[..., Ran], tmp_path: Path) -> None:
    pbt = {"type": "pbt", "perturbation_interval": 6, "synch": True, "hyperparam_mutations": {"lr": LR}}
    ran = run(textbook, {**FOUR, "scheduler": pbt, "logger_callbacks": True})
    check_population(ran)
    policies = sorted(tmp_path.rglob("pbt_policy_*.txt"))
    assert policies, "kept with Ray's logs"
    replay = {"type": "pbt_replay", "policy_file": str(policies[0])}
    again = run(textbook, {"scheduler": replay, "search_space": {}})
    assert len(again.table) == 1
    assert len(set(again.output("checkpoint")["rates"])) == 2, "it changed as the first did"


# -- stopping early ------------------------------------------------------------------------------------------------


def growing(lr: float) -> None:
    """A state that goes on where it was paused, in the style of a class with step, save and load."""

    class Model:
        def __init__(self) -> None:
            self.i, self.total = 0, 0.0

        def step(self) -> float:
            self.i, self.total = self.i + 1, self.total + lr
            return self.total

        def save(self) -> dict[str, Any]:
            return vars(self)

        def load(self, state: dict[str, Any]) -> None:
            vars(self).update(state)

    model = Model()
    if (state := get_checkpoint()) is not None:
        model.load(state)
    while model.i < STEPS:
        score = model.step()
        report({"score": score, "epoch": model.i}, checkpoint=model.save())


STOPPING: list[dict[str, Any]] = [
    {"type": "asha", "max_t": STEPS, "grace_period": 2, "reduction_factor": 2},
    {"type": "asha", "time_attr": "epoch", "max_t": STEPS, "reduction_factor": 3, "brackets": 2},
    {"type": "hyperband", "max_t": STEPS, "time_attr": "epoch"},
    {"type": "median", "grace_period": 2, "min_samples_required": 2},
    {"type": "hb_bohb", "max_t": STEPS},
]


@pytest.mark.parametrize("scheduler", STOPPING, ids=["asha", "asha brackets", "hyperband", "median", "bohb"])
def test_early_stopping(run: Callable[..., Ran], scheduler: dict[str, Any]) -> None:
    config: dict[str, Any] = {"search_space": {"lr": LR}, "num_samples": 6, "seed": 7, "scheduler": scheduler}
    if scheduler["type"] == "hb_bohb":
        pytest.importorskip("hpbandster")
        config["search_algorithm"] = "bohb"
    ran = run(growing, config)
    assert ran.code == 0, ran.result.failure
    assert set(ran.table["status"]) <= {"TERMINATED", "EARLY_STOPPED"}
    assert ran.best.metrics["score"] == pytest.approx(ran.best.config["lr"] * ran.best.metrics["epoch"])
    assert ran.best.metrics["score"] == ran.table["score"].max()
    assert ran.output("checkpoint")["i"] == ran.best.metrics["epoch"]
    assert not [warning for warning in ran.result.warnings if "scheduler" in warning]


def test_resources_that_change(run: Callable[..., Ran]) -> None:
    scheduler = {
        "type": "resource_changing",
        "base_scheduler": {"type": "asha", "max_t": STEPS, "grace_period": 4},
        "resources_allocation_function": {"type": "DistributeResources", "increase_by": {"CPU": 1}},
    }
    ran = run(growing, {"search_space": {"lr": LR}, "num_samples": 2, "seed": 7, "scheduler": scheduler})
    assert ran.code == 0, ran.result.failure
    assert ran.best.metrics["score"] == pytest.approx(ran.best.config["lr"] * STEPS)


# -- the guides to spaces, points, stopping, checkpoints -----------------------------------------------------------


def test_first_points_and_nested_spaces(run: Callable[..., Ran]) -> None:
    def train(model: dict[str, Any], lr: float) -> dict[str, Any]:
        return {"score": lr * model["layers"]["width"], "kind": model["kind"]}

    config = {
        "search_space": {
            "lr": LR,
            "model": {
                "kind": {"type": "choice", "choices": ["cnn", "rnn"]},
                "layers": {"width": {"type": "randint", "low": 1, "high": 5}, "depth": 2},
            },
        },
        "num_samples": 4,
        "seed": 3,
    }
    point = {"lr": 1.0, "model": {"kind": "rnn", "layers": {"width": 4}}}
    for searcher in ("random", "optuna", "hyperopt"):
        if searcher != "random":
            pytest.importorskip(searcher)
        ran = run(train, {**config, "search_algorithm": {"type": searcher, "points_to_evaluate": [point]}})
        assert ran.best.config == {"lr": 1.0, "model": {"kind": "rnn", "layers": {"width": 4, "depth": 2}}}
        assert ran.best.metrics["score"] == 4.0
        assert len(ran.table) == 4
        assert set(ran.table["config/model/layers/depth"]) == {2}


def test_the_guide_to_stopping(run: Callable[..., Ran]) -> None:
    one = {"search_space": {"lr": 0.5}}
    ran = run(growing, {**one, "stop": {"training_iteration": 10, "score": 2.0}})
    assert (ran.best.metrics["training_iteration"], ran.best.metrics["score"]) == (4, 2.0)
    ran = run(growing, {**one, "stop": {"training_iteration": 3}})
    assert ran.best.metrics["training_iteration"] == 3
    ran = run(growing, {**one, "stop": {"time_total_s": 0.000001}})
    assert ran.best.metrics["training_iteration"] == 1


def test_a_checkpoint_is_kept_as_it_was_when_it_was_reported(run: Callable[..., Ran]) -> None:
    def train(lr: float) -> None:
        import numpy as np

        state = {"weights": np.zeros(3), "i": 0}
        for i in range(3):
            state["weights"] += lr
            state["i"] = i
            report({"score": -i}, checkpoint=state)
            state["weights"] *= 100  # what comes after the report is not in it
            state["weights"] /= 100
            state["i"] = 99
        state["weights"][:] = -1

    state = run(train, {"search_space": {"lr": 0.5}}).output("checkpoint")
    assert (state["i"], state["weights"].tolist()) == (2, [1.5] * 3)


def test_the_best_checkpoint_by_its_own_score(run: Callable[..., Ran]) -> None:
    def train(lr: float) -> None:
        for i, loss in enumerate([3, 1, 2]):
            folder = Path(f"state-{i}")
            folder.mkdir()
            (folder / "i.txt").write_text(str(i))
            report({"score": -loss, "val_loss": loss}, checkpoint=str(folder))
            assert [file.name for file in folder.iterdir()] == ["i.txt"], "the function's folder is as it was"

    checkpoint = {"num_to_keep": 1, "checkpoint_score_attribute": "val_loss", "checkpoint_score_order": "min"}
    ran = run(train, {"search_space": {"lr": 0.5}, "scope": "all", "checkpoint": checkpoint})
    assert ran.best.metrics["val_loss"] == 1
    folder = ran.output("checkpoint")
    assert [file.name for file in folder.iterdir()] == ["i.txt"]
    assert (folder / "i.txt").read_text() == "1"
