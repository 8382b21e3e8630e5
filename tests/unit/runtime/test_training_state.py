"""What a training leaves on storage: proved to be its own, read back up to the last whole checkpoint, without gaps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import SearchStateError
from airflow_provider_raynode.runtime.training.state import Counted, DriverState, Training, origin_of
from airflow_provider_raynode.runtime.training.steps import StepLog, read_steps, write_steps
from airflow_provider_raynode.spec import FunctionRef, NodeSpec, RunContext, Versions


def make_spec(root: Path, **changes: Any) -> NodeSpec:
    catalog = Catalog(str(root))
    fields: dict[str, Any] = {
        "submission_id": "raynode-x-a1",
        "attempt": 1,
        "context": RunContext(dag_id="d", run_id="r", node_id="n"),
        "function": FunctionRef(name="f", import_path="m:f", python="3.11.7"),
        "config": {"ray_train": {"metric": "loss", "mode": "min"}},
        "catalog_uri": catalog.uri,
        "node_prefix": catalog.node_prefix("d", "r", "n", -1),
        "staged_by": Versions(python="3.11.7", package="test"),
    }
    return NodeSpec(**{**fields, **changes})


def training(root: Path, number: int = 1, **changes: Any) -> Training:
    return Training(make_spec(root, **changes), Catalog(str(root)), number)


def leave(training: Training, state: DriverState) -> None:
    Catalog(training.spec.catalog_uri).write_bytes(f"{training.driver_uri}/state.json", state.to_bytes())


def test_its_own_state_is_gone_on_with(tmp_path: Path) -> None:
    begun = training(tmp_path).begin()
    assert begun.finished is None
    training(tmp_path).finish(begun, {"metrics": {"loss": 1.0}})
    again = training(tmp_path, 2, attempt=2, search_of=1, submission_id="raynode-x-a2").begin()
    assert again.finished == {"metrics": {"loss": 1.0}}


def test_foreign_changed_and_damaged_states_are_refused(tmp_path: Path) -> None:
    first = training(tmp_path)
    first.begin()
    with pytest.raises(SearchStateError, match="op_kwargs changed"):
        training(tmp_path, op_kwargs={"x": 1}).begin()
    with pytest.raises(SearchStateError, match=r"ray_train\.metric, ray_train\.mode changed"):
        training(tmp_path, config={"ray_train": {}}).begin()
    # How failures are handled is no part of the work.
    training(tmp_path, config={"ray_train": {"metric": "loss", "mode": "min", "failure": {"max_failures": 3}}}).begin()
    text = Path(first.spec.state_uri).read_text()
    Path(first.spec.state_uri).write_text(text.replace(first.spec.search_id, "0" * 64))
    with pytest.raises(SearchStateError, match="not this training's"):
        training(tmp_path).begin()
    Path(first.spec.state_uri).write_text(text[:40])
    with pytest.raises(SearchStateError, match="is damaged"):
        training(tmp_path).begin()
    leave(first, DriverState(last=Counted(step=3, checkpoint="c")))
    assert training(tmp_path, on_change="restart").begin().finished is None
    assert training(tmp_path).kept() == [], "what there was is gone"


def test_it_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    first, second = training(tmp_path), training(tmp_path, 2)
    first.begin()
    report = Counted(step=4, metrics={"loss": math.nan}, checkpoint="checkpoint_000004-a")
    leave(first, DriverState(last=report, best=report, checkpoints=[report]))
    leave(second, DriverState(last=Counted(step=5)))  # nothing whole
    third = training(tmp_path, 3)
    kept = third.kept()
    origin = origin_of(kept, {first.driver_uri: "/one", second.driver_uri: "/two"})
    assert (origin.step, origin.checkpoint) == (4, "/one/checkpoint_000004-a")
    assert math.isnan(origin.last.metrics["loss"])
    for name in ("checkpoint_000004-a", "checkpoint_000005-a"):
        (Path(first.driver_uri) / name).mkdir()
        (Path(first.driver_uri) / name / "part-0").write_text("x")
    third.remove_leftovers(kept)
    assert [path.name for path in Path(first.driver_uri).glob("checkpoint*")] == ["checkpoint_000004-a"]
    third.remove_drivers()
    assert third.kept() == []
    assert Path(third.spec.state_uri).exists()


def test_steps_of_several_drivers_have_no_gap_and_no_double(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path))
    folders = [f"{catalog.uri}/{name}" for name in ("driver_0001", "driver_0002")]
    one = StepLog(catalog, folders[0])
    for step in range(1, 2501):
        one.add(step, step / 10, {"loss": 1 / step, "net": {"depth": 2}})
        if step % 700 == 0:
            one.flush()
    one.forget()  # the workers start anew at 2100
    one.add(2101, 210.1, {"loss": 0.5})
    one.flush()
    two = StepLog(catalog, folders[1])
    for step in range(2050, 2060):
        two.add(step, step / 10, {"loss": 9.0})
    two.flush()
    steps = read_steps(catalog, folders)
    assert [step for step, _, _ in steps] == list(range(1, 2060))
    assert steps[-1][2] == {"loss": 9.0}
    reference = write_steps(catalog.at("table"), steps)
    assert reference is not None
    table = catalog.at("table").load(reference)
    assert list(table.columns) == ["training_iteration", "time_total_s", "loss", "net/depth"]
    assert write_steps(catalog, []) is None
