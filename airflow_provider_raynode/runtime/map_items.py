"""The items of a map: of a list, or the rows of a table that is read as it is needed. What a worker gets is a chunk.

An item is what one call gets: an element of the list or a row of the table, with `batch_size` so many of them. Imports
no Ray by itself.
"""

from __future__ import annotations

import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import BindingError, CatalogError
from airflow_provider_raynode.runtime.inputs import load_inputs
from airflow_provider_raynode.runtime.map_plan import LARGEST

# Rows that are read from a file at once, at most.
_ROWS = 65_536
# Rows that are made into dicts at once.
_DICTS = 1_000


class Chunk(ABC):
    """Items on their way to a worker."""

    first: int

    @abstractmethod
    def item(self, index: int) -> Any:
        """Return an item.

        :param index: its index in the whole map.
        :raises Exception: whatever reading it back raises: a class that is not there, say.
        """


@dataclass
class PickledItems(Chunk):
    """Elements of a list, each pickled by itself: what one call does to its item, no other sees."""

    first: int
    data: list[bytes]

    def item(self, index: int) -> Any:
        """Return an element, or a list of so many."""
        return pickle.loads(self.data[index - self.first])


@dataclass
class Rows(Chunk):
    """Rows of a table: one dict each, or with `batch_size` DataFrames."""

    first: int
    table: Any
    batch_size: int | None
    _dicts: tuple[int, list[dict[str, Any]]] = field(default=(0, []), repr=False)

    def item(self, index: int) -> Any:
        """Return a row as a dict, or a DataFrame whose index counts on from the rows before."""
        at = index - self.first
        if self.batch_size is not None:
            return self._frame(at * self.batch_size)
        begin, dicts = self._dicts
        if not begin <= at < begin + len(dicts):
            begin, dicts = self._dicts = at, _without_bare_index(self.table.slice(at, _DICTS)).to_pylist()
        return dicts[at - begin]

    def _frame(self, at: int) -> Any:
        import pandas as pd

        assert self.batch_size is not None
        table = self.table.slice(at, self.batch_size)
        if _has_index(table):
            return table.to_pandas()
        first = self.first * self.batch_size + at
        frame = table.replace_schema_metadata(None).to_pandas()
        frame.index = pd.RangeIndex(first, first + len(frame))
        return frame


def _without_bare_index(table: Any) -> Any:
    """Return a table without the column of an index that has no name, which is none of its author's columns."""
    return table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])


def _has_index(table: Any) -> bool:
    """Whether a table was made of a DataFrame with an index of its own."""
    columns = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return any(isinstance(each, str) for each in columns)


class Items(ABC):
    """All items of a map, to be read in order; what was read once, its chunk holds."""

    total: int

    @abstractmethod
    def chunk(self, first: int, stop: int) -> tuple[Chunk, int, int]:
        """Return the items from `first` on in a chunk, where it ends, and its size in bytes.

        It ends before `stop` where the items are large.
        """


class ListItems(Items):
    """The elements of a sequence."""

    def __init__(self, values: Any, batch_size: int | None) -> None:
        self._values = values
        self._batch_size = batch_size
        self.total = math.ceil(len(values) / (batch_size or 1))

    def chunk(self, first: int, stop: int) -> tuple[Chunk, int, int]:
        """Return items, pickled."""
        data: list[bytes] = []
        size = 0
        for index in range(first, stop):
            if data and size >= LARGEST:
                break
            data.append(_pickled(self._item(index), index))
            size += len(data[-1])
        return PickledItems(first, data), first + len(data), size

    def _item(self, index: int) -> Any:
        if self._batch_size is None:
            return self._values[index]
        begin = index * self._batch_size
        values = self._values[begin : begin + self._batch_size]
        return list(values) if isinstance(values, tuple | range) else values


def _pickled(item: Any, index: int) -> bytes:
    if hasattr(item, "untyped_storage"):
        item = item.clone()  # a part of a tensor is pickled with the whole
    try:
        return pickle.dumps(item, protocol=5)
    except Exception:
        from ray import cloudpickle

        try:
            data: bytes = cloudpickle.dumps(item, protocol=5)
        except Exception as error:
            raise BindingError(
                f"item {index}, a {type(item).__name__}, cannot be pickled: {type(error).__name__}: {error}"
            ) from error
        return data


class TableItems(Items):
    """The rows of parquet files, one file after the other, read in order and never all at once."""

    def __init__(self, files: ParquetRows, batch_size: int | None) -> None:
        self._files = files
        self._batch_size = batch_size
        self._per_item = batch_size or 1
        self.total = math.ceil(files.rows / self._per_item)
        self._tables: Iterator[Any] = iter(())
        self._held: Any = None
        self._begin = 0

    def chunk(self, first: int, stop: int) -> tuple[Chunk, int, int]:
        """Return rows as an Arrow table."""
        fit = max(1, int(LARGEST / max(self._files.bytes_per_row * self._per_item, 1)))
        stop = min(stop, first + fit)
        begin, end = first * self._per_item, min(stop * self._per_item, self._files.rows)
        table = self._take(begin, end)
        return Rows(first, table, self._batch_size), stop, table.nbytes

    def _take(self, begin: int, end: int) -> Any:
        import pyarrow as pa

        if self._held is None or not self._begin <= begin <= self._begin + self._held.num_rows:
            self._begin, self._tables = self._files.read(begin)
            self._held = next(self._tables, self._files.empty())
        pieces = [self._held]
        held = self._held.num_rows
        while self._begin + held < end:
            piece = next(self._tables, None)
            if piece is None:
                raise CatalogError(f"{self._files.name} has fewer rows than it said: {self._begin + held} of {end}")
            pieces.append(piece)
            held += piece.num_rows
        whole = pa.concat_tables(pieces, promote_options="permissive") if len(pieces) > 1 else pieces[0]
        taken = whole.slice(begin - self._begin, end - begin)
        self._held, self._begin = whole.slice(end - self._begin), end
        return taken.combine_chunks()


class ParquetRows:
    """The row groups of some parquet files, proven to be what their reference names."""

    def __init__(self, name: str, value: Any, catalog: Catalog) -> None:
        import pyarrow.parquet as pq

        from airflow_provider_raynode.runtime.training.parquet_files import opened, sources_of

        self.name = f"{name!r}"
        self._catalog = catalog
        self._opened = opened
        # source, number of the row group, its first row, its rows
        self._groups: list[tuple[Any, int, int, int]] = []
        self.rows, size = 0, 0
        self._schema: Any = None
        for source, _ in sources_of(name, value, catalog):
            with opened(source, catalog) as stream:
                file = pq.ParquetFile(stream)
                if self._schema is None:
                    self._schema = file.schema_arrow
                elif self._schema.names != file.schema_arrow.names:
                    raise CatalogError(
                        f"{source.name} has the columns {', '.join(file.schema_arrow.names)[:200]}, the files before "
                        f"it {', '.join(self._schema.names)[:200]}: all files of one folder need the same"
                    )
                for number in range(file.metadata.num_row_groups):
                    group = file.metadata.row_group(number)
                    self._groups.append((source, number, self.rows, group.num_rows))
                    self.rows += group.num_rows
                    size += group.total_byte_size
        self.bytes_per_row = size / max(self.rows, 1)

    def empty(self) -> Any:
        """Return a table without rows."""
        return self._schema.empty_table()

    def read(self, row: int) -> tuple[int, Iterator[Any]]:
        """Return the first row that is read for a row to begin at, and the tables from there on."""
        groups = [group for group in self._groups if row < group[2] + group[3]]
        return (groups[0][2] if groups else self.rows), self._tables(groups)

    def _tables(self, groups: Sequence[tuple[Any, int, int, int]]) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = max(1, min(_ROWS, int(LARGEST / 2 / max(self.bytes_per_row, 1))))
        for source in dict.fromkeys(group[0] for group in groups):
            numbers = [group[1] for group in groups if group[0] == source]
            with self._opened(source, self._catalog) as stream:
                for batch in pq.ParquetFile(stream, pre_buffer=False).iter_batches(batch_size=rows, row_groups=numbers):
                    table = pa.Table.from_batches([batch])
                    yield table.replace_schema_metadata(self._schema.metadata)


def items_of(name: str, value: Any, batch_size: int | None, catalog: Catalog) -> Items:
    """Return the items that an argument of op_kwargs gives.

    :param name: the argument, for messages.
    :param value: as the spec has it: a CatalogRef stands for its data.
    :raises BindingError: it is nothing that has items in an order.
    :raises CatalogError: it cannot be read.
    """
    if CatalogRef.is_ref(value):
        if _is_table(value):
            return TableItems(ParquetRows(name, value, catalog), batch_size)
        value = catalog.load(value)
        if type(value).__name__ == "DataFrame" and hasattr(value, "iloc"):
            raise BindingError(
                f"op_kwargs[{name!r}], which ray_map.over names, is a DataFrame that Parquet cannot hold (columns of "
                "mixed objects, or names that are no text): make it a list of rows with to_dict('records')"
            )
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1 and hasattr(value, "iloc"):
        value = value.tolist()  # a column of pandas, whose index is not its order
    is_array = hasattr(value, "shape") and hasattr(value, "__getitem__") and getattr(value, "ndim", 0) >= 1
    if not is_array and (not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray)):
        raise BindingError(f"op_kwargs[{name!r}], which ray_map.over names, {_no_items(value)}")
    return ListItems(value, batch_size)


def _no_items(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"is a {kind}, whose entries have no order to count on: give list(….items()), or a list of its values"
    if isinstance(value, set | frozenset):
        return f"is a {kind}, whose items have no order: give sorted(…) of it"
    if isinstance(value, str | bytes | bytearray):
        return (
            f"is {'text' if isinstance(value, str) else kind} ({value[:40]!r}): give a list, or the CatalogRef of one"
        )
    return f"is a {kind}: give a list, or the CatalogRef of a list, a table or a folder of tables"


def _is_table(ref: Mapping[str, Any]) -> bool:
    if ref["kind"] == "file":
        return str(ref["uri"]).lower().endswith((".parquet", ".pq"))
    return ref["kind"] in ("parquet", "directory")


def loaded(item: Any, catalog: Catalog) -> Any:
    """Return an item with the references in it replaced by their data."""
    if isinstance(item, dict | list):
        return load_inputs({"item": item}, catalog)["item"]
    return item
