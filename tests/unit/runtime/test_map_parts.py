"""Parts of a map's results: their names say what they hold, and together they are one list."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.map_items import ListItems, PickledItems
from airflow_provider_raynode.runtime.map_parts import (
    NOTHING,
    Part,
    failed_items,
    part_of,
    piece_of,
    put_errors,
    put_results,
    whole_parts,
    write_part,
)
from airflow_provider_raynode.runtime.map_plan import LARGEST
from airflow_provider_raynode.spec import NodeFailure

pytest.importorskip("ray")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path))


def parts_of(catalog: Catalog, results: list[Any], size: int) -> list[Part]:
    folder = catalog.at("parts")
    pieces = [piece_of(result) for result in results]
    return [write_part(folder, first, pieces[first : first + size], []) for first in range(0, len(pieces), size)]


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        ([], "json"),
        ([1, None, "ü", "\udce9", {"a": [True, 2.5]}, 2**80], "json"),
        ([1, math.nan, (2, 3), {4}, None, b"5"], "pickled"),
        ([np.float64(1.5), "text", [1]], "pickled"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 10])
def test_together_they_are_the_list(catalog: Catalog, results: list[Any], kind: str, size: int) -> None:
    parts = parts_of(catalog, results, size)
    ref = put_results(parts, catalog.at("parts"), catalog.at("attempt"))
    assert ref["kind"] == kind
    assert repr(catalog.load(ref)) == repr(results)
    assert [part_of(part.name) for part in parts] == parts
    assert whole_parts(catalog.at("parts"), 0, len(results)) == (parts, [])


def test_errors_come_in_order(catalog: Catalog) -> None:
    folder = catalog.at("parts")
    failures = [NodeFailure(type="ValueError", message=f"no {index} \udce9", item=index) for index in (1, 2, 5)]
    parts = [
        write_part(folder, 0, [piece_of(0), NOTHING, NOTHING], failures[:2]),
        write_part(folder, 3, [piece_of(3)], []),
        write_part(folder, 4, [piece_of((4,)), NOTHING], failures[2:]),
    ]
    assert catalog.load(put_results(parts, folder, catalog)) == [0, None, None, 3, (4,), None]
    errors = catalog.load(put_errors(parts, folder, catalog))
    assert [(each["index"], each["message"]) for each in errors] == [
        (1, "no 1 \\udce9"),
        (2, "no 2 \\udce9"),
        (5, "no 5 \\udce9"),
    ]
    assert list(failed_items(parts, folder)) == [1, 2, 5]


def test_damage_is_seen(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.at("parts")
    parts = parts_of(catalog, [1, 2, 3, 4], 1)
    failed = write_part(folder, 4, [NOTHING], [NodeFailure(type="E", message="m", item=4)])
    (tmp_path / "parts" / failed.errors).unlink()
    file = tmp_path / "parts" / parts[1].name
    file.write_bytes(b"[7]")
    (tmp_path / "parts" / "note.txt").write_text("not a part")
    assert whole_parts(folder, 0, 5) == ([parts[0], parts[2], parts[3]], sorted([parts[1].name, failed.name]))
    assert whole_parts(folder, 2, 4) == ([parts[2], parts[3]], [])


def test_what_cannot_leave_its_process() -> None:
    import threading

    with pytest.raises(RayNodeError, match="a generator: return list"):
        piece_of(each for each in [1])
    with pytest.raises(RayNodeError, match="the result, a lock, cannot be pickled"):
        piece_of(threading.Lock())

    async def coroutine() -> None: ...

    with pytest.raises(RayNodeError, match="async def"):
        piece_of(coroutine())


def test_chunks_are_bounded() -> None:
    items = ListItems([b"x" * (LARGEST // 3)] * 10, None)
    chunk, stop, size = items.chunk(0, 10)
    assert isinstance(chunk, PickledItems)
    assert (stop, len(chunk.data)) == (3, 3) or (stop, len(chunk.data)) == (4, 4)
    assert size >= LARGEST
    huge = ListItems([b"x" * (LARGEST * 2)] * 2, None)
    assert huge.chunk(1, 2)[1] == 2


def test_batches_of_a_list() -> None:
    items = ListItems(list(range(7)), 3)
    chunk, stop, _ = items.chunk(0, 3)
    assert (items.total, stop) == (3, 3)
    assert [chunk.item(index) for index in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
