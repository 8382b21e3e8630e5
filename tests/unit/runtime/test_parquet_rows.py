"""Parquet as a dataset: what is found behind a reference, what is proven of it, which rows a worker reads."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.training.parquet import ParquetRows, rows_of
from airflow_provider_raynode.runtime.training.parquet_files import is_parquet, sources_of


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


def found(value: Any, store: Catalog, name: str = "train") -> ParquetRows:
    return rows_of(name, sources_of(name, value, store), store)


def read(rows: ParquetRows, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    tables = list(rows.read(start, rows.rows if stop is None else stop))
    return pa.concat_tables(tables).to_pandas()


def folder(path: Path, **tables: Any) -> Path:
    """Write each table as a file; `a__b` is the file b.parquet in the folder a."""
    for name, table in tables.items():
        file = path / f"{name.replace('__', '/')}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file)
    return path


def folder_ref(path: Path, size: int = 0) -> CatalogRef:
    return CatalogRef(uri=str(path), kind="directory", sha256="0" * 64, size=size, created="2026-01-01T00:00:00+00:00")


def test_every_form_of_a_dataset_has_the_same_rows(store: Catalog, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", a={"x": [0, 1, 2]}, b={"x": [3, 4]})
    forms: dict[str, Any] = {
        "table": store.put(pd.DataFrame({"x": range(5)})),
        "folder as an archive": store.put(path),
        "folder of the storage": folder_ref(path),
        "references": [store.put(path / "a.parquet"), store.put(path / "b.parquet")],
        "path": str(path),
        "uri": f"file://{path}",
        "paths": [str(path / "a.parquet"), str(path / "b.parquet")],
    }
    for form, value in forms.items():
        rows = found(value, store)
        assert rows.rows == 5, form
        assert read(rows)["x"].tolist() == [0, 1, 2, 3, 4], form
        assert read(rows, 2, 4)["x"].tolist() == [2, 3], form


@pytest.mark.parametrize("group", [1, 3, 7, 1000])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_any_cut_gives_each_row_once(store: Catalog, tmp_path: Path, group: int, size: int) -> None:
    for number, count in enumerate((10, 0, 7, 1)):
        table = pa.table({"x": pa.array(range(number * 100, number * 100 + count), pa.int64()), "s": ["text"] * count})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{number}.parquet", row_group_size=group)
    rows = found(str(tmp_path / "data"), store)
    expected = [*range(10), *range(200, 207), 300]
    for start, stop in ((0, 18), (3, 12), (9, 11), (17, 18)):
        cuts = rows.cuts(start, stop, size)
        assert cuts[0][0] == start
        assert cuts[-1][1] == stop
        assert all(one[1] == two[0] for one, two in pairwise(cuts))
        values = [value for cut in cuts for value in read(rows, *cut)["x"]]
        assert values == expected[start:stop]


def test_a_large_row_group_comes_in_small_tables(store: Catalog, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"x": np.arange(4_000_000, dtype="float64")}),
        tmp_path / "one.parquet",
        row_group_size=4_000_000,
        use_dictionary=False,
    )
    rows = found(str(tmp_path / "one.parquet"), store)
    assert len(rows.files[0].groups) == 1
    sizes = [table.nbytes for table in rows.read(0, rows.rows)]
    assert sum(sizes) == 32_000_000
    assert max(sizes) < 12 << 20


def test_the_unnamed_index_of_a_frame_is_no_column_and_types_stay(store: Catalog) -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "text": ["a", "b", None],
            "kind": pd.Categorical(["low", "high", None], categories=["low", "middle", "high"], ordered=True),
            "list": [[1, 2], [], None],
            "nested": [{"a": 1}, {"a": 2}, None],
            "when": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
        },
        index=[30, 10, 20],
    )
    rows = found(store.put(frame), store)
    assert rows.schema.names == ["whole", "text", "kind", "list", "nested", "when"]
    back = read(rows)
    assert back.index.tolist() == [0, 1, 2]
    for name in ("whole", "kind", "when"):
        assert back[name].dtype == frame[name].dtype
    assert back["kind"].cat.categories.tolist() == ["low", "middle", "high"]
    named = found(store.put(frame[["whole"]].rename_axis("id")), store)
    assert set(named.schema.names) == {"id", "whole"}


def test_a_category_has_one_code_in_every_file(store: Catalog, tmp_path: Path) -> None:
    def coded(*values: str | None) -> pa.Table:
        return pa.table({"c": pa.array(values).dictionary_encode()})

    path = folder(tmp_path / "data", a=coded("x", "y"), b=coded("z", "x", None), c={"c": ["w", "y"]})
    rows = found(str(path), store)
    parts = [read(rows, at, at + 1)["c"] for at in range(7)]
    assert {tuple(part.cat.categories) for part in parts} == {("x", "y", "z", "w")}
    assert [part.cat.codes[0] for part in parts] == [0, 1, 2, 0, -1, 3, 1]


def test_types_that_hold_each_others_values_become_one(store: Catalog, tmp_path: Path) -> None:
    path = folder(
        tmp_path / "data",
        a={"i": pa.array([1], pa.int32()), "f": pa.array([1], pa.int64()), "n": pa.nulls(1)},
        b={"n": ["text"], "f": pa.array([0.5]), "i": pa.array([2**40], pa.int64())},
    )
    rows = found(str(path), store)
    table = pa.concat_tables(rows.read(0, 2))
    assert table.to_pydict() == {"i": [1, 2**40], "f": [1.0, 0.5], "n": [None, "text"]}


def test_partitions_are_columns(store: Catalog, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "year": [2024, 2025, 2025], "place": ["a b", "a b", "c"]})
    frame.to_parquet(tmp_path / "data", partition_cols=["year", "place"])
    for value in (str(tmp_path / "data"), store.put(tmp_path / "data")):
        back = read(found(value, store)).sort_values("x")
        assert back[["x", "year", "place"]].to_dict("list") == frame.to_dict("list")


def test_what_spark_leaves_in_a_folder_is_passed_over(store: Catalog, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", a={"x": [1]})
    for name in ("_SUCCESS", ".a.parquet.crc", "_temporary/0/part"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("no parquet")
    assert found(str(path), store).rows == 1
    assert found(store.put(path), store).rows == 1


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a column too few": ({"a": {"x": [1], "y": [2]}, "b": {"x": [1]}}, ["b.parquet lacks 'y'", "a.parquet"]),
    "a column more": ({"a": {"x": [1]}, "b": {"x": [1], "z": [1]}}, ["b.parquet has 'z'"]),
    "another type": ({"a": {"x": [1]}, "b": {"x": ["one"]}}, ["column 'x' is string in", "int64"]),
    "no rows": ({"a": {"x": pa.array([], pa.int64())}}, ["has no rows"]),
    "no columns": ({"a": pa.table({}), "b": {"x": [1]}}, ["has no columns"]),
    "two columns of one name": ({"a": pa.table([[1], [2]], ["x", "x"])}, ["two columns of the name 'x'"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_one_table_is_refused(store: Catalog, tmp_path: Path, case: str) -> None:
    tables, words = REFUSED[case]
    path = folder(tmp_path / "data", **tables)
    for value in (str(path), store.put(path)):
        with pytest.raises(CatalogError) as error:
            found(value, store)
        assert all(word in str(error.value) for word in ["dataset 'train'", *words]), str(error.value)


def test_other_things_in_a_folder_are_named(store: Catalog, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", a={"x": [1]})
    (path / "notes.csv").write_text("x\n1\n2\n")
    (path / "empty.parquet").write_bytes(b"")
    for value in (str(path), store.put(path)):
        with pytest.raises(CatalogError, match=r"empty\.parquet, notes\.csv is not parquet: take it out"):
            found(value, store)
        assert not isinstance(value, CatalogRef) or not is_parquet(value, store)


def test_what_is_no_dataset_is_refused_by_name(store: Catalog, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    truncated = tmp_path / "truncated.parquet"
    pq.write_table(pa.table({"x": range(1000)}), truncated)
    truncated.write_bytes(truncated.read_bytes()[:-10])
    cases: list[tuple[Any, str]] = [
        (store.put({"a": 1}), "of kind 'json'"),
        (store.put(np.arange(3)), "of kind 'numpy'"),
        ([], "an empty list"),
        (7, "is of type int"),
        ("data.parquet", "an absolute path"),
        (str(tmp_path / "nowhere.parquet"), "there is no .*nowhere"),
        (str(tmp_path / "empty"), "no parquet file in the folder"),
        (str(truncated), "is not a parquet file"),
        (store.put(truncated), "is not a parquet file"),
    ]
    for value, words in cases:
        with pytest.raises(CatalogError, match=words):
            found(value, store)


def test_what_is_not_what_its_reference_names_is_refused(store: Catalog, tmp_path: Path) -> None:
    ref = store.put(pd.DataFrame({"x": range(1000)}), "rows")
    other = store.put(pd.DataFrame({"x": range(1000, 2000)}), "rows")
    assert ref.uri == other.uri
    assert found(other, store).rows == 1000
    with pytest.raises(CatalogError, match="is not what its reference names"):
        found(ref, store)
    path = folder(tmp_path / "data", a={"x": [1]})
    size = (path / "a.parquet").stat().st_size
    assert found(folder_ref(path, size), store).rows == 1
    with pytest.raises(CatalogError, match="its reference says"):
        found(folder_ref(path, size + 1), store)


def test_a_file_that_is_replaced_meanwhile_is_an_error(store: Catalog, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", a={"x": [1, 2]})
    rows = found(str(path), store)
    folder(path, a={"x": [3, 4]})
    os.utime(path / "a.parquet", (1, 1))
    with pytest.raises(CatalogError, match="was replaced while it was in use"):
        read(rows)
    (path / "a.parquet").unlink()
    with pytest.raises(CatalogError, match="is not there on host"):
        read(rows)


def test_which_inputs_are_parquet(store: Catalog, tmp_path: Path) -> None:
    frame = store.put(pd.DataFrame({"x": [1]}))
    path = folder(tmp_path / "data", a={"x": [1]})
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.png").write_bytes(b"not parquet")
    assert all(
        is_parquet(each, store) for each in (frame, [frame, frame], store.put(path), store.put(path / "a.parquet"))
    )
    others = (
        store.put(pictures),
        store.put({"a": 1}),
        store.put(np.arange(3)),
        "text",
        [],
        [frame, 1],
        {"a": frame},
        3,
    )
    assert not any(is_parquet(each, store) for each in others)
