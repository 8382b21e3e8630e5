"""`ray_map` on a real Ray: every item's result in its place, whatever fails, dies, hangs or is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driven import Ran
from plain_work import Node

pytestmark = pytest.mark.ray

Mapped = Callable[..., Ran]


@pytest.fixture
def mapped(connected: None, tmp_path: Path) -> Mapped:
    """Run a function over `items`."""

    def ran(function: Any, items: Any, op_kwargs: dict[str, Any] | None = None, **section: Any) -> Ran:
        config = {"ray_map": {"over": "item", **section}}
        return Node(tmp_path, function, config, {"item": items, **(op_kwargs or {})}).run()

    return ran


def test_results_in_order(mapped: Mapped) -> None:
    def square(item: int, plus: int) -> int:
        return item * item + plus

    ran = mapped(square, list(range(2_000)), {"plus": 1})
    assert ran.code == 0, ran.result.failure
    assert ran.output("results") == [each * each + 1 for each in range(2_000)]
    assert ran.result.outputs["results"]["kind"] == "json"
    end = ran.result.items
    assert end is not None
    assert (end.items, end.succeeded, end.failed, end.restored, end.ending) == (2000, 2000, 0, 0, "all_items")
    # Nothing is left of what the attempt kept for a retry.
    assert not ran.node.exists(f"{ran.node.prefix_uri}/experiment")
