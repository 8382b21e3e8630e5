"""The example of a map, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.ray]
ROOT = Path(__file__).resolve().parents[2]


def test_it_says_how_sure_the_model_is(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "airflow_provider_raynode.cli", "run", str(ROOT / "dags" / "parallel_map.py")]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"400 resamples: the model tells ([\d.]+)% .* right", done.stdout)
    assert said is not None, done.stdout
    interval = re.search(r"between ([\d.]+)% and ([\d.]+)%", done.stdout)
    assert interval is not None, done.stdout
    low, mean, high = float(interval.group(1)), float(said.group(1)), float(interval.group(2))
    assert 93 < low < mean < high <= 100
    assert "400 of 400 items done" in done.stdout
