"""The fault table: each fault against a real `airflow standalone` and a real Ray head, and what came of it.

.venv/bin/python benchmarks/faults.py [--short] [--only NAME,...] [--together N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

_TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(_TESTS / "faults"), str(_TESTS / "integration")]

from scenarios import ALL  # noqa: E402
from world import Row, meet  # noqa: E402


def main() -> int:
    """Print the table; 0 when every row is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the faults that CI meets")
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--together", type=int, default=3, help="faults at a time")
    args = parser.parse_args()
    names = set(args.only.split(",")) if args.only else {fault.name for fault in ALL if fault.short or not args.short}
    faults = [fault for fault in ALL if fault.name in names]
    rows = meet(faults, together=args.together)
    show(rows)
    return 0 if all(row.right for row in rows) else 1


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="What comes of each fault")
    for name in (
        "fault",
        "ends as",
        "attempts",
        "jobs",
        "finished trials lost",
        "orphans",
        "stopped after, s",
        "seconds",
        "verdict",
    ):
        table.add_column(name, justify="left" if name in ("fault", "ends as", "verdict") else "right")
    for row in rows:
        verdict = "right" if row.right else f"WRONG: {row.problem}"
        table.add_row(
            row.fault.what, row.state, str(row.attempts), str(row.jobs), str(row.lost), str(row.orphans),
            "" if row.stopped_after_s is None else f"{row.stopped_after_s:.0f}",
            f"{row.seconds:.0f}", verdict,
        )  # fmt: skip
    Console(width=160).print(table)
    print(f"{sum(row.right for row in rows)} of {len(rows)} right")


if __name__ == "__main__":
    sys.exit(main())
