"""Which inputs become datasets, which rows a rank gets, and how they come in equally many batches; the callbacks."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from ray.data._internal.batcher import Batcher

from airflow_provider_raynode import lightgbm_callback, xgboost_callback
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config.train import RayTrain
from airflow_provider_raynode.exceptions import CatalogError, ConfigError
from airflow_provider_raynode.runtime.training.datasets import DatasetArgument, check_shares, datasets_of, share_of
from airflow_provider_raynode.runtime.training.parquet import rows_of
from airflow_provider_raynode.runtime.training.parquet_files import sources_of
from airflow_provider_raynode.runtime.training.shards import Shard, Shares, _EvenBatcher


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


def frame(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(rows)})


# -- which inputs --------------------------------------------------------------------------------------------------


def test_without_data_each_reference_to_parquet_is_a_dataset(store: Catalog) -> None:
    table, other, number = store.put(frame(3)), store.put({"a": 1}), 7
    given = {"train": table, "parts": [table, table], "by_name": {"validation": table, "depth": 2}, "other": other}
    datasets, inputs = datasets_of(RayTrain(), {**given, "number": number}, store)
    assert {name: rows.rows for name, rows in datasets.items()} == {"train": 3, "parts": 6, "validation": 3}
    assert inputs == {
        "train": DatasetArgument("train"),
        "parts": DatasetArgument("parts"),
        "by_name": {"validation": DatasetArgument("validation"), "depth": 2},
        "other": other,
        "number": 7,
    }


def test_data_says_which_and_the_rest_is_loaded(store: Catalog, tmp_path: Path) -> None:
    table = store.put(frame(3))
    frame(5).to_parquet(tmp_path / "more.parquet")
    data = {
        "train": "rows",
        "validation": {"op_kwarg": "held_out", "shard": False},
        "more": {"uri": str(tmp_path / "more.parquet")},
    }
    given = {"rows": table, "held_out": table, "lookup": table}
    datasets, inputs = datasets_of(RayTrain.model_validate({"data": data}), given, store)
    assert {name: (rows.rows, rows.sharded) for name, rows in datasets.items()} == {
        "train": (3, True),
        "validation": (3, False),
        "more": (5, True),
    }
    assert inputs == {"rows": DatasetArgument("train"), "held_out": DatasetArgument("validation"), "lookup": table}


def test_what_does_not_fit_is_refused_by_name(store: Catalog) -> None:
    table, other = store.put(frame(3)), store.put(frame(4))
    with pytest.raises(ConfigError, match=r"ray_train\.data\.train: op_kwargs has no 'rows'; it has: 'data'"):
        datasets_of(RayTrain.model_validate({"data": {"train": "rows"}}), {"data": table}, store)
    with pytest.raises(ConfigError, match="two datasets of the name 'train'"):
        datasets_of(RayTrain(), {"train": table, "more": {"train": other}}, store)
    with pytest.raises(CatalogError, match="dataset 'train' is a reference of kind 'json'"):
        datasets_of(RayTrain.model_validate({"data": {"train": "rows"}}), {"rows": store.put({"a": 1})}, store)


# -- which rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 16])
def test_each_row_has_one_rank(workers: int) -> None:
    for rows in (workers, workers + 1, 100, 101, 1009):
        shares = [share_of(rows, rank, workers) for rank in range(workers)]
        assert [row for share in shares for row in range(*share)] == list(range(rows))
        lengths = [stop - start for start, stop in shares]
        assert max(lengths) - min(lengths) <= 1
        assert lengths == sorted(lengths, reverse=True)


def test_another_number_of_workers_gets_other_shares(store: Catalog) -> None:
    rows = rows_of("train", sources_of("train", store.put(frame(10)), store), store)
    all_rows = rows_of("all", sources_of("all", store.put(frame(10)), store), store, sharded=False)
    for workers, lengths in ((1, [10]), (3, [4, 3, 3]), (2, [5, 5]), (4, [3, 3, 2, 2])):
        shards = Shares().configure({"train": rows, "all": all_rows}, workers)
        assert [len(each["train"]) for each in shards] == lengths
        assert [len(each["all"]) for each in shards] == [10] * workers
        assert [each["train"].rank for each in shards] == list(range(workers))


def test_fewer_rows_than_workers_is_an_error_before_the_training(store: Catalog) -> None:
    one = store.put(frame(1))
    rows = rows_of("validation", sources_of("validation", one, store), store)
    check_shares({"validation": rows}, 1)
    with pytest.raises(CatalogError, match=r"'validation' has 1 row for 2 workers.*num_workers.*shard: false"):
        check_shares({"validation": rows}, 2)
    whole = rows_of("validation", sources_of("validation", one, store), store, sharded=False)
    check_shares({"validation": whole}, 2)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("least", [1, 2, 5, 10, 11])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 10, 100])
def test_every_rank_gets_as_many_batches(size: int, least: int, drop_last: bool) -> None:
    def batches(rows: int) -> list[list[int]]:
        batcher = _EvenBatcher(Batcher(size), size, rows, least, drop_last=drop_last)
        found: list[list[int]] = []

        def take() -> None:
            found.append(batcher.next_batch()["x"].tolist())

        for start in range(0, rows, 4):  # blocks of 4 rows
            batcher.add(frame(rows).iloc[start : start + 4])
            while batcher.has_batch():
                take()
        batcher.done_adding()
        while batcher.has_batch() or (batcher.has_any() and not drop_last):
            take()
        return found

    few, more = batches(least), batches(least + 1)
    assert len(few) == len(more)
    for rows, found in ((least, few), (least + 1, more)):
        if drop_last:
            assert [len(each) for each in found] == [size] * (least // size)
        else:
            assert [row for each in found for row in each] == list(range(rows))
            assert [len(each) for each in found[:-1]] == [size] * (len(found) - 1)
            assert len(found[-1]) <= size + 1


def test_every_type_comes_as_in_the_whole_table(store: Catalog) -> None:
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.23"), None, Decimal("3.45")], pa.decimal128(5, 2)),
            "zoned": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None, datetime(2026, 1, 3, tzinfo=UTC)]),
            "nothing": pa.nulls(3),
            "flag": [True, None, False],
            "bytes": [b"a", b"", None],
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "fixed": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
            "texts": pa.array([["a"], [], None], pa.large_list(pa.string())),
            "nested": [{"a": 1, "b": {"c": "x"}}, None, {"a": 2, "b": {"c": "y"}}],
            "huge": pa.array([2**63, 1, 2], pa.uint64()),
            "coded": pa.array(["x", None, "y"]).dictionary_encode(),
        }
    )
    rows = rows_of("train", sources_of("train", store.put(table), store), store)
    parts = [Shard(rows, rank, 3) for rank in range(3)]
    pd.testing.assert_frame_equal(
        pd.concat([part.to_pandas() for part in parts], ignore_index=True).astype(table.to_pandas().dtypes),
        table.to_pandas(),
    )
    whole = parts[0].whole()
    for batches in (whole.iter_batches(batch_size=3), whole.iter_batches(batch_size=3, format="pandas")):
        (batch,) = batches
        assert list(batch) == table.column_names
    for batch in whole.iter_batches(batch_size=3):
        batch["huge"] //= 2  # it is the function's own
    assert [row["nested"] for row in whole.iter_rows()] == table["nested"].to_pylist()


# -- boosting ------------------------------------------------------------------------------------------------------


def test_the_callbacks_report_each_round(caplog: pytest.LogCaptureFixture) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    xgboost = pytest.importorskip("xgboost")
    data = pd.DataFrame({"x": range(100), "y": [value % 2 for value in range(100)]})
    rows = lightgbm.Dataset(data[["x"]], data["y"])
    with caplog.at_level(logging.INFO, logger="airflow_provider_raynode.trial"):
        lightgbm.train(
            {"objective": "binary", "metric": "auc", "verbose": -1}, rows, 5, [rows], ["train"],
            callbacks=[lightgbm_callback(metrics={"auc": "train-auc"}, every=2)],
        )  # fmt: skip
    told = [record.args for record in caplog.records]
    assert [each["round"] for each in told] == [2, 4, 5]
    assert all(set(each) == {"auc", "round"} for each in told)
    caplog.clear()
    matrix = xgboost.DMatrix(data[["x"]], data["y"])
    with caplog.at_level(logging.INFO, logger="airflow_provider_raynode.trial"):
        xgboost.train(
            {"objective": "binary:logistic"}, matrix, 3, evals=[(matrix, "train")],
            callbacks=[xgboost_callback()], verbose_eval=False,
        )  # fmt: skip
    assert [set(record.args) for record in caplog.records] == [{"train-logloss", "round"}] * 3
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="airflow_provider_raynode.trial"):
        parameters, evals = {"objective": "binary:logistic"}, [(matrix, "train")]
        so_far = xgboost.train(parameters, matrix, 3)
        xgboost.train(
            parameters, matrix, 2, evals=evals, xgb_model=so_far, callbacks=[xgboost_callback()], verbose_eval=False
        )
    assert [record.args["round"] for record in caplog.records] == [4, 5]
    with pytest.raises(KeyError, match="no metric 'nothing' in this round; there are: train-logloss"):
        xgboost.train(
            {"objective": "binary:logistic"}, matrix, 3, evals=[(matrix, "train")],
            callbacks=[xgboost_callback(metrics={"auc": "nothing"})], verbose_eval=False,
        )  # fmt: skip


@pytest.mark.parametrize("make", [lightgbm_callback, xgboost_callback])
def test_a_callback_that_makes_no_sense_is_refused(make: Any) -> None:
    if make is xgboost_callback:
        pytest.importorskip("xgboost")
    for bad in ({"every": 0}, {"checkpoint_every": -1}, {"every": True}):
        with pytest.raises(ValueError, match="a number of rounds, 1 or more"):
            make(**bad)
