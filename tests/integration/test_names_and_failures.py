"""Names of Tune's own, bounds, wrong returns and every way for a trial to fail, on a real Ray."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from driven import Ran

from airflow_provider_raynode import get_checkpoint, pickled, report
from airflow_provider_raynode import json as json_return
from airflow_provider_raynode.spec import NodeFailure

pytestmark = pytest.mark.ray

GRID = {"search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}}}
ONE = {"search_space": {"x": 1}}


def falling(x: int) -> None:
    for step in range(1, 9):
        report({"score": 1.0 / step, "epoch": step})


# -- names and bounds ----------------------------------------------------------------------------------------------


def test_a_bound_on_a_falling_metric(run: Callable[..., Ran]) -> None:
    best = run(falling, {**ONE, "mode": "min", "stop": {"score": 0.2}}).best
    assert (best.metrics["training_iteration"], best.metrics["score"]) == (5, 0.2)
    best = run(falling, {**ONE, "mode": "min", "stop": {"score": 0.01, "epoch": 3}}).best
    assert best.metrics["training_iteration"] == 3


def test_what_tune_names_itself_is_kept_apart(run: Callable[..., Ran]) -> None:
    own = {
        "done": True,
        "trial_id": "mine",
        "config": "plain",
        "date": "today",
        "timestamp": 7,
        "pid": 1.5,
        "hostname": None,
        "node_ip": "::1",
        "should_checkpoint": True,
        "checkpoint_dir_name": "here",
        "experiment_tag": "tag",
        "time_this_iter_s": 1e9,
        "timesteps_this_iter": 5,
        "timesteps_total": 6,
        "episodes_total": 8,
        "iterations_since_restore": 9,
        "raynode_outputs": "text",
        "__duplicate__": 0,
        "config/x": 77,
        "status": "fine",
        "error": 0.25,
        "a/b c.d": 1,
        "größe": 2,
        "data\udce9": "file\udce9",
        "big": 2**70,
    }

    def train(x: int) -> dict[str, Any]:
        for step in range(3):
            report({"score": step, **own})
        return {"score": 10 * x, **own, "model": [x]}

    ran = run(train, {**GRID, "stop": {"training_iteration": 20}}, returns=[pickled("model")])
    kept = {**own, "data\\udce9": "file\\udce9"}
    del kept["data\udce9"]
    metrics = dict(ran.best.metrics)
    assert metrics.pop("time_total_s") < 1e6, "a value of the function's does not steer Tune's clock"
    assert metrics == {**kept, "score": 30, "training_iteration": 4}
    assert ran.best.config == {"x": 3}
    assert ran.output("model") == [3]
    table = ran.table.set_index("config/x")
    assert sorted(table.index) == [1, 2, 3]
    assert set(table["status"]) == {"TERMINATED"}
    assert set(table["metrics/status"]) == {"fine"}
    assert set(table["metrics/config/x"]) == {77}
    assert set(table["pid"]) == {1.5}
    assert list(table["done"]) == [True] * 3


@pytest.mark.parametrize("name", ["done", "pid"])
def test_a_metric_of_tunes_own_name(run: Callable[..., Ran], name: str) -> None:
    def train(x: int) -> None:
        for step in range(3):
            report({name: x * step})

    ran = run(train, {**GRID, "metric": name, "mode": "min", "scheduler": "asha", "stop": {name: -1}})
    assert ran.best.config == {"x": 1}
    assert ran.best.metrics[name] == 2


@pytest.mark.parametrize("name", ["training_iteration", "time_total_s"])
def test_what_the_node_shows_is_refused_by_name(run: Callable[..., Ran], name: str) -> None:
    assert f"{name!r}, which Ray itself counts" in run(lambda x: {"score": x, name: 3}, ONE).failure.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stop": {"scor": 1}}, "ray_tune.stop.scor: no report has 'scor' (did you mean 'score'?)"),
        ({"scheduler": {"type": "asha", "time_attr": "epochs"}}, "scheduler.time_attr: no report has 'epochs'"),
        (
            {"scheduler": {"type": "pbt", "time_attr": "epochs", "hyperparam_mutations": {"x": [1, 2]}}},
            "ray_tune.scheduler.time_attr: no report has 'epochs' (did you mean 'epoch'?)",
        ),
        ({"checkpoint": {"checkpoint_score_attribute": "acc"}}, "checkpoint_score_attribute: no report has 'acc'"),
    ],
)  # fmt: skip
def test_a_name_that_nobody_reports(run: Callable[..., Ran], config: dict[str, Any], message: str) -> None:
    assert message in run(falling, {**ONE, **config}).failure.message


def test_settings_without_effect_are_warnings(run: Callable[..., Ran]) -> None:
    ran = run(lambda x: {"score": x}, {**GRID, "stop": {"scor": 1}, "scheduler": "asha"})
    assert any("ray_tune.stop.scor had no effect" in warning for warning in ran.result.warnings)
    assert any("ASHAScheduler had nothing to stop" in warning for warning in ran.result.warnings)
    mutations = {"x": [1, 2, 3]}
    ran = run(falling, {**GRID, "scheduler": {"type": "pbt", "hyperparam_mutations": mutations}})
    assert any("ran without checkpoints" in warning for warning in ran.result.warnings)


def test_the_output_checkpoint_has_one_meaning(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        report({"score": x}, checkpoint={"x": x})
        return {"checkpoint": [x]}

    assert "give the output another name" in run(train, ONE).failure.message
    assert run(lambda x: {"score": x, "checkpoint": [x]}, ONE).output("checkpoint") == [1]


def test_an_output_of_tunes_own_name(run: Callable[..., Ran]) -> None:
    ran = run(lambda x: {"score": x, "config": {"lr": x}, "done": [x]}, returns=[json_return("config")])
    assert (ran.output("config"), ran.output("done")) == ({"lr": 3}, [3])

    def stopped(x: int) -> dict[str, Any]:
        for _ in range(3):
            report({"score": x})
        return {"config": {"lr": x}}

    failure = run(stopped, {**ONE, "stop": {"training_iteration": 1}}, returns=["config"]).failure
    assert failure.type == "MissingOutput"


# -- what a function returns ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scored:
    score: float


class Named(NamedTuple):
    score: float


async def _awaited(x: int) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"score": x}


def _yielding(x: int) -> Any:
    yield {"score": x}


RETURNED: list[tuple[Callable[[int], Any], str]] = [
    (lambda x: Scored(x), "a Scored, a dataclass: return dataclasses.asdict"),
    (lambda x: Named(x), "a Named, a named tuple: return its _asdict()"),
    (lambda x: (0.5, {"a": 1}), "a tuple (float, dict)"),
    (lambda x: [x], "a list (int)"),
    (_awaited, "a coroutine, since it is `async def`"),
    (_yielding, "a generator, since it has `yield`"),
    (lambda x: Scored, "the class Scored itself"),
    (lambda x: np.zeros((2, 3)), "a ndarray of 2x3, not one number"),
    (lambda x: Scored.__init__, "itself, without calling it"),
    (lambda x: object(), "a builtins.object"),
]


def told_of_each(ran: Ran) -> list[NodeFailure]:
    """Return every trial's failure as its worker wrote it or the table has it, by `x`."""
    assert ran.code == 1
    table = ran.table.sort_values("config/x")
    assert set(table["status"]) == {"ERROR"}
    found = []
    for _, row in table.iterrows():
        kind, _, message = row["error"].partition(": ")
        traceback = ""
        uri = f"{ran.job.attempt_prefix}/trials/{row['trial_id']}/error.json"
        if ran.node.exists(uri):
            traceback = NodeFailure.from_bytes(ran.node.read_bytes(uri)).traceback
        found.append(NodeFailure(type=kind, message=message, traceback=traceback))
    return found


def test_a_wrong_return_is_told(run: Callable[..., Ran]) -> None:
    functions = [function for function, _ in RETURNED]
    grid = {"search_space": {"x": {"type": "grid_search", "values": list(range(len(functions)))}}}
    for (_, message), failure in zip(RETURNED, told_of_each(run(lambda x: functions[x](x), grid)), strict=True):
        assert message in failure.message
        assert "'score'" in failure.message
        assert not failure.traceback, "there is no frame of the function's to show"


def test_one_number_is_the_metric(run: Callable[..., Ran]) -> None:
    values = [np.float32(1), np.array(2.0), np.int64(3), 4]
    ran = run(lambda x: values[x], {"search_space": {"x": {"type": "grid_search", "values": [0, 1, 2, 3]}}})
    assert list(ran.table.sort_values("config/x")["score"]) == [1, 2, 3, 4]


def test_the_metric_declared_as_an_output(run: Callable[..., Ran]) -> None:
    failure = run(lambda x: {"score": x}, ONE, returns=[pickled("score")]).failure
    assert "returns declares 'score' as pickled, but it is the search's metric" in failure.message


def test_a_json_output_of_numpy_values(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        counts = np.array([1, 2])
        return {"score": np.float32(x), "report": {"auc": np.float32(0.5), "counts": counts, "n": np.int64(3)}}

    ran = run(train, ONE, returns=[json_return("report")])
    assert ran.output("report") == {"auc": 0.5, "counts": [1, 2], "n": 3}
    failure = run(lambda x: {"score": x, "report": {"auc": [1, {2}]}}, ONE, returns=[json_return("report")]).failure
    assert "report.auc[1] is a set" in failure.message


# -- errors and ends -----------------------------------------------------------------------------------------------


def _bad(kind: str) -> None:
    class Unloadable(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    if kind == "surrogate":
        raise FileNotFoundError(f"no input file {os.fsdecode(bytes([100, 97, 116, 97, 0xE9]))}")
    if kind == "unloadable":
        raise Unloadable(1, 2)
    if kind == "silent":
        raise Silent
    if kind == "huge":
        raise ValueError("x" * 10_000_000)
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("one\udce9"), KeyError("two")])
    if kind == "exit 3":
        sys.exit(3)
    if kind == "exit 0":
        sys.exit(0)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "os exit":
        os._exit(5)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


ENDS = [
    ("surrogate", "FileNotFoundError", "no input file data\\udce9"),
    ("unloadable", "Unloadable", "1 and 2"),
    ("silent", "Silent", "(its text cannot be had"),
    ("huge", "ValueError", "characters and more left out"),
    ("group", "ExceptionGroup", "several (2 sub-exceptions)"),
    ("exit 3", "SystemExit", "SystemExit(3) at test_names_and_failures.py:"),
    ("exit 0", "SystemExit", "SystemExit(0) at test_names_and_failures.py:"),
    ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt at test_names_and_failures.py:"),
    ("os exit", "ProcessExit", "os._exit(5) at test_names_and_failures.py:"),
    ("killed", "WorkerDied", "the trial's process ended after report 1: it crashed in native code"),
]


def test_every_end_of_a_trial_is_told(run: Callable[..., Ran], caplog: pytest.LogCaptureFixture) -> None:
    kinds = [kind for kind, _, _ in ENDS]

    def train(x: int) -> None:
        report({"score": x})
        _bad(kinds[x])

    caplog.set_level(logging.INFO)
    ran = run(train, {"search_space": {"x": {"type": "grid_search", "values": list(range(len(kinds)))}}})
    assert "FileNotFoundError: no input file data\\udce9" in ran.failure.message, "the first of them"
    assert len(ran.failure.to_bytes()) < 60_000
    assert len(caplog.text) < 300_000
    for (kind, name, message), failure in zip(ENDS, told_of_each(ran), strict=True):
        assert failure.type == name
        assert message in failure.message
        assert kind == "killed" or "in _bad" in failure.traceback


def test_an_exit_of_one_trial_leaves_the_others(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, int]:
        if x == 3:
            sys.exit(0)
        return {"score": x}

    ran = run(train)
    assert ran.best.config == {"x": 2}
    assert ran.result.trial_states == {"TERMINATED": 2, "ERROR": 1}


def test_a_function_that_catches_its_end_stays_ended(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        for step in range(5):
            try:
                report({"score": step})
            except BaseException:
                break
        return {"score": 100}

    ran = run(train, {**GRID, "stop": {"training_iteration": 2}})
    assert ran.best.metrics["score"] == 1


def test_an_import_that_fails_on_the_worker_is_the_trials_error(run: Callable[..., Ran]) -> None:
    def train(x: int) -> None:
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401

    assert "ModuleNotFoundError: No module named 'no_such_library'" in run(train, ONE).failure.message


@pytest.mark.parametrize("kind", ["lock", "folder"])
def test_a_checkpoint_that_cannot_be_kept(run: Callable[..., Ran], kind: str) -> None:
    def train(x: int) -> None:
        import threading
        from pathlib import Path

        report(
            {"score": x}, checkpoint={"epoch": 1, "lock": threading.Lock()} if kind == "lock" else Path("/no/folder")
        )

    message = run(train, ONE).failure.message
    assert ("cannot be pickled, at 'lock' a lock" if kind == "lock" else "there is no such folder") in message


def test_outputs_of_before_a_failure_still_count(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any] | None:
        state = get_checkpoint()
        if state is None:
            report({"score": 1, "vocabulary": ["a"]}, checkpoint={"step": 1})
            raise ValueError("once")
        return {"model": [x]}

    ran = run(train, {**ONE, "failure": {"max_failures": 1}}, returns=["vocabulary", pickled("model")])
    assert (ran.output("vocabulary"), ran.output("model")) == (["a"], [1])
    assert ran.best.metrics["score"] == 1


def test_a_library_that_is_missing_where_the_search_runs(run: Callable[..., Ran]) -> None:
    import importlib.util

    if importlib.util.find_spec("hebo") is not None:
        pytest.skip("hebo is installed")
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    failure = run(lambda x: x, {"search_space": space, "search_algorithm": "hebo"}).failure
    assert failure.type == "ConfigError"
    assert "ray_tune.search_algorithm.type: HEBOSearch needs the library hebo" in failure.message
    assert "not installed where the job runs (host " in failure.message
    assert "runtime_env: {pip: [" in failure.message
