"""A worker's part of a dataset: Ray's DataIterator over a Ray Dataset of its own rows.

Each worker reads its rows itself, in a thread, straight into Ray's batching. Tasks of Ray Data would need CPUs, which
the workers hold, and leave rows in the object store until Ray gets round to removing them: about a second's worth of
reading, which counts as memory of the worker that looked at them. No worker waits for another one at a batch either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import ray
import ray.data
import ray.train
from ray.data._internal.block_batching.interfaces import ResolvedBlock
from ray.data._internal.block_batching.iter_batches import BatchIterator
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.train.v2._internal.execution.context import get_train_context

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.training.datasets import DatasetArgument, check_shares, share_of
from airflow_provider_raynode.runtime.training.parquet import ParquetRows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What one task of `Shard.materialize` reads, and the size of a block that it hands on.
_TASK = 128 << 20
_BLOCK = 16 << 20

Format = Literal["numpy", "pandas", "pyarrow", "torch"]


class Shard(ray.data.DataIterator):
    """The rows of a dataset that one worker gets: Ray's DataIterator, with a length.

    The shares of two workers differ by one row at most, no row is left out and none is given twice. With the same
    `batch_size` every worker gets the same number of batches, so that nobody waits alone in a collective: where the
    rows do not come out even, the last batch of some workers has one row more.

    Each pass begins at the first row, in the same order. Nothing is held but what is on its way.

    Example::

        def train_model(train, validation):
            for epoch in range(3):
                for batch in train.iter_batches(batch_size=256, format="torch"):
                    ...                             # {'column': tensor}
            frame = validation.to_pandas()          # the whole share, where it fits into memory
    """

    def __init__(self, rows: ParquetRows, rank: int, world_size: int) -> None:
        self._rows, self.rank, self.world_size = rows, rank, world_size
        sharded = rows.sharded and world_size > 1
        self._start, self._stop = share_of(rows.rows, rank, world_size) if sharded else (0, rows.rows)
        self._least = rows.rows // world_size if sharded else rows.rows

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self._rows.name

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._rows.schema.names)

    @property
    def total_rows(self) -> int:
        """Number of rows of the whole dataset."""
        return self._rows.rows

    def __len__(self) -> int:
        return self._stop - self._start

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        part = f"{len(self)} of {self.total_rows} rows, rank {self.rank} of {self.world_size}"
        return f"Shard({self.name!r}, {part}, columns {', '.join(self.columns)})"

    def count(self) -> int:
        """Return the number of rows of the share."""
        return len(self)

    def whole(self) -> Shard:
        """Return all rows of the dataset, as a shard that every worker may read by itself."""
        return Shard(replace(self._rows, sharded=False), self.rank, self.world_size)

    def iter_batches(
        self,
        *,
        batch_size: int | None = 256,
        format: Format | None = None,  # noqa: A002  what a reader looks for
        batch_format: str | None = "default",
        prefetch_batches: int = 1,
        drop_last: bool = False,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
    ) -> Iterable[Any]:
        """Return the rows in batches; iterate again for another pass.

        :param batch_size: rows of a batch; None: blocks as they come, whose number differs between workers.
        :param format: numpy (the default: a dict of arrays), pandas, pyarrow or torch (a dict of tensors);
            `batch_format` is Ray's word for it.
        :param prefetch_batches: how many are made ready meanwhile.
        :param drop_last: whether to leave out the last batch where it is not full.
        :param local_shuffle_buffer_size: rows that are mixed with each other on the way.
        :param local_shuffle_seed: makes the mixing the same each time.
        """
        common: dict[str, Any] = {
            "batch_size": batch_size,
            "prefetch_batches": prefetch_batches,
            "drop_last": drop_last,
            "local_shuffle_buffer_size": local_shuffle_buffer_size,
            "local_shuffle_seed": local_shuffle_seed,
        }
        if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
            raise ValueError(f"iter_batches(batch_size={batch_size!r}): a number of rows, 1 or more")
        if format == "torch":
            return self.iter_torch_batches(**common)
        if format not in (None, "numpy", "pandas", "pyarrow"):
            raise ValueError(f"iter_batches(format={format!r}): one of numpy, pandas, pyarrow, torch")
        if "pandas" in (format, batch_format):
            return self._iter_batches(**common, batch_format="pyarrow", _collate_fn=self._frame)
        return super().iter_batches(**common, batch_format=format or batch_format)

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        """Return a DataFrame with the types that the whole table would have; Ray's own are Arrow's."""
        return table.replace_schema_metadata(self._rows.schema.metadata).to_pandas()

    def to_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Return the whole share as a DataFrame, in this worker's memory.

        :param columns: only these.
        """
        import pandas as pd

        wanted = self.columns if columns is None else columns
        tables = self._rows.read(self._start, self._stop)
        return pd.concat([self._frame(table.select(wanted)) for table in tables], ignore_index=True)

    # -- what Ray's DataIterator asks for ----------------------------------------------------------------------------

    def materialize(self) -> Any:
        """Return the share as a `ray.data.Dataset` whose rows lie in the object store.

        The reading asks for no CPU: where the workers hold all, it would wait for ever for one.
        """
        source = _ParquetSource(self._rows, self._start, self._stop)
        with ray.data.DataContext.current(self.get_context()):
            dataset = ray.data.read_datasource(source, num_cpus=0, concurrency=1, override_num_blocks=source.number)
        dataset.set_name(self.name)
        return dataset.materialize()

    def stats(self) -> str:
        """Return what Ray says of an iterator's passes."""
        return repr(self)

    def schema(self) -> Any:
        """Return columns and types, as Ray's Schema."""
        return ray.data.Schema(self._rows.schema, data_context=self.get_context())

    def get_context(self) -> Any:
        """Return Ray's settings of the dataset."""
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.target_max_block_size = _BLOCK
        context.execution_options.preserve_order = True
        return context

    def _to_ref_bundle_iterator(self) -> Any:
        return self._rows.read(self._start, self._stop), None, None

    def _create_batch_iterator(self, ref_bundles_iter: Any, prefetch_bytes_callback: Any = None, **kwargs: Any) -> Any:
        # Copied: the function may change what it gets in its place.
        return _Batches(ref_bundles_iter, even=(len(self), self._least), ensure_copy=True, **kwargs)


class _Batches(BatchIterator):
    """Ray's batches of tables that are here already, as many as every other worker gets."""

    def __init__(self, tables: Any, *, even: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(tables, **kwargs)
        prefetcher: Any = self._prefetcher
        prefetcher.stop()  # a thread of its own, for blocks of the object store
        self._even = even

    def _prefetch_blocks(self, ref_bundles: Any) -> Any:
        return ref_bundles

    def _resolve_block_refs(self, block_refs: Any) -> Any:
        return map(ResolvedBlock, block_refs)

    def _blocks_to_batches(self, blocks: Iterator[Any]) -> Any:
        batches: Any = super()._blocks_to_batches(blocks)
        if self._batch_size is not None:
            batches._batcher = _EvenBatcher(batches._batcher, self._batch_size, *self._even, drop_last=self._drop_last)
        return batches


class _EvenBatcher:
    """Lets the last batch have one row more, where otherwise that row would be a batch that others do not have."""

    def __init__(self, batcher: Any, size: int, rows: int, least: int, *, drop_last: bool) -> None:
        self._batcher, self._size, self._rows = batcher, size, rows
        self._left = least // size if drop_last else -(-least // size)
        self._most = size if drop_last else size + 1

    def add(self, block: Any) -> None:
        self._batcher.add(block)

    def done_adding(self) -> Any:
        return self._batcher.done_adding()

    def has_batch(self) -> bool:
        if self._left == 1 and self._rows == self._most:
            self._batcher._batch_size = self._most
        return bool(self._left > 0 and self._batcher.has_batch())

    def has_any(self) -> bool:
        return bool(self._left > 0 and self._batcher.has_any())

    def next_batch(self) -> Any:
        block = self._batcher.next_batch()
        self._rows -= BlockAccessor.for_block(block).num_rows()
        self._left -= 1
        return block


class _ParquetSource(Datasource):
    """Rows of a dataset as tasks of Ray, one after the other."""

    def __init__(self, rows: ParquetRows, start: int, stop: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows = rows
        self._cuts = rows.cuts(start, stop, _TASK)

    def get_name(self) -> str:
        return "Parquet"

    def estimate_inmemory_data_size(self) -> int:
        return sum(stop - start for start, stop in self._cuts) * self._rows.row_bytes

    @property
    def number(self) -> int:
        """Number of tasks."""
        return len(self._cuts)

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None) -> Any:
        # The dataset's description goes into the object store once, not into each task.
        rows = ray.put(self._rows)
        return [
            ReadTask(
                partial(_read, rows, start, stop),
                BlockMetadata(
                    num_rows=stop - start,
                    size_bytes=(stop - start) * self._rows.row_bytes,
                    input_files=None,
                    exec_stats=None,
                ),
                schema=self._rows.schema,
                per_task_row_limit=per_task_row_limit,
            )
            for start, stop in self._cuts
        ]


def _read(rows: Any, start: int, stop: int) -> Iterator[Any]:
    return ray.get(rows).read(start, stop)  # type: ignore[no-any-return]


class Shares(ray.train.DataConfig):
    """Gives each worker its shard; Ray Train asks for it at each start of the workers, also with another number."""

    def __init__(self) -> None:
        # No dataset is split by Ray: its split leaves out rows, and makes the workers wait for each other at each pass.
        super().__init__(datasets_to_split=[])

    def configure(  # type: ignore[override]  # what Ray calls a dataset is ours here
        self,
        datasets: Mapping[str, ParquetRows],
        world_size: int,
        worker_handles: Any = None,
        worker_node_ids: Any = None,
        **kwargs: Any,
    ) -> list[dict[str, Shard]]:
        """Return the shards of each rank by name."""
        check_shares(datasets, world_size)
        return [{name: Shard(rows, rank, world_size) for name, rows in datasets.items()} for rank in range(world_size)]


def trainer_arguments(datasets: Mapping[str, ParquetRows]) -> dict[str, Any]:
    """Return the arguments of a Ray Trainer that give its workers the datasets."""
    return {"datasets": dict(datasets), "dataset_config": Shares()} if datasets else {}


def shard(name: str = "train") -> Shard:
    """Return this worker's shard of a dataset; call it on a worker of a training.

    :raises RayNodeError: the training has no dataset of that name.
    """
    try:
        found = ray.train.get_dataset_shard(name)
    except KeyError:
        found = None
    if found is None:
        has = ", ".join(map(repr, _names())) or "none"
        raise RayNodeError(
            f"the training has no dataset {name!r}; it has: {has}. Name the argument that holds its "
            f"reference in ray_train.data, e.g. data: {{{name}: rows}}"
        )
    return found  # type: ignore[no-any-return]


def _names() -> list[str]:
    provider = getattr(get_train_context(), "dataset_shard_provider", None)
    return sorted(getattr(provider, "_dataset_names", ()))


def with_shards(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker's inputs, with its shard where a dataset stands."""

    def resolve(value: Any) -> Any:
        if isinstance(value, DatasetArgument):
            return shard(value.name)
        if isinstance(value, dict):
            return {key: resolve(each) for key, each in value.items()}
        return value

    return {name: resolve(value) for name, value in inputs.items()}
