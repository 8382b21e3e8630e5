"""The short form of the fault table, see benchmarks/faults.py: one real Airflow, one real Ray head, several faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scenarios import ALL
from world import Row, meet

SHORT = [fault for fault in ALL if fault.short]

# The first test waits until all of them have ended.
pytestmark = [pytest.mark.ray, pytest.mark.airflow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, Row]]:
    """Meet all the faults once, several at a time."""
    yield {row.fault.name: row for row in meet(SHORT, together=4)}


@pytest.mark.parametrize("name", [fault.name for fault in SHORT])
def test_what_comes_of_a_fault(rows: dict[str, Row], name: str) -> None:
    assert rows[name].right, rows[name].problem
