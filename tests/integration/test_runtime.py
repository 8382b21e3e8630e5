"""The driver and its trials on a real Ray: what functions return, which trial is best, what fails and how."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven import Ran
from staged import result_of, stage

from airflow_provider_raynode import catalog, context, get_checkpoint, metric, pickled, report
from airflow_provider_raynode import json as json_return
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.driver import main
from airflow_provider_raynode.spec import NodeProgress

pytestmark = pytest.mark.ray

GRID = {"search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}}}
ONE = {"search_space": {"x": 1}}


# -- what a function returns ---------------------------------------------------------------------------------------


def test_metrics_and_outputs_of_every_kind(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        return {
            "score": np.float64(x),
            "count": np.int64(7),
            "flag": True,
            "note": "größe",
            "nothing": None,
            "history": [1, 2, x],
            "text": "long " * 100,
            "array": np.arange(x),
            "thing": {"not", "json"},
            "declared": 3,
        }

    ran = run(train, returns=[json_return("declared"), pickled("history"), metric("count")])
    assert ran.code == 0
    assert ran.best.config == {"x": 3}
    wanted = {"score": 3.0, "count": 7, "flag": True, "note": "größe", "nothing": None}
    assert wanted.items() <= ran.best.metrics.items()
    kinds = {name: ref["kind"] for name, ref in ran.result.outputs.items()}
    assert kinds == {
        "history": "pickled",
        "text": "json",
        "array": "numpy",
        "thing": "pickled",
        "declared": "json",
    }
    assert ran.output("thing") == {"not", "json"}
    assert ran.output("declared") == 3
    np.testing.assert_array_equal(ran.output("array"), np.arange(3))
    outputs = ran.node.list(f"{ran.job.attempt_prefix}/outputs")
    assert [uri.rpartition("/")[2] for uri in outputs] == [ran.best.trial_id], "only the best trial's outputs stay"
    assert not ran.node.exists(f"{ran.job.node_prefix}/experiment")
    table = ran.table
    assert sorted(table["config/x"]) == [1, 2, 3]
    assert set(table["status"]) == {"TERMINATED"}
    progress = NodeProgress.from_bytes(ran.node.read_bytes(f"{ran.job.attempt_prefix}/progress.json"))
    assert (progress.phase, progress.terminated, progress.total) == ("done", 3, 3)
    assert progress.best is not None
    assert progress.best.trial_id == ran.best.trial_id


def test_a_bare_number_is_the_metric(run: Callable[..., Ran]) -> None:
    assert run(lambda x: x * 2.0).best.metrics["score"] == 6.0


def test_all_outputs_stay_when_asked_for(run: Callable[..., Ran]) -> None:
    ran = run(lambda x: {"score": x, "model": [x]}, {**GRID, "keep_outputs": "all", "logger_callbacks": True})
    assert len(ran.node.list(f"{ran.job.attempt_prefix}/outputs")) == 3
    assert ran.node.exists(f"{ran.job.node_prefix}/experiment")


def test_steps_then_a_returned_output(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        for step in range(3):
            report({"score": x + step / 10, "step": step})
        return {"model": {"x": x}}

    ran = run(train, returns=["model"])
    assert ran.best.metrics["score"] == 3.2
    assert ran.output("model") == {"x": 3}


@pytest.mark.parametrize(
    ("scope", "x"), [("last", 3), ("all", 2), ("avg", 2), ("last-5-avg", 2)], ids=lambda value: str(value)
)
def test_best_by_scope(run: Callable[..., Ran], scope: str, x: int) -> None:
    def train(x: int) -> None:
        for value in {1: [1, 1, 1], 2: [9, 9, 2], 3: [0, 0, 3]}[x]:
            report({"score": value, "value": value})

    best = run(train, {**GRID, "scope": scope}).best
    assert best.config == {"x": x}
    assert best.metrics["value"] == {"last": 3, "all": 9}.get(scope, 2)


def test_mode_min_and_nested_and_constant_hyperparameters(run: Callable[..., Ran]) -> None:
    def train(net: dict[str, Any], name: str) -> dict[str, Any]:
        assert name == "fixed"
        return {"score": net["deep"]["x"]}

    space = {"net": {"deep": {"x": {"type": "grid_search", "values": [5, 4]}}}, "name": "fixed"}
    ran = run(train, {"search_space": space, "mode": "min"})
    assert ran.best.config == {"net": {"deep": {"x": 4}}, "name": "fixed"}
    assert sorted(ran.table["config/net/deep/x"]) == [4, 5]


def test_the_whole_config_as_one_argument(run: Callable[..., Ran]) -> None:
    assert run(lambda config: {"score": config["x"]}).best.config == {"x": 3}


def test_a_table_of_mixed_values_can_be_read(run: Callable[..., Ran]) -> None:
    space = {"x": {"type": "grid_search", "values": [1, "two", [3, 4], None, True]}}
    ran = run(
        lambda x: {"score": 1 if x == "two" else 0, "seen": x if isinstance(x, str) else 0}, {"search_space": space}
    )
    assert ran.best.config == {"x": "two"}
    assert set(ran.table["config/x"].dropna()) == {"1", '"two"', "[3, 4]", "true"}


def test_a_seed_repeats_the_search(run: Callable[..., Ran]) -> None:
    config = {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}, "num_samples": 4, "seed": 11}
    one, two = (sorted(run(lambda x: {"score": x}, config).table["config/x"]) for _ in range(2))
    assert one == two


# -- the run's context ---------------------------------------------------------------------------------------------


def test_context_and_catalog(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        here = context()
        here.logger.info("logged by %s", here.trial_id)
        ref = catalog.put({"own": x}, "notes")
        assert catalog.load(ref) == {"own": x}
        return {"score": x, "ref": dict(ref), "who": here.params["who"], "dag": here.dag_id, "attempt": here.attempt}

    ran = run(train)
    assert ran.best.metrics["who"] == "ünïcode"
    assert (ran.best.metrics["dag"], ran.best.metrics["attempt"]) == ("dag", 1)
    assert ran.node.load(ran.output("ref")) == {"own": 3}


def test_inputs_are_loaded_once_and_shared(run: Callable[..., Ran], tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    ref = Catalog(str(tmp_path)).put(np.ones(1_000_000), "big")

    def train(x: int, data: Any, again: dict[str, Any]) -> dict[str, float]:
        assert not data.flags.writeable
        return {"score": float(data[0] + again["nested"][0][1]), "shared": float(not data.flags.owndata)}

    ran = run(train, op_kwargs={"data": ref, "again": {"nested": [ref, "text"]}})
    assert ran.best.metrics["shared"] == 1.0
    assert sum("Loading" in record.message for record in caplog.records) == 1


# -- checkpoints, stopping -----------------------------------------------------------------------------------------


def test_a_failed_trial_goes_on_from_its_checkpoint(run: Callable[..., Ran], tmp_path: Path) -> None:
    marker = str(tmp_path / "crashed")

    def train(x: int) -> None:
        state = get_checkpoint() or {"step": 0, "resumed": 0}
        for step in range(state["step"] + 1, 5):
            if step == 3 and not Path(marker).exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            report({"score": step, "resumed": state["resumed"]}, checkpoint={"step": step, "resumed": step})

    ran = run(train, {**ONE, "failure": {"max_failures": 1}})
    assert ran.best.metrics["score"] == 4
    assert ran.best.metrics["resumed"] == 2
    assert ran.output("checkpoint") == {"step": 4, "resumed": 4}


def test_a_checkpoint_folder_becomes_an_output(run: Callable[..., Ran]) -> None:
    def train(x: int) -> None:
        import tempfile

        folder = Path(tempfile.mkdtemp())
        (folder / "sub").mkdir()
        (folder / "sub" / "weights ü.txt").write_text(str(x))
        report({"score": x}, checkpoint=folder)

    folder = run(train).output("checkpoint")
    assert (folder / "sub" / "weights ü.txt").read_text() == "3"


def test_a_best_trial_that_was_stopped_early_without_its_output(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, Any]:
        for _ in range(10):
            report({"score": x})
        return {"model": x}

    ran = run(train, {**GRID, "stop": {"training_iteration": 2}}, returns=[pickled("model")])
    assert ran.failure.type == "MissingOutput"
    assert "stopped after step 2" in ran.failure.message
    assert "'model': value" in ran.failure.message
    ran = run(train, {**GRID, "stop": {"training_iteration": 2}})
    assert ran.best.metrics["training_iteration"] == 2


def test_a_time_budget_ends_the_search(run: Callable[..., Ran]) -> None:
    def train(x: float) -> dict[str, float]:
        time.sleep(0.3)
        return {"score": x}

    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    ran = run(train, {"search_space": space, "num_samples": -1, "time_budget_s": 12})
    assert ran.code == 0
    assert ran.result.trial_states["TERMINATED"] >= 1


def test_no_trial_in_the_budget(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, float]:
        time.sleep(30)
        return {"score": x}

    assert run(train, {**GRID, "time_budget_s": 1}).failure.type == "NoTrialRan"


# -- failures ------------------------------------------------------------------------------------------------------


def test_every_trial_failing_tells_the_first_error_with_the_users_frames(run: Callable[..., Ran]) -> None:
    def inner(x: int) -> None:
        raise ValueError(f"größe {x} is wrong")

    def train(x: int) -> None:
        inner(x)

    ran = run(train)
    assert ran.failure.type == "AllTrialsFailed"
    assert "every trial failed" in ran.failure.message
    assert "ValueError: größe 1 is wrong" in ran.failure.message
    lines = ran.failure.traceback.splitlines()
    assert lines[0].startswith("Traceback")
    assert "in train" in lines[1]
    assert "runtime/worker.py" not in ran.failure.traceback
    assert set(ran.table["status"]) == {"ERROR"}
    assert ran.table["error"][0] == "ValueError: größe 1 is wrong"


def test_some_trials_failing_is_a_warning(run: Callable[..., Ran]) -> None:
    def train(x: int) -> dict[str, int]:
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": x}

    ran = run(train)
    assert ran.best.config == {"x": 2}
    assert ran.result.trial_states == {"TERMINATED": 2, "ERROR": 1}
    assert "1 of 3 trials failed" in ran.result.warnings[0]


def test_nan_never_wins(run: Callable[..., Ran]) -> None:
    ran = run(lambda x: {"score": float("nan") if x == 3 else x, "inf": float("inf")})
    assert ran.best.config == {"x": 2}
    assert ran.best.metrics["inf"] is None
    assert "NaN" in ran.result.warnings[0]
    assert run(lambda x: {"score": float("nan")}).failure.type == "NoFiniteMetric"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"scores": x}, "did you mean 'scores'"),
        (lambda x: {"score": "high"}, "must be a number, got str"),
        (lambda x: None, "returned nothing and reported nothing"),
        (lambda x: {"score": x, 3: 4}, "names of metrics and outputs are text"),
        (lambda x: report([1]), "takes a dict"),
    ],
    ids=["misspelt", "text", "nothing", "key", "report of a list"],
)
def test_what_is_no_metric_is_told(run: Callable[..., Ran], function: Any, message: str) -> None:
    assert message in run(function, ONE).failure.message


def test_a_declared_output_that_is_not_returned(run: Callable[..., Ran]) -> None:
    ran = run(lambda x: {"score": x}, ONE, returns=[pickled("model")])
    assert "did not return 'model'" in ran.failure.message


def test_more_than_the_machine_has_is_refused_with_both_numbers(tmp_path: Path, connected: None) -> None:
    from airflow_provider_raynode.config.units import unit_of
    from airflow_provider_raynode.exceptions import ClusterError
    from airflow_provider_raynode.runtime.placement import check

    _, spec, _ = stage(tmp_path, lambda x: x, ONE, resources={"num_cpus": 64, "num_gpus": 1})
    with pytest.raises(ClusterError, match=r"needs 64 CPUs, the cluster has 2|needs 1 GPU, and no node"):
        check(unit_of(spec.config), embedded=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [("no_such_module:train", "No module named 'no_such_module'"), ("json:no_such", "no attribute 'no_such'")],
)
def test_an_import_path_that_is_not_there(run: Callable[..., Ran], path: str, message: str) -> None:
    failure = run(path, ONE).failure
    assert message in failure.message
    assert "py_modules" in failure.message


def test_another_python_is_refused(run: Callable[..., Ran]) -> None:
    failure = run(lambda x: x, ONE, python="3.9.1").failure
    assert "pickled by Python 3.9.1" in failure.message


def test_arguments_are_checked_before_the_first_trial(run: Callable[..., Ran]) -> None:
    ran = run(lambda x, other: x, ONE)
    assert ran.failure.type == "BindingError"
    assert ran.result.trial_states == {}


class _Touch:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_a_tampered_function_or_spec_is_never_loaded(tmp_path: Path) -> None:
    import pickle

    trap = tmp_path / "loaded"
    job, spec, node = stage(tmp_path / "catalog", lambda x: x, ONE)
    assert spec.function.pickle is not None
    Path(spec.function.pickle["uri"]).write_bytes(pickle.dumps(_Touch(str(trap))))
    assert main(["--spec", job.spec_uri, "--sha256", job.spec_sha256]) == 1
    assert "not the one that the spec names" in result_of(job, node).failure.message  # type: ignore[union-attr]
    raw = json.loads(Path(job.spec_uri).read_bytes())
    raw["function"] = {**raw["function"], "import_path": "os:getcwd", "pickle": None}
    Path(job.spec_uri).write_text(json.dumps(raw))
    assert main(["--spec", job.spec_uri, "--sha256", job.spec_sha256]) == 1
    assert not trap.exists()
