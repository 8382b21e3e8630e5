"""`ray_map` against plain Ray loops as Ray's documentation writes them: what an item costs over its own time.

Each runs alone, with a Ray of its own, one after the other. `--items` says how many there are.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


def function(item: int) -> int:
    """An item's work: some microseconds."""
    return sum(range(item % 100))


def own_time(items: list[int]) -> float:
    """Return the seconds of the function's own work, on one core."""
    start = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - start


def plain(name: str, items: list[int]) -> float:
    """Run a plain script's loop; return its seconds, without Ray's start."""
    command = [sys.executable, str(HERE / "scripts" / "plain_map.py"), name, str(len(items))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"the plain script failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    seconds: float = json.loads(lines[-1][7:])["seconds"]
    return seconds


def node(items: list[int]) -> float:
    """Run the map's driver on an embedded Ray; return the seconds of its map and its collection."""
    import ray

    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.operators._function import stage_function
    from airflow_provider_raynode.operators._inputs import stage_inputs
    from airflow_provider_raynode.runtime.driver import Driver, read_spec
    from airflow_provider_raynode.spec import NodeSpec, RunContext, Versions, digest, submission_id, unseal

    root = Path(tempfile.mkdtemp(prefix="raynode-bench-"))
    catalog = Catalog(str(root))
    run = RunContext(dag_id="bench", run_id="run", node_id="map")
    where = (run.dag_id, run.run_id, run.node_id, -1)
    folder = catalog.at(catalog.node_prefix(*where))
    spec = NodeSpec(
        submission_id=submission_id(*where, 1, catalog.uri),
        attempt=1,
        context=run,
        function=stage_function(function, folder),
        op_kwargs=stage_inputs({"item": items}, folder.child("inputs")),
        config={"ray_map": {"over": "item"}, "default_resources": {"num_cpus": 1}},
        catalog_uri=catalog.uri,
        node_prefix=folder.prefix_uri,
        staged_by=Versions(python=platform.python_version(), package="bench"),
    )
    data = spec.to_bytes()
    uri = f"{spec.attempt_prefix}/spec.json"
    folder.write_bytes(uri, data)
    ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING)
    try:
        read, attempt = read_spec(uri, digest(data))
        code = Driver(read, digest(data), attempt, embedded=False).run()
    finally:
        ray.shutdown()
    result = unseal(folder.read_bytes(f"{spec.attempt_prefix}/result.json"))
    assert code == 0, result.failure
    assert folder.load(result.outputs["results"]) == [function(item) for item in items]
    return result.timings_s["map"] + result.timings_s["collect"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--without-naive", action="store_true", help="leave out one task per item, which takes minutes")
    args = parser.parse_args()
    items = list(range(args.items))
    own = own_time(items)
    rows: list[tuple[str, Callable[[], float]]] = [
        ("ray_map", lambda: node(items)),
        ("plain Ray, tasks of 1,000 items, ray.wait", lambda: plain("batched", items)),
    ]
    if not args.without_naive:
        rows.append(("plain Ray, one task per item, ray.wait", lambda: plain("naive", items)))
    print(f"{args.items:,} items, own time on one core {own:.2f} s, load average {os.getloadavg()[0]:.1f}")
    print(f"| {'what':45} | seconds | over own time, ms per item |")
    print("|---|---|---|")
    for name, measure in rows:
        seconds = measure()
        print(f"| {name:45} | {seconds:7.2f} | {(seconds - own) / args.items * 1000:.4f} |", flush=True)


if __name__ == "__main__":
    main()
