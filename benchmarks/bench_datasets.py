"""How much memory a worker needs for a larger parquet input: 1 GB through two workers, against a sixteenth of it.

    .venv/bin/python benchmarks/bench_datasets.py [--megabytes 1024] [--workers 2]

Each worker goes through its part of the rows twice, in batches of 10,000 rows. Prints the peak of a worker's resident
memory, the part of it that lies in Ray's object store, and the rate.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(tempfile.mkdtemp(prefix="raynode-bench-"))
atexit.register(shutil.rmtree, HERE, ignore_errors=True)
os.environ.update(RAY_AUTH_MODE="disabled", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1")

COLUMNS, ROWS_OF_8_MB = 8, 125_000
GOAL_MB = 500


def write(path: Path, megabytes: int) -> None:
    """Write a table of random numbers, which nothing compresses, in row groups of 8 MB."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(7)
    table = pa.table({f"x{number}": random.random(ROWS_OF_8_MB) for number in range(COLUMNS)})
    with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(megabytes // 8):
            writer.write_table(table)


def passes() -> dict[str, Any]:
    """On a worker: go through the rows twice, and return what it took."""
    import time

    from airflow_provider_raynode.runtime.training.shards import shard

    def memory() -> dict[str, int]:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        found = {line[0].rstrip(":"): line[1] for line in lines if len(line) > 1}
        return {name: int(found[name]) >> 10 for name in ("VmHWM", "RssAnon", "RssShmem") if name in found}

    rows, seconds = 0, []
    for _ in range(2):
        begin = time.perf_counter()
        for batch in shard("train").iter_batches(batch_size=10_000):
            rows += len(batch["x0"])
        seconds.append(time.perf_counter() - begin)
    return {"rows": rows // 2, "seconds": min(seconds), **memory()}


def training(path: Path, workers: int) -> list[dict[str, Any]]:
    """Run the workers on a file; return what each of them said."""
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.runtime.training.parquet import rows_of
    from airflow_provider_raynode.runtime.training.parquet_files import sources_of
    from airflow_provider_raynode.runtime.training.shards import trainer_arguments

    catalog = Catalog(str(HERE / "catalog"))
    rows = rows_of("train", sources_of("train", str(path), catalog), catalog)

    def loop() -> None:
        rank = ray.train.get_context().get_world_rank()
        (path.parent / f"{path.stem}-{rank}.json").write_text(json.dumps(passes()))

    DataParallelTrainer(
        loop,
        scaling_config=ray.train.ScalingConfig(num_workers=workers),
        run_config=ray.train.RunConfig(name=path.stem, storage_path=str(HERE / "training")),
        **trainer_arguments({"train": rows}),
    ).fit()
    return [json.loads((path.parent / f"{path.stem}-{rank}.json").read_text()) for rank in range(workers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    import ray
    from rich.console import Console
    from rich.table import Table

    # As many CPUs as workers: none is left for the reading.
    ray.init(address="local", num_cpus=args.workers, include_dashboard=False, log_to_driver=False)
    table = Table("parquet", "peak of a worker, MB", "in the object store", "MB/s, all workers", "goal")
    for megabytes in (args.megabytes // 16, args.megabytes):
        path = HERE / f"rows-{megabytes}.parquet"
        write(path, megabytes)
        found = training(path, args.workers)
        assert sum(each["rows"] for each in found) == megabytes // 8 * ROWS_OF_8_MB
        peak = max(each["VmHWM"] for each in found)
        rate = megabytes / max(each["seconds"] for each in found)
        shared = max(each["RssShmem"] for each in found)
        goal = f"< {GOAL_MB} MB: {'yes' if peak < GOAL_MB else 'NO'}"
        table.add_row(f"{megabytes} MB", str(peak), str(shared), f"{rate:.0f}", goal)
        path.unlink()
    Console().print(table)
    ray.shutdown()


if __name__ == "__main__":
    main()
