"""The exported examples in docs/argo are what the export makes now, and pass the lint.

After a change that is meant: `raynode argo export dags/X.py --settings docs/argo/X.settings.yaml -o docs/argo/X.yaml`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_provider_raynode.argo.export import export_dag_file
from airflow_provider_raynode.argo.lint import lint_file

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "argo"
NAMES = sorted(path.name.removesuffix(".settings.yaml") for path in FOLDER.glob("*.settings.yaml"))


def test_every_example_has_one() -> None:
    assert sorted(path.stem for path in (ROOT / "dags").glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_export_makes(name: str) -> None:
    export = export_dag_file(ROOT / "dags" / f"{name}.py", settings=FOLDER / f"{name}.settings.yaml")
    assert export.text == (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert export.warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_the_lint(name: str) -> None:
    assert lint_file(FOLDER / f"{name}.yaml") == []


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_argos_own_lint(name: str) -> None:
    argo = shutil.which("argo")
    if argo is None:
        pytest.skip("there is no argo binary on the PATH")
    done = subprocess.run(
        [argo, "lint", "--offline", str(FOLDER / f"{name}.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
