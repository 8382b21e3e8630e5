"""A search goes on from a state that is whole and its own, and from no other."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import cloudpickle

from airflow_provider_raynode.exceptions import SearchStateError
from airflow_provider_raynode.runtime.experiment import AtomicFiles
from airflow_provider_raynode.runtime.search_state import SearchState, own_state, read_back, search_of
from airflow_provider_raynode.spec import FunctionRef, NodeSpec, RunContext, Versions, submission_id

FILES = PyFileSystem(FSSpecHandler(AtomicFiles()))
SPACE = {"x": {"type": "uniform", "low": 0, "high": 1}}


def spec(root: Path, *, node: str = "node", op_kwargs: dict[str, Any] | None = None, **options: Any) -> NodeSpec:
    prefix = f"{root}/dag/run/{node}/-1"
    return NodeSpec(
        submission_id=submission_id("dag", "run", node, -1, 1, str(root)),
        attempt=1,
        context=RunContext(dag_id="dag", run_id="run", node_id=node),
        function=FunctionRef(name="f", import_path="m:f", python="3.11.7"),
        op_kwargs=op_kwargs or {},
        config={"ray_tune": {"metric": "score", "mode": "max", "search_space": SPACE}},
        catalog_uri=str(root),
        node_prefix=prefix,
        staged_by=Versions(python="3.11.7", package="0"),
        **options,
    )


class Folder:
    """A search's folder, with states as Tune writes them."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.path = Path(spec.experiment_prefix, spec.experiment_name)
        self.path.mkdir(parents=True)
        (self.path / "tuner.pkl").write_bytes(b"x")

    def write(self, number: int, trials: int, *, owner: NodeSpec | None = None, searcher: bool = True) -> None:
        owner = owner or self.spec
        ids = [f"{owner.trial_prefix}{index:05}" for index in range(trials)]
        data = [[json.dumps({"trial_id": each}), "{}"] for each in ids]
        self.file("experiment_state", number).write_text(json.dumps({"trial_data": data}))
        self.file("callback-states", number).write_bytes(cloudpickle.dumps({0: {"search": search_of(owner)}, 1: None}))
        if searcher:
            self.file("basic-variant-state", number).write_bytes(cloudpickle.dumps({}))
        for each in ids:
            (self.path / each).mkdir(exist_ok=True)

    def file(self, kind: str, number: int) -> Path:
        return self.path / f"{kind}-{number:010}.{'pkl' if kind == 'callback-states' else 'json'}"

    def state(self, spec: NodeSpec | None = None) -> SearchState | None:
        return own_state(spec or self.spec, str(self.path), FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(spec(tmp_path))


def test_what_is_whole_and_its_own_is_gone_on_from(folder: Folder) -> None:
    folder.write(4, trials=3)
    state = folder.state()
    assert state is not None
    assert len(state.trials) == 3


def test_of_what_is_not_whole_the_one_before_counts(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.write(4, trials=3)
    folder.write(5, trials=5)
    folder.file("callback-states", 5).unlink()
    with caplog.at_level(logging.WARNING):
        state = folder.state()
    assert state is not None
    assert len(state.trials) == 3
    assert "callback-states is missing" in caplog.text
    assert not folder.file("experiment_state", 5).exists(), "Tune would go on from it"
    left = {path.name for path in folder.path.iterdir() if path.is_dir()}
    assert left == set(state.trials), "what trials left that the state does not know is gone"


@pytest.mark.parametrize("kind", ["experiment_state", "callback-states", "basic-variant-state"])
def test_half_a_file_is_seen(folder: Folder, kind: str) -> None:
    folder.write(4, trials=3)
    file = folder.file(kind, 4)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(SearchStateError, match=rf"damaged: {kind}.*cannot be read.*on_change='restart'"):
        folder.state()


@pytest.mark.parametrize("name", ["tuner.pkl", "basic-variant-state-0000000004.json"])
def test_a_missing_file_is_seen(folder: Folder, name: str) -> None:
    folder.write(4, trials=3)
    (folder.path / name).unlink()
    with pytest.raises(SearchStateError, match="is missing"):
        folder.state()


def test_a_driver_killed_at_its_first_write_left_nothing_to_go_on_from(folder: Folder) -> None:
    folder.write(1, trials=3, searcher=False)
    assert folder.state() is None
    assert not list(folder.path.iterdir())


def test_a_search_begins_in_an_empty_folder(folder: Folder) -> None:
    (folder.path / f"{folder.spec.trial_prefix}00000").mkdir()
    assert folder.state() is None
    assert not list(folder.path.iterdir())


def test_another_nodes_trials_are_refused(folder: Folder, tmp_path: Path) -> None:
    other = spec(tmp_path, node="other")
    folder.write(4, trials=3, owner=other)
    with pytest.raises(SearchStateError, match=rf"3 of its 3 trials \({other.trial_prefix}00000") as caught:
        folder.state()
    assert str(folder.path) in str(caught.value)
    assert "on_change='restart'" in str(caught.value)
    assert folder.file("experiment_state", 4).exists(), "nothing is removed that nobody asked to remove"


def test_another_nodes_callbacks_are_refused(folder: Folder, tmp_path: Path) -> None:
    folder.write(4, trials=3)
    other = search_of(spec(tmp_path, node="other"))
    folder.file("callback-states", 4).write_bytes(cloudpickle.dumps({0: {"search": other}}))
    with pytest.raises(SearchStateError, match="is that of search"):
        folder.state()


def test_other_work_is_refused(folder: Folder, tmp_path: Path) -> None:
    folder.write(4, trials=3)
    with pytest.raises(SearchStateError, match="of other work: op_kwargs changed"):
        folder.state(spec(tmp_path, op_kwargs={"n": 1}))


def test_on_change_restart_removes_what_it_cannot_go_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(spec(tmp_path, on_change="restart"))
    folder.write(4, trials=3, owner=spec(tmp_path, node="other"))
    with caplog.at_level(logging.WARNING):
        assert folder.state() is None
    assert "the search starts anew" in caplog.text
    assert not list(folder.path.iterdir())


def test_trials_that_tune_does_not_read_back_are_missed() -> None:
    read_back(SearchState(frozenset({"a", "b"})), ["a", "b", "c"])
    with pytest.raises(SearchStateError, match="could not read the search's state back: 1 of its 2"):
        read_back(SearchState(frozenset({"a", "b"})), ["a"])


def test_two_searches_share_no_name(tmp_path: Path) -> None:
    base = spec(tmp_path)
    others = [
        spec(tmp_path, node="other"),
        spec(tmp_path / "another Airflow"),
        base.model_copy(update={"context": base.context.model_copy(update={"map_index": 3})}),
        base.model_copy(update={"attempt": 2}),
    ]
    every = [base, *others]
    assert len({each.experiment_name for each in every}) == len(every)
    assert len({each.trial_prefix for each in every}) == len(every)
    going_on = base.model_copy(update={"attempt": 2, "search_of": 1})
    assert going_on.experiment_name == base.experiment_name
    assert going_on.trial_prefix == base.trial_prefix
