"""A hundred random DAGs against `dag.test()`, others for each commit: the seed is printed, and replays them.

The seed is the commit's, so that a failure stays one when the same commit is tested again; without git it is any.
More of them: random_dags.py. `RAYNODE_RANDOM_SEED` gives the seed, `RAYNODE_RANDOM_DAGS` how many.
"""

from __future__ import annotations

import os
import random
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from random_dags import random_dag

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = pytest.mark.airflow


def _new_seed() -> int:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return random.SystemRandom().randrange(10**6)
    return int(commit, 16) % 10**6


SEED = int(os.environ.get("RAYNODE_RANDOM_SEED") or _new_seed())
COUNT = int(os.environ.get("RAYNODE_RANDOM_DAGS") or 100)
_PARTS = 10


@pytest.mark.parametrize("part", range(_PARTS))
def test_random_dags_are_equal(part: int, equal: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if part == 0:
        with capsys.disabled():
            print(f"\nrandom DAGs: RAYNODE_RANDOM_SEED={SEED}")
    for number in range(part, COUNT, _PARTS):
        path = tmp_path / f"random_{number}.py"
        path.write_text(random_dag(SEED, number))
        try:
            equal(partial(load_dag, path), path)
        except AssertionError as error:
            replay = f"random_dags.py --seed {SEED} --first {number} --count 1"
            raise AssertionError(f"{replay}\n{error}\n{path.read_text()}") from None


def test_a_seed_and_a_number_give_the_same_dag_again() -> None:
    assert random_dag(SEED, 3) == random_dag(SEED, 3)
    assert random_dag(SEED, 3) != random_dag(SEED + 1, 3)
