"""The reported steps of every trial, through parts on the catalog, crashes and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime import steps as module
from airflow_provider_raynode.runtime.steps import Steps


class Where:
    """What `Steps` needs to know of a spec."""

    def __init__(self, root: Path) -> None:
        self.experiment_prefix, self.experiment_name, self.attempt = f"{root}/experiment", "search", 1


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path)).at(f"{tmp_path}/attempt_1")


def made(tmp_path: Path, catalog: Catalog) -> Steps:
    return Steps(Where(tmp_path), catalog)  # type: ignore[arg-type]


def add(steps: Steps, trial: str, iterations: Any, score: Any = float) -> None:
    for iteration in iterations:
        steps.add(trial, {"training_iteration": iteration, "time_total_s": 0.5}, {"score": score(iteration)})


def table(steps: Steps, catalog: Catalog, *trials: str) -> list[tuple[str, int, float]]:
    reference, _ = steps.write(trials)
    assert reference is not None
    found = catalog.load(reference)
    return list(zip(found["trial_id"], found["training_iteration"], found["score"], strict=True))


def test_every_step_of_every_trial(tmp_path: Path, catalog: Catalog) -> None:
    steps = made(tmp_path, catalog)
    add(steps, "a", [1, 2])
    add(steps, "b", [1])
    assert table(steps, catalog, "a", "b") == [("a", 1, 1.0), ("a", 2, 2.0), ("b", 1, 1.0)]
    assert table(steps, catalog, "b") == [("b", 1, 1.0)], "a trial that a retry replaced is left out"
    assert made(tmp_path, catalog).write(["a"]) == (None, None)


def test_full_parts_lie_on_the_catalog_and_a_later_attempt_goes_on(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 10)
    steps = made(tmp_path, catalog)
    add(steps, "a", range(1, 36))
    steps.close()
    state = steps.get_state()
    assert (len(state["parts"]), len(state["tail"]), state["kept"]) == (3, 5, 35)
    add(steps, "a", range(36, 50))  # what the crash loses
    again = made(tmp_path, catalog)
    again.set_state(state)
    add(again, "a", range(36, 41))
    assert table(again, catalog, "a") == [("a", number, float(number)) for number in range(1, 41)]
    again.remove_parts()
    assert not list(tmp_path.glob("experiment/**/*.gz"))


def test_a_step_that_ran_again_stands_once(tmp_path: Path, catalog: Catalog) -> None:
    steps = made(tmp_path, catalog)
    add(steps, "a", [1, 2, 3, 4], score=float)
    add(steps, "a", [3], score=lambda step: 30.0)
    assert table(steps, catalog, "a") == [("a", 1, 1.0), ("a", 2, 2.0), ("a", 3, 30.0)]


def test_a_catalog_that_is_away_keeps_them_in_memory(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 10)
    steps = made(tmp_path, catalog)

    def away(*_: Any) -> None:
        raise CatalogError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "write_bytes", away)
        add(steps, "a", range(1, 26))
        steps.close()
        assert (len(steps.get_state()["parts"]), len(steps.get_state()["tail"])) == (0, 25)
    add(steps, "a", range(26, 36))
    assert table(steps, catalog, "a") == [("a", number, float(number)) for number in range(1, 36)]


def test_the_bound_is_told(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 20)
    steps = made(tmp_path, catalog)
    add(steps, "a", range(1, 31))
    reference, warning = steps.write(["a"])
    assert reference is not None
    assert len(catalog.load(reference)) == 20
    assert warning is not None
    assert "the first 20 steps of 30" in warning


def test_types_are_one_over_all_parts(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", 2)
    steps = made(tmp_path, catalog)
    values = [1, 2, 2.5, None, float("nan"), float("inf")]
    for number, value in enumerate(values):
        steps.add("a", {"training_iteration": number}, {"m": value, "n": number if number > 3 else None, "error": "e"})
    reference, _ = steps.write(["a"])
    assert reference is not None
    found = catalog.load(reference)
    assert str(found["m"].dtype) == "float64"
    assert list(found["m"])[:3] == [1.0, 2.0, 2.5]
    assert list(found["m"])[5] == float("inf")
    assert str(found["n"].dtype) == "Int64"
    assert set(found["metrics/error"]) == {"e"}
