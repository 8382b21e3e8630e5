"""The rows of tables as items of a map: read in order, from any row on, over files and row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.map_items import Items, items_of


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


def folder_of(catalog: Catalog, tmp_path: Path, *, files: int, rows: int, group: int) -> Any:
    """Put a folder of parquet files; `x` counts the rows through all of them."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(files):
        table = pa.table({"x": range(number * rows, (number + 1) * rows), "file": [number] * rows})
        pq.write_table(table, folder / f"part-{number:02}.parquet", row_group_size=group)
    (folder / "_SUCCESS").touch()
    return catalog.put(folder, "folder")


def all_items(items: Items, first: int = 0, step: int = 7) -> list[Any]:
    found = []
    while first < items.total:
        chunk, stop, size = items.chunk(first, min(first + step, items.total))
        assert first < stop
        assert size > 0
        found += [chunk.item(index) for index in range(first, stop)]
        first = stop
    return found


@pytest.mark.parametrize("group", [1, 3, 100])
@pytest.mark.parametrize("first", [0, 1, 10, 19, 29])
def test_rows_of_a_folder(catalog: Catalog, tmp_path: Path, group: int, first: int) -> None:
    items = items_of("x", folder_of(catalog, tmp_path, files=3, rows=10, group=group), None, catalog)
    assert items.total == 30
    assert [row["x"] for row in all_items(items, first)] == list(range(first, 30))


@pytest.mark.parametrize("first", [0, 2, 7])
def test_batches_over_files_and_row_groups(catalog: Catalog, tmp_path: Path, first: int) -> None:
    items = items_of("x", folder_of(catalog, tmp_path, files=3, rows=10, group=3), 4, catalog)
    assert items.total == 8
    frames = all_items(items, first, step=2)
    assert [len(frame) for frame in frames] == [4] * (7 - first) + [2]
    assert pd.concat(frames)["x"].tolist() == list(range(first * 4, 30))
    assert frames[0].index.tolist() == list(range(first * 4, first * 4 + len(frames[0])))


def test_gaps_between_what_was_done(catalog: Catalog, tmp_path: Path) -> None:
    items = items_of("x", folder_of(catalog, tmp_path, files=2, rows=50, group=9), None, catalog)
    for first, stop in ((0, 1), (5, 9), (40, 60), (99, 100)):
        chunk, end, _ = items.chunk(first, stop)
        assert end == stop
        assert [chunk.item(index)["x"] for index in range(first, stop)] == list(range(first, stop))


def test_rows_keep_their_values(catalog: Catalog) -> None:
    frame = pd.DataFrame(
        {
            "text": ["ä", None, "c"],
            "number": pd.array([1, None, 3], dtype="Int64"),
            "when": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
            "list": [[1], [], [2, 3]],
        },
        index=[7, 8, 9],
    )
    items = items_of("x", catalog.put(frame, "frame"), None, catalog)
    rows = all_items(items)
    assert [row["text"] for row in rows] == ["ä", None, "c"]
    assert [row["number"] for row in rows] == [1, None, 3]
    assert rows[1]["list"] == []
    assert set(rows[0]) == {"text", "number", "when", "list"}
    [whole] = all_items(items_of("x", catalog.put(frame, "frame"), 10, catalog))
    assert whole.index.tolist() == [7, 8, 9]


def test_an_empty_table(catalog: Catalog) -> None:
    assert items_of("x", catalog.put(pd.DataFrame({"x": []}), "none"), None, catalog).total == 0
    assert items_of("x", catalog.put(np.zeros((0, 3)), "array"), 5, catalog).total == 0


def test_a_table_that_was_altered(catalog: Catalog) -> None:
    ref = catalog.put(pd.DataFrame({"x": [1, 2, 3]}), "frame")
    file = Path(ref["uri"])
    file.write_bytes(file.read_bytes().replace(b"x", b"y", 1))
    with pytest.raises(CatalogError, match="is not what its reference names"):
        items_of("x", ref, None, catalog)


def test_files_of_other_columns(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"y": [1]}), folder / "b.parquet")
    with pytest.raises(CatalogError, match="all files of one folder need the same"):
        items_of("x", catalog.put(folder, "mixed"), None, catalog)
