"""How many waiting nodes one triggerer bears: 1,000 triggers in one event loop, against a real HTTP server.

    .venv/bin/python benchmarks/bench_triggerer.py [--triggers 1000] [--seconds 40]

Prints the loop's lag (how late a callback comes that asked for every 10 ms), the memory per trigger, and the requests
per second at the server, beside the same loop with a tenth of the triggers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

_SERVER = Path(__file__).with_name("scripts") / "jobs_api_server.py"
_TICK_S = 0.01


async def lag(samples: list[float], over: asyncio.Event) -> None:
    """Note how late the loop is, every 10 ms."""
    loop = asyncio.get_running_loop()
    while not over.is_set():
        begin = loop.time()
        await asyncio.sleep(_TICK_S)
        samples.append(loop.time() - begin - _TICK_S)


async def wait(number: int, seconds: float, port: int, root: str) -> dict[str, float]:
    """Let `number` triggers wait for their jobs; return what was measured."""
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.spec import JobRef
    from airflow_provider_raynode.triggers import RayJobTrigger

    catalog = Catalog(root)
    address = f"http://127.0.0.1:{port}"
    process = psutil.Process()

    def trigger(index: int) -> RayJobTrigger:
        node = catalog.node_prefix("dag", "run", f"node{index}", -1)
        job = JobRef(
            launcher="jobs_api", submission_id=f"job-{index}", attempt=1, ray_conn_id="ray_default", address=address,
            spec_uri=f"{node}/attempt_1/spec.json", spec_sha256="0" * 64, catalog_uri=catalog.uri, node_prefix=node,
        )  # fmt: skip
        return RayJobTrigger(job.model_dump(mode="json"), poll_interval_s=2.0)

    async def event(each: RayJobTrigger) -> Any:
        async for found in each.run():
            return found.payload["state"]
        return None

    before = process.memory_info().rss
    samples: list[float] = []
    over = asyncio.Event()
    cpu = process.cpu_times()
    watching = asyncio.create_task(lag(samples, over))
    tasks = []
    for index in range(number):
        tasks.append(asyncio.create_task(event(trigger(index))))
        if index % 20 == 19:  # as the triggerer takes them on, some at a time
            await asyncio.sleep(0.02)
    await asyncio.sleep(seconds * 0.6)
    memory = process.memory_info().rss - before
    async with aiohttp.ClientSession() as session, session.get(f"{address}/_counts") as answer:
        counts = await answer.json()
    states = await asyncio.gather(*tasks)
    over.set()
    await watching
    used = process.cpu_times()
    assert set(states) == {"SUCCEEDED"}, states[:3]
    ordered = sorted(samples)
    return {
        "lag p50, ms": statistics.median(ordered) * 1000,
        "lag p99, ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "lag max, ms": ordered[-1] * 1000,
        "memory per trigger, kB": memory / number / 1000,
        "list requests per s": counts["counts"].get("list", 0) / counts["seconds"],
        "single requests per s": counts["counts"].get("get", 0) / counts["seconds"],
        "log connections": counts["counts"].get("tail", 0),
        "CPU share": (used.user + used.system - cpu.user - cpu.system) / (len(samples) * _TICK_S),
    }


def measure(number: int, seconds: float) -> dict[str, float]:
    """Start the server and wait with `number` triggers."""
    server = subprocess.Popen(
        [sys.executable, str(_SERVER), "--jobs", str(number), "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with tempfile.TemporaryDirectory() as root:
            return asyncio.run(wait(number, seconds, port, root))
    finally:
        server.kill()
        server.wait()


def main() -> int:
    """Print the table; 0 when the loop's lag is within the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=40)
    args = parser.parse_args()
    os.environ["AIRFLOW_CONN_RAY_DEFAULT"] = json.dumps({"conn_type": "ray", "host": "elsewhere"})
    home = tempfile.mkdtemp(prefix="rn-bench-")
    os.environ.setdefault("AIRFLOW_HOME", home)
    begin = time.monotonic()
    few = measure(max(args.triggers // 10, 1), min(args.seconds, 20))
    many = measure(args.triggers, args.seconds)
    table = Table(title=f"{args.triggers} triggers in one event loop ({time.monotonic() - begin:.0f} s)")
    for column in ("", f"{max(args.triggers // 10, 1)}", f"{args.triggers}", "goal"):
        table.add_column(column, justify="left" if not column else "right")
    goals = {"lag p99, ms": "< 100", "single requests per s": "0", "list requests per s": "1 per poll interval"}
    for name, value in many.items():
        table.add_row(name, f"{few[name]:.2f}", f"{value:.2f}", goals.get(name, ""))
    Console().print(table)
    return 0 if many["lag p99, ms"] < 100 else 1


if __name__ == "__main__":
    sys.exit(main())
