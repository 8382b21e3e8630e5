"""Datasets on real workers: every row once, equally many batches, every pass anew, with every CPU taken; boosting."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.train
from driven import Ran
from ray import cloudpickle
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from airflow_provider_raynode import context, get_checkpoint, lightgbm_callback, pickled, xgboost_callback
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.training.datasets import DatasetArgument
from airflow_provider_raynode.runtime.training.parquet import ParquetRows, rows_of
from airflow_provider_raynode.runtime.training.parquet_files import sources_of
from airflow_provider_raynode.runtime.training.shards import shard, trainer_arguments, with_shards

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

OnWorkers = Callable[..., list[Any]]


@pytest.fixture(scope="module", autouse=True)
def _quick_reports() -> Iterator[None]:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    yield
    del os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


@pytest.fixture
def on_workers(tmp_path: Path, store: Catalog) -> OnWorkers:
    """Run a function on workers of plain Ray Train, and return what each rank's call returned."""

    def run(function: Callable[[], Any], workers: int = 2, **data: Any) -> list[Any]:
        datasets = {name: found(name, value, store) for name, value in data.items()}
        return fitted(function, datasets, tmp_path, workers)

    return run


def found(name: str, value: Any, store: Catalog) -> ParquetRows:
    return rows_of(name, sources_of(name, value, store), store)


def fitted(function: Callable[[], Any], datasets: dict[str, ParquetRows], folder: Path, workers: int) -> list[Any]:
    def loop() -> None:
        rank = ray.train.get_context().get_world_rank()
        (folder / f"{rank}.json").write_text(json.dumps(function(), default=str))

    # Each worker takes a CPU, and with two of them no CPU is left for the reading.
    scaling = ray.train.ScalingConfig(num_workers=workers)
    config = ray.train.RunConfig(name="training", storage_path=str(folder / "training"))
    DataParallelTrainer(loop, scaling_config=scaling, run_config=config, **trainer_arguments(datasets)).fit()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(workers)]


def test_every_row_once_and_equally_many_batches(on_workers: OnWorkers, store: Catalog, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "row": range(101),
            "text": [f"text {number % 5}" for number in range(101)],
            "kind": pd.Categorical([f"kind {number % 7}" for number in range(101)]),
            "whole": pd.array([None if number % 10 == 0 else number for number in range(101)], dtype="Int64"),
            "list": [[number, number + 1] for number in range(101)],
        },
        index=np.arange(101)[::-1],
    )
    one = store.put(frame.iloc[:1])
    two = [store.put(frame.iloc[:1]), store.put(frame.iloc[1:2])]
    lost = tmp_path / "lost.parquet"
    frame[["row"]].to_parquet(lost)

    def function() -> dict[str, Any]:
        rows = shard("rows")
        said: dict[str, Any] = {"repr": repr(rows), "length": [len(rows), rows.count(), rows.total_rows], "batches": {}}
        for size in (1, 10, 17, 25, 50, 1000):
            for name, more in (
                ("plain", {}),
                ("drop", {"drop_last": True}),
                ("mixed", {"local_shuffle_buffer_size": 20}),
            ):
                batches = [batch["row"].tolist() for batch in rows.iter_batches(batch_size=size, **more)]
                said["batches"][f"{name} {size}"] = batches
        said["row by row"] = [row["row"] for row in rows.iter_rows()]
        ours, rays = rows.to_pandas(), ray.train.get_dataset_shard("rows")
        said["types"] = {name: str(kind) for name, kind in ours.dtypes.items()}
        said["frame"] = json.loads(ours.to_json(orient="values"))
        said["categories"] = list(ours["kind"].cat.categories)
        said["formats"] = {
            name: type(next(iter(rows.iter_batches(batch_size=4, format=name)))).__name__
            for name in ("numpy", "pandas", "pyarrow")
        }
        said["pandas batch"] = [len(batch) for batch in rows.iter_batches(batch_size=30, format="pandas")]
        said["ray"] = [int(batch["row"].sum()) for batch in rays.iter_batches(batch_size=25)]
        for batch in rows.iter_batches(batch_size=5):  # left early, and begun anew
            said["first"] = batch["row"].tolist()
            break
        said["whole"] = sorted(row for batch in rows.whole().iter_batches() for row in batch["row"].tolist())
        inputs = with_shards({"a": DatasetArgument("rows"), "b": {"c": DatasetArgument("two")}, "d": 4})
        said["inputs"] = [len(inputs["a"]), len(inputs["b"]["c"]), inputs["d"]]
        said["two"] = [row["row"] for row in shard("two").iter_rows()]
        try:
            shard("nothing")
        except Exception as error:
            said["nothing"] = str(error)
        said["schema"] = rows.schema().names
        said["materialized"] = sum(row["row"] for row in rows.materialize().iter_rows())
        lost.unlink(missing_ok=True)
        try:
            list(shard("lost").iter_batches())
        except CatalogError as error:
            said["lost"] = str(error)
        return said

    first, second = on_workers(function, rows=store.put(frame), two=two, lost=str(lost))
    assert first["length"] == [51, 51, 101]
    assert second["length"] == [50, 50, 101]
    assert "51 of 101 rows, rank 0 of 2" in first["repr"]
    for name, batches in first["batches"].items():
        kind, size = name.split()[0], int(name.split()[1])
        assert len(batches) == len(second["batches"][name]), name
        rows = [row for batch in [*batches, *second["batches"][name]] for row in batch]
        if kind == "drop":
            assert len(rows) == 2 * size * (50 // size), name
            assert len(set(rows)) == len(rows)
        else:
            assert sorted(rows) == list(range(101)), name
            assert (rows == list(range(101))) == (kind == "plain") or size == 1000, name
    assert first["row by row"] + second["row by row"] == list(range(101))
    assert first["types"] == {name: str(kind) for name, kind in frame.dtypes.items()}
    assert first["categories"] == second["categories"] == [f"kind {number}" for number in range(7)]
    assert first["frame"] + second["frame"] == json.loads(frame.to_json(orient="values"))
    assert first["formats"] == {"numpy": "dict", "pandas": "DataFrame", "pyarrow": "Table"}
    assert first["pandas batch"] == [30, 21]
    assert sum(first["ray"]) + sum(second["ray"]) == sum(range(101))
    assert first["first"] == [0, 1, 2, 3, 4]
    assert first["whole"] == second["whole"] == list(range(101))
    assert first["inputs"] == [51, 1, 4]
    assert (first["two"], second["two"]) == ([0], [1])
    assert "the training has no dataset 'nothing'; it has: 'lost', 'rows', 'two'" in first["nothing"]
    assert first["schema"] == list(frame.columns)
    assert first["materialized"] + second["materialized"] == sum(range(101))
    assert "is not there on host" in first["lost"]
    with pytest.raises(CatalogError, match="has 1 row for 2 workers"):
        trainer_arguments({"rows": found("rows", one, store)})["dataset_config"].configure(
            {"rows": found("rows", one, store)}, 2
        )


def test_memory_does_not_grow_with_the_data(on_workers: OnWorkers, tmp_path: Path) -> None:
    def write(megabytes: int) -> str:
        path = tmp_path / f"{megabytes}.parquet"
        table = pa.table({f"x{number}": np.random.default_rng(number).random(125_000) for number in range(8)})
        with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
            for _ in range(megabytes // 8):
                writer.write_table(table)
        return str(path)

    def function() -> dict[str, Any]:
        def memory() -> dict[str, int]:
            status = Path("/proc/self/status").read_text()
            return {name: int(kb) >> 10 for name, kb in re.findall(r"(VmHWM|RssAnon):\s+(\d+)", status)}

        said = {}
        for name in ("small", "large"):
            rows = sum(len(batch["x0"]) for batch in shard(name).iter_batches(batch_size=10_000))
            said[name] = {"rows": rows, **memory()}
        return said

    for rank in on_workers(function, small=write(64), large=write(256)):
        assert (rank["small"]["rows"], rank["large"]["rows"]) == (500_000, 2_000_000)
        assert rank["large"]["RssAnon"] - rank["small"]["RssAnon"] < 48, rank
        assert rank["large"]["VmHWM"] - rank["small"]["VmHWM"] < 48, rank
        assert rank["large"]["VmHWM"] < 450, rank


def test_two_trainings_at_once_read_while_they_hold_every_cpu(store: Catalog, tmp_path: Path) -> None:
    rows = found("rows", store.put(pd.DataFrame({"row": range(1000)})), store)

    def function() -> int:
        return sum(int(batch["row"].sum()) for _ in range(2) for batch in shard("rows").iter_batches())

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    @ray.remote(num_cpus=0)
    def fit(folder: Path) -> list[int]:
        folder.mkdir()
        return fitted(function, {"rows": rows}, folder, 1)

    sums = ray.get([fit.remote(tmp_path / name) for name in ("one", "two")], timeout=120)
    assert sums == [[2 * sum(range(1000))]] * 2


# -- boosting ------------------------------------------------------------------------------------------------------


def small_whole_numbers() -> pd.DataFrame:
    """Few values per column, all of them in each half: then every worker finds the same bins."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(random.integers(0, 12, size=(4000, 6)), columns=[f"x{number}" for number in range(6)])
    frame["y"] = (frame["x0"] * frame["x1"] + 3 * frame["x2"] > 40).astype(int)
    return frame


TREES = {"num_leaves": 7, "num_threads": 1, "min_data_in_leaf": 1, "verbose": -1}


def test_lightgbm_of_two_workers_is_that_of_one(train: Callable[..., Ran]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    frame = small_whole_numbers()

    def function(rows: Any, held_out: Any, rounds: int) -> dict[str, Any]:
        assert (len(rows), len(held_out), len(context().shard("validation"))) == (2000, 4000, 4000)
        parts = [each.to_pandas() for each in (rows, held_out)]
        data, validation = (lightgbm.Dataset(part.drop(columns="y"), part["y"]) for part in parts)
        model = lightgbm.train(
            {"objective": "binary", "metric": "auc", **TREES, **context().lightgbm_params()},
            data,
            rounds,
            [validation],
            ["validation"],
            callbacks=[lightgbm_callback(metrics={"auc": "validation-auc"}, every=2, checkpoint_every=4)],
        )
        return {"model": model}

    data = {"train": "rows", "validation": {"op_kwarg": "held_out", "shard": False}}
    section = {"trainer": "lightgbm", "metric": "auc", "mode": "max", "data": data}
    op_kwargs = {"rows": frame, "held_out": frame, "rounds": 10}
    ran = train(function, section, op_kwargs=op_kwargs, returns=[pickled("model")])
    assert ran.code == 0, ran.failure
    x = frame.drop(columns="y")
    alone = lightgbm.train({"objective": "binary", **TREES}, lightgbm.Dataset(x, frame["y"]), 10)
    np.testing.assert_allclose(ran.output("model").predict(x), alone.predict(x), atol=1e-6)
    assert ran.output("checkpoint").current_iteration() in (4, 8, 10)
    assert ran.result.metrics["auc"] > 0.9
    assert ran.result.metrics["round"] == 10


def test_xgboost_of_two_workers_is_that_of_one(train: Callable[..., Ran]) -> None:
    xgboost = pytest.importorskip("xgboost")
    frame = small_whole_numbers()
    common = {"objective": "binary:logistic", "max_depth": 4, "tree_method": "hist", "nthread": 1, "base_score": 0.5}

    def function(train: Any) -> dict[str, Any]:
        part = train.to_pandas()
        data = xgboost.DMatrix(part.drop(columns="y"), part["y"])
        callback = xgboost_callback(metrics={"loss": "train-logloss"}, checkpoint_every=5)
        model = xgboost.train(common, data, 10, evals=[(data, "train")], callbacks=[callback], verbose_eval=False)
        return {"model": model}

    section = {"trainer": "xgboost", "metric": "loss", "mode": "min"}
    ran = train(function, section, op_kwargs={"train": frame}, returns=[pickled("model")])
    assert ran.code == 0, ran.failure
    matrix = xgboost.DMatrix(frame.drop(columns="y"), frame["y"])
    evals: dict[str, Any] = {}
    alone = xgboost.train(common, matrix, 10, evals=[(matrix, "train")], evals_result=evals, verbose_eval=False)
    np.testing.assert_allclose(ran.output("model").predict(matrix), alone.predict(matrix), atol=1e-6)
    assert ran.output("checkpoint").num_boosted_rounds() == 10
    # XGBoost adds up over the workers: rank 0's metric is that of all rows.
    assert ran.result.metrics["loss"] == pytest.approx(evals["train"]["logloss"][-1], abs=1e-5)


@pytest.mark.parametrize("trainer", ["lightgbm", "xgboost"])
def test_boosting_goes_on_from_its_last_checkpoint(train: Callable[..., Ran], trainer: str) -> None:
    """A worker is killed in round 5: what was kept in round 4 is gone on from, with a group of workers set up anew."""
    library = pytest.importorskip(trainer)
    rounds = 8

    def function(rows: Any) -> dict[str, Any]:
        part, so_far = rows.to_pandas(), get_checkpoint()
        x, y = part.drop(columns="y"), part["y"]

        def die(*env: Any) -> bool:
            number = env[0].iteration if trainer == "lightgbm" else env[1]
            if so_far is None and number == 4 and context().rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        if trainer == "lightgbm":
            die.before_iteration = True
            data, done = library.Dataset(x, y), so_far.current_iteration() if so_far else 0
            callbacks = [die, lightgbm_callback(metrics={"loss": "train-binary_logloss"}, checkpoint_every=2)]
            params = {"objective": "binary", **TREES, **context().lightgbm_params()}
            model = library.train(
                params, data, rounds - done, [data], ["train"], init_model=so_far, callbacks=callbacks
            )
        else:
            die_before = type(
                "Die", (library.callback.TrainingCallback,), {"before_iteration": lambda _, *env: die(*env)}
            )
            data, done = library.DMatrix(x, y), so_far.num_boosted_rounds() if so_far else 0
            callbacks = [die_before(), xgboost_callback(metrics={"loss": "train-logloss"}, checkpoint_every=2)]
            params = {"objective": "binary:logistic", "nthread": 1}
            model = library.train(
                params, data, rounds - done, evals=[(data, "train")], xgb_model=so_far, callbacks=callbacks,
                verbose_eval=False,
            )  # fmt: skip
        return {"model": model, "done": done}

    section = {"trainer": trainer, "metric": "loss", "mode": "min", "failure": {"max_failures": 1}}
    ran = train(function, section, op_kwargs={"rows": small_whole_numbers()}, returns=[pickled("model")])
    assert ran.code == 0, ran.failure
    model = ran.output("model")
    assert (model.current_iteration() if trainer == "lightgbm" else model.num_boosted_rounds()) == rounds
    # What was reported last may be lost with its rank.
    assert ran.result.metrics["done"] in (2, 4)
    assert ran.result.metrics["round"] == rounds
    assert ran.result.training is not None
    assert ran.result.training.restarts == 1
    losses = ran.node.load(ran.result.steps or {}).sort_values("training_iteration")["loss"].tolist()
    assert losses[-1] == min(losses) < losses[0]


# -- in the node ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_shared_out_fails_before_a_worker_starts(train: Callable[..., Ran], tmp_path: Path) -> None:
    def function(rows: Any) -> dict[str, Any]:
        (tmp_path / "ran").touch()
        return {"rows": len(rows)}

    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), empty)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (pd.DataFrame({"x": [1]}), {}, "dataset 'rows' has 1 row for 2 workers"),
        (empty, {}, "dataset 'rows' has no rows"),
        (pd.DataFrame({"x": [1]}), {"data": {"train": "row"}}, "op_kwargs has no 'row'"),
        ({"a": 1}, {"data": {"train": "rows"}}, "dataset 'train' is "),
    ]
    for value, section, words in cases:
        failure = train(function, section, op_kwargs={"rows": value}).failure
        assert words in failure.message
    assert not (tmp_path / "ran").exists()


def test_a_file_that_changes_is_an_error_with_the_rank(train: Callable[..., Ran], tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": range(100)}), path)

    def function() -> dict[str, Any]:
        shard = context().shard()
        if context().rank == 0:
            pq.write_table(pa.table({"x": range(7)}), path)
        return {"rows": sum(len(batch["x"]) for _ in range(20) for batch in shard.iter_batches())}

    failure = train(function, {"data": {"train": str(path)}}).failure
    assert "was replaced while it was in use" in failure.message
    assert failure.type == "CatalogError"
