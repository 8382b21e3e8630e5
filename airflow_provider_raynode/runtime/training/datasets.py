"""Which inputs of a training are datasets, and what is checked of them before a worker starts. Imports no Ray.

A dataset reaches the function as a `Shard`: under the name of its argument, by `context().shard(name)`, and by Ray's
own `ray.train.get_dataset_shard(name)`. Every other input is loaded, once per machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, ConfigError
from airflow_provider_raynode.runtime.training.parquet_files import is_parquet, sources_of

if TYPE_CHECKING:
    from airflow_provider_raynode.config.train import RayTrain
    from airflow_provider_raynode.runtime.training.parquet import ParquetRows


@dataclass(frozen=True)
class DatasetArgument:
    """Stands in the inputs for a dataset until a worker puts its shard there.

    :param name: the dataset's.
    """

    name: str


def datasets_of(
    train: RayTrain, op_kwargs: Mapping[str, Any], catalog: Catalog
) -> tuple[dict[str, ParquetRows], dict[str, Any]]:
    """Return the datasets by name, and op_kwargs with each dataset replaced by a `DatasetArgument`.

    Those that `ray_train.data` names are; without it each reference to parquet in op_kwargs is, under its argument's
    name (in a dict of references: under its key).

    :raises ConfigError: `data` names an argument that op_kwargs has not.
    :raises CatalogError: a dataset is not there, not parquet, altered, or empty.
    """
    from airflow_provider_raynode.runtime.training.parquet import rows_of

    found: dict[str, tuple[Any, bool]] = {}
    inputs = dict(op_kwargs)
    for name, dataset in train.data.items():
        if dataset.uri is not None:
            found[name] = (dataset.uri, dataset.shard)
            continue
        assert dataset.op_kwarg is not None
        if dataset.op_kwarg not in op_kwargs:
            raise ConfigError(
                f"ray_train.data.{name}: op_kwargs has no {dataset.op_kwarg!r}; it has: "
                f"{', '.join(map(repr, sorted(op_kwargs))) or 'nothing'}"
            )
        found[name] = (op_kwargs[dataset.op_kwarg], dataset.shard)
        inputs[dataset.op_kwarg] = DatasetArgument(name)
    if not train.data:
        inputs = {name: _replaced(name, value, found, catalog) for name, value in op_kwargs.items()}
    rows = {
        name: rows_of(name, sources_of(name, value, catalog), catalog, sharded=sharded)
        for name, (value, sharded) in found.items()
    }
    return rows, inputs


def _replaced(name: str, value: Any, found: dict[str, tuple[Any, bool]], catalog: Catalog) -> Any:
    """Return a value of op_kwargs with each reference to parquet in it replaced, which `found` gets."""
    if isinstance(value, dict) and not {"uri", "sha256"} <= set(value):
        return {key: _replaced(key, each, found, catalog) for key, each in value.items()}
    if not is_parquet(value, catalog):
        return value
    if name in found and found[name][0] != value:
        raise ConfigError(
            f"op_kwargs has two datasets of the name {name!r}: name each in ray_train.data, e.g. data: {{train: rows}}"
        )
    found[name] = (value, True)
    return DatasetArgument(name)


def check_shares(datasets: Mapping[str, ParquetRows], workers: int) -> None:
    """Check that each worker gets a row of each dataset.

    :param workers: the most that there will be.
    :raises CatalogError: a dataset has fewer rows than there are workers.
    """
    for name, rows in datasets.items():
        if rows.sharded and rows.rows < workers:
            word = "row" if rows.rows == 1 else "rows"
            raise CatalogError(
                f"dataset {name!r} has {rows.rows} {word} for {workers} workers, and each needs one at least: lower "
                f"ray_train.scaling.num_workers, or give each worker all rows (ray_train.data.{name}: {{op_kwarg: …, "
                "shard: false})"
            )


def share_of(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return which rows a worker gets, first and last but one: in order, and the first ranks one more where it does not
    come out even. No row is left out and none given twice.
    """
    least, more = divmod(rows, world_size)
    start = rank * least + min(rank, more)
    return start, start + least + (rank < more)
