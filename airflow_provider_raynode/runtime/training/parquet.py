"""Parquet as the catalog holds it: which files a dataset has, how many rows, and its rows in order. Imports no Ray.

Nothing here holds a file whole: of each file the footer is read, and rows come in tables of a few megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.training.parquet_files import Source, opened

# About so many bytes of rows are decoded at once, and handed on at once.
_DECODED = 4 << 20
_TABLE = 8 << 20
# Columns of a row group are fetched ahead up to this size, as an object store needs; of a larger one page by page.
_FETCHED_AHEAD = 64 << 20
# So many files are asked for their footers at once: each is a few requests to an object store.
_TOGETHER = 16
# So many categories are gathered before those that are there twice go.
_CATEGORIES = 1_000_000
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ParquetFile:
    """One file of a dataset.

    :param groups: rows, bytes decoded and bytes stored of each row group.
    :param partition: the values that the names of its folders say, `year=2024`.
    """

    source: Source
    groups: tuple[tuple[int, int, int], ...]
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return sum(rows for rows, _, _ in self.groups)


@dataclass(frozen=True)
class ParquetRows:
    """A dataset: the rows of its files, in the order of the files.

    :param name: its name in `ray_train.data`.
    :param schema: columns and types as a worker sees them.
    :param categories: of each column of categories all that occur anywhere, so that a code means the same everywhere.
    :param sharded: whether each worker gets its part.
    """

    name: str
    catalog_uri: str
    files: tuple[ParquetFile, ...]
    schema: pa.Schema
    categories: dict[str, pa.Array] = field(default_factory=dict)
    sharded: bool = True

    @cached_property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a decoded row, at a guess."""
        decoded = sum(size for file in self.files for _, size, _ in file.groups)
        return max(1, _fixed_bytes(self.schema), decoded // max(1, self.rows))

    @cached_property
    def _ends(self) -> list[int]:
        """After which row each row group ends."""
        return list(accumulate(rows for file in self.files for rows, _, _ in file.groups))

    def cuts(self, start: int, stop: int, size: int) -> list[tuple[int, int]]:
        """Return the rows from `start` to `stop` in parts of about `size` bytes, whole row groups where they fit."""
        step = max(1, size // self.row_bytes)
        inner = [end for end in self._ends if start < end < stop]
        parts: list[tuple[int, int]] = []
        begin, last = start, start
        for end in [*inner, stop]:
            if end - begin > step and last > begin:
                parts.append((begin, last))
                begin = last
            last = end
        if stop > begin:
            parts.append((begin, stop))
        return parts

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Read the rows from `start` to `stop`, in tables of a few megabytes.

        :raises CatalogError: a file is gone or another than it was, or damaged.
        """
        first = 0
        for file in self.files:
            begin, end = max(start - first, 0), min(stop - first, file.rows)
            if begin < end:
                yield from self._read_file(file, begin, end)
            first += file.rows

    def _read_file(self, file: ParquetFile, start: int, stop: int) -> Iterator[pa.Table]:
        catalog = _catalog(self.catalog_uri)
        with opened(file.source, catalog) as stream:
            first = 0
            readers = {ahead: _reader(stream, ahead=ahead) for ahead in {self._ahead(each) for each in file.groups}}
            for number, group in enumerate(file.groups):
                begin, end = max(start - first, 0), min(stop - first, group[0])
                first += group[0]
                if begin < end:
                    try:
                        reader = readers[self._ahead(group)]
                        for table in self._read_group(reader, number, begin, end):
                            yield self._as_told(table, file)
                    except (pa.ArrowException, ValueError) as error:
                        raise CatalogError(
                            f"dataset {self.name!r}: {file.source.name} cannot be read in its row group {number}: "
                            f"{type(error).__name__}: {error}"
                        ) from error

    @staticmethod
    def _ahead(group: tuple[int, int, int]) -> bool:
        return group[2] <= _FETCHED_AHEAD

    def _read_group(self, reader: pq.ParquetFile, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        columns = [name for name in reader.schema_arrow.names if name in self.schema.names]
        step = max(1, min(_DECODED // self.row_bytes, 65536))
        held: list[pa.RecordBatch] = []
        size = done = 0
        # Without threads: each would hold a column of its own.
        for batch in reader.iter_batches(step, row_groups=[number], columns=columns, use_threads=False):
            begin, end = max(start - done, 0), min(stop - done, batch.num_rows)
            done += batch.num_rows
            if begin < end:
                held.append(batch.slice(begin, end - begin))
                size += batch.nbytes
            if size >= _TABLE:
                yield _table(held)
                held, size = [], 0
            if done >= stop:
                break
        if held:
            yield _table(held)

    def _as_told(self, table: pa.Table, file: ParquetFile) -> pa.Table:
        """Return a table with the dataset's columns in their order, each of the dataset's type."""
        given = dict(file.partition)
        columns = []
        for wanted in self.schema:
            if wanted.name in given:
                value = given[wanted.name]
                scalar = pa.scalar(value, pa.string()).cast(wanted.type)
                columns.append(pa.repeat(scalar, table.num_rows))
                continue
            column = table.column(wanted.name)
            categories = self.categories.get(wanted.name)
            if categories is not None:
                column = _coded(column, categories, wanted.type)
            elif column.type != wanted.type:
                column = column.cast(wanted.type)
            columns.append(column)
        return pa.Table.from_arrays(columns, schema=self.schema)


def rows_of(name: str, sources: Sequence[tuple[Source, str]], catalog: Catalog, *, sharded: bool = True) -> ParquetRows:
    """Return the dataset that is in these files.

    :param name: the dataset's.
    :param sources: each file, and its path in the folder that was given ("" for a file).
    :raises CatalogError: a file is no parquet file, the files' columns differ, or there is no row.
    """
    files: list[ParquetFile] = []
    schemas: list[pa.Schema] = []
    with ThreadPoolExecutor(_TOGETHER) as pool:
        footers = list(pool.map(lambda each: _footer(name, each[0], catalog), sources))
    for (source, path), (metadata, schema) in zip(sources, footers, strict=True):
        groups = tuple(_sizes(metadata.row_group(number)) for number in range(metadata.num_row_groups))
        files.append(ParquetFile(source, groups, _partition(path)))
        schemas.append(_without_index(schema))
    if not any(file.rows for file in files):
        where = files[0].source.name if len(files) == 1 else f"its {len(files)} files"
        raise CatalogError(f"dataset {name!r} has no rows ({where}): there is nothing to train on")
    schema = _common(name, [file.source.name for file in files], schemas)
    schema = _with_partition(name, schema, files)
    coded = [each.name for each in schema if pa.types.is_dictionary(each.type)]
    rows = ParquetRows(name, catalog.uri, tuple(files), schema, sharded=sharded)
    if coded:
        rows = ParquetRows(name, catalog.uri, tuple(files), schema, _categories(rows, coded, catalog), sharded)
    return rows


def _sizes(group: pq.RowGroupMetaData) -> tuple[int, int, int]:
    stored = sum(group.column(number).total_compressed_size for number in range(group.num_columns))
    return group.num_rows, group.total_byte_size, stored


def _footer(name: str, source: Source, catalog: Catalog) -> tuple[pq.FileMetaData, pa.Schema]:
    with opened(source, catalog) as stream:
        try:
            reader = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CatalogError(
                f"dataset {name!r}: {source.name} ({source.size} bytes) is not a parquet file: {str(error)[:200]}"
            ) from None
        schema = reader.schema_arrow
        double = sorted({each for each in schema.names if schema.names.count(each) > 1})
        if double:
            raise CatalogError(f"dataset {name!r}: {source.name} has two columns of the name {double[0]!r}")
        return reader.metadata, schema


def _without_index(schema: pa.Schema) -> pa.Schema:
    """Return a schema without the unnamed index of a DataFrame, which is no column of the data.

    What pandas says of the columns stays: a nullable integer is one again.
    """
    text = (schema.metadata or {}).get(b"pandas")
    if text is None:
        return schema.remove_metadata()
    told = json.loads(text)
    index = {each for each in told.get("index_columns", []) if isinstance(each, str)}
    unnamed = {each for each in index if each.startswith("__index_level_")}
    told["index_columns"] = []
    told["columns"] = [each for each in told.get("columns", []) if each.get("field_name") not in index]
    fields = [each for each in schema if each.name not in unnamed]
    return pa.schema(fields, metadata={b"pandas": json.dumps(told).encode()})


def _common(name: str, files: Sequence[str], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns that all files have, each of a type that holds its values in all of them."""
    first = schemas[0]
    if not first.names:
        raise CatalogError(f"dataset {name!r}: {files[0]} has no columns")
    types = {each.name: each.type for each in first}
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        if set(schema.names) != set(types):
            differences = [
                f"{word} {', '.join(map(repr, sorted(names)[:5]))}"
                for word, names in (("lacks", set(types) - set(schema.names)), ("has", set(schema.names) - set(types)))
                if names
            ]
            raise CatalogError(
                f"dataset {name!r}: {file} {' and '.join(differences)}, unlike {files[0]}: all files need the same "
                "columns"
            )
        for each in schema:
            try:
                types[each.name] = _wider(types[each.name], each.type)
            except pa.ArrowException:
                raise CatalogError(
                    f"dataset {name!r}: column {each.name!r} is {each.type} in {file} and {types[each.name]} in "
                    f"{files[0]}: write all files with one type"
                ) from None
    return pa.schema(list(types.items()), metadata=first.metadata)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    coded = pa.types.is_dictionary(one) or pa.types.is_dictionary(other)
    values = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (one, other)]
    schemas = [pa.schema([("column", kind)]) for kind in values]
    kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    if not coded or pa.types.is_null(kind):
        return kind
    ordered = all(getattr(each, "ordered", False) for each in (one, other))
    return pa.dictionary(pa.int32(), kind, ordered=ordered)


def _partition(path: str) -> tuple[tuple[str, str | None], ...]:
    """Return what the folders' names say, as Hive and Spark name them."""
    from urllib.parse import unquote

    pairs = [folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder]
    return tuple((key, None if value == _NULL_PARTITION else unquote(value)) for key, _, value in pairs)


def _with_partition(name: str, schema: pa.Schema, files: Sequence[ParquetFile]) -> pa.Schema:
    """Return the schema with the columns that are said by the names of folders: whole numbers, or text."""
    keys = [key for key, _ in files[0].partition]
    for file in files:
        if [key for key, _ in file.partition] != keys:
            folders = "/".join(f"{key}=…" for key in keys) or "without a name=value"
            raise CatalogError(
                f"dataset {name!r}: {file.source.name} does not lie in folders {folders}, as {files[0].source.name} "
                "does"
            )
    for index, key in enumerate(keys):
        values = [file.partition[index][1] for file in files]
        whole = all(value is None or _is_whole(value) for value in values)
        if key not in schema.names:
            schema = schema.append(pa.field(key, pa.int64() if whole else pa.string()))
    return schema


def _is_whole(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and value.isascii() and len(value) < 19


def _categories(rows: ParquetRows, names: Sequence[str], catalog: Catalog) -> dict[str, pa.Array]:
    """Return the categories of each such column in all files: those alone are read, a piece at a time.

    A category keeps its place in the first file, so that an order that the column has stays.
    """
    found: dict[str, list[pa.Array]] = {name: [] for name in names}
    for file in rows.files:
        if not file.rows:
            continue
        with opened(file.source, catalog) as stream:
            reader = _reader(stream, ahead=False)
            stored = [name for name in names if name in reader.schema_arrow.names]
            for batch in reader.iter_batches(65536, columns=stored, use_threads=False):
                for name in stored:
                    _add(found[name], batch.column(name), rows.schema.field(name).type.value_type)
    return {name: _unique(parts, rows.schema.field(name).type.value_type) for name, parts in found.items()}


def _add(parts: list[pa.Array], column: pa.Array, kind: pa.DataType) -> None:
    values = column.dictionary if pa.types.is_dictionary(column.type) else pc.unique(column)
    values = pc.drop_null(values).cast(kind)
    if parts and parts[-1].equals(values):  # a row group has one dictionary, in all its batches
        return
    parts.append(values)
    if sum(map(len, parts)) > 2 * len(parts[0]) + _CATEGORIES:
        parts[:] = [_unique(parts, kind)]


def _unique(parts: list[pa.Array], kind: pa.DataType) -> pa.Array:
    return pc.unique(pa.concat_arrays(parts)) if parts else pa.array([], kind)


def _coded(column: pa.ChunkedArray, categories: pa.Array, kind: pa.DictionaryType) -> pa.ChunkedArray:
    chunks = []
    for chunk in column.chunks:
        plain = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
        codes = pc.index_in(plain.cast(kind.value_type), value_set=categories).cast(kind.index_type)
        chunks.append(pa.DictionaryArray.from_arrays(codes, categories, ordered=kind.ordered))
    return pa.chunked_array(chunks, type=kind)


def _fixed_bytes(schema: pa.Schema) -> int:
    bits = 0
    for each in schema:
        try:
            bits += each.type.bit_width
        except ValueError:  # text, lists
            bits += 256
    return bits // 8


def _reader(stream: Any, *, ahead: bool) -> pq.ParquetFile:
    """Return a reader that fetches the columns of a row group at once, or page by page."""
    return pq.ParquetFile(stream, pre_buffer=ahead, buffer_size=0 if ahead else 1 << 20)


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    # One table of its own memory: a slice would hold all that was decoded with it.
    return pa.Table.from_batches(batches).combine_chunks()


@cache
def _catalog(uri: str) -> Catalog:
    return Catalog(uri)
