"""Nodes that start together on one cluster do not meet; `benchmarks/isolation.py` has more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowd import meet
from ray_head import RayHead

pytestmark = pytest.mark.ray


def test_nodes_that_start_together_do_not_meet(ray_connection: RayHead, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    crowd = meet(tmp_path, ray_connection.address, nodes=6, killed=2, trial_s=1, timeout_s=300)
    assert not {node.number: node.problems for node in crowd if node.problems}
    assert sum(node.job.attempt == 2 for node in crowd) == 2
