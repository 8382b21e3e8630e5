"""The kind `parquet`: a pandas DataFrame or an Arrow table."""

from __future__ import annotations

from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer

_MARK = b"airflow_provider_raynode"


class ParquetSerializer(Serializer):
    """A table as Parquet; comes back as what it was, a DataFrame with its index or an Arrow table."""

    kind = "parquet"
    suffix = ".parquet"

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a table that Parquet holds."""
        module, name = type(value).__module__.partition(".")[0], type(value).__name__
        if module == "pyarrow" and name == "Table":
            return True
        if module != "pandas" or name != "DataFrame" or not all(isinstance(column, str) for column in value.columns):
            return False
        import pyarrow as pa

        try:
            pa.Schema.from_pandas(value)
        except (pa.ArrowException, TypeError, ValueError):  # columns of mixed objects: a pickle holds them
            return False
        return True

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write the table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if isinstance(value, pa.Table):
            table = value.replace_schema_metadata({**(value.schema.metadata or {}), _MARK: b"table"})
        else:
            table = pa.Table.from_pandas(value)
        pq.write_table(table, pa.PythonFile(stream, mode="w"))

    def load(self, data: bytearray, name: str) -> Any:
        """Return the DataFrame or the table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(pa.py_buffer(data)))
        metadata = dict(table.schema.metadata or {})
        if metadata.pop(_MARK, None) == b"table":
            return table.replace_schema_metadata(metadata or None)
        return table.to_pandas()
