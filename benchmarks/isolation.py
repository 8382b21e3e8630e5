"""Many nodes that start together on one Ray head, a third of whose drivers are killed: is every result its own?

.venv/bin/python benchmarks/isolation.py [--nodes 32] [--killed 11]
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

_TESTS = Path(__file__).resolve().parent.parent / "tests" / "integration"
sys.path[:0] = [str(_TESTS)]

from crowd import Node, meet, seconds  # noqa: E402
from ray_head import await_node, free_ports, start, stop  # noqa: E402


def main() -> int:
    """Print the table; 0 when every result is its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--killed", type=int, default=11)
    parser.add_argument("--trial", type=float, default=2.0, help="seconds that a trial takes")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds in all")
    args = parser.parse_args()
    temp_dir = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    root = Path(tempfile.mkdtemp(prefix="raynode-isolation-"))
    token, mark = secrets.token_hex(32), secrets.token_hex(8)
    try:
        gcs, client, agent, dashboard = free_ports(4)
        head = start(temp_dir, token, mark, gcs=gcs, client=client, agent=agent, dashboard=dashboard)
        try:
            address = f"http://127.0.0.1:{dashboard}"
            os.environ["AIRFLOW_CONN_RAY_DEFAULT"] = f"ray://:{token}@127.0.0.1:{dashboard}"
            await_node(address, token, head, temp_dir / "head.log")
            begin = time.monotonic()
            crowd = meet(
                root, address, nodes=args.nodes, killed=args.killed, trial_s=args.trial, timeout_s=args.timeout
            )
            show(crowd, time.monotonic() - begin)
            began = seconds(temp_dir, crowd)
            together = sum(count for count in began.values() if count > 1)
            print(f"{together} of {len(crowd)} searches began in the second of another, {max(began.values())} at most")
        finally:
            stop(head, mark)
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)
    return 1 if any(node.problems for node in crowd) else 0


def show(crowd: list[Node], took_s: float) -> None:
    """Print the table."""
    table = Table(title="Whose trials does each result hold?")
    for name in ("node", "search", "driver", "attempts", "trials", "restored", "ids begin with", "verdict"):
        table.add_column(name, justify="right" if name in ("node", "attempts", "trials", "restored") else "left")
    for node in crowd:
        verdict = f"WRONG: {'; '.join(node.problems)}" if node.problems else "its own"
        table.add_row(
            str(node.number), node.search, "killed" if node.killed else "", str(node.job.attempt), str(len(node.ids)),
            str(node.restored), node.spec.trial_prefix, verdict,
        )  # fmt: skip
    Console(width=160).print(table)
    right, ids = sum(not node.problems for node in crowd), {trial for node in crowd for trial in node.ids}
    print(f"{right} of {len(crowd)} right, {len(ids)} trials in all, {took_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
