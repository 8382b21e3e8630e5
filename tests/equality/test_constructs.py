"""Every construct of the mapping: states, return values and try numbers on Argo are those of `dag.test()`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.argo.dag_file import load_dag, load_dags

pytestmark = pytest.mark.airflow

FOLDER = Path(__file__).parent / "constructs"
FILES = sorted(FOLDER.glob("*.py"))


def dag_ids() -> list[Any]:
    return [pytest.param(path, dag_id, id=dag_id) for path in FILES for dag_id in sorted(load_dags(path))]


@pytest.mark.parametrize(("path", "dag_id"), dag_ids())
def test_equal(path: Path, dag_id: str, equal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"AIRFLOW_VAR_EQUALITY_VARIABLE": "a value"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    equal(lambda: load_dag(path, dag_id), path, env=variables)


def test_equal_with_fresh_interpreters(equal: Any) -> None:
    """Pods that are started as Kubernetes starts them, not forked."""
    path = FOLDER / "mapping.py"
    equal(lambda: load_dag(path, "over_an_xcom"), path, server=None)


def test_callbacks_are_called_in_the_same_order(equal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Task callbacks run in the pods, the DAG's in the exit handler; both write lines that are compared."""
    path = FOLDER / "retries.py"
    theirs, ours = tmp_path / "airflow", tmp_path / "argo"
    theirs.mkdir()
    ours.mkdir()
    monkeypatch.setenv("RAYNODE_EQUALITY_NOTES", str(theirs))
    equal(lambda: load_dag(path, "callbacks"), path, env={"RAYNODE_EQUALITY_NOTES": str(ours)})
    assert (ours / "notes.txt").read_text() == (theirs / "notes.txt").read_text()
    assert (ours / "notes.txt").read_text().splitlines() == [
        "execute",
        "retry",
        "execute",
        "success one",
        "success two",
        "failure KeyError",
        "skipped",
        "dag success callbacks",
    ]


def test_params_of_a_run(equal: Any) -> None:
    path = FOLDER / "basics.py"
    airflow, _ = equal(
        lambda: load_dag(path, "templates"),
        path,
        conf={"who": "you", "count": 5},
        parameters={"who": '"you"', "count": "5"},
    )
    assert airflow.xcoms[("bash", -1, "return_value")] == "you 10 templates"


HOSTILE = {
    "hostile": "$(HOME) $$ {{workflow.name}} {{=1}} \x7f \U000e0067 \u2028 \x00 \"'\\ \n <&>",
    "empty": "",
    "braces": "{}",
    "500 kB": "ü$(HOME)" * 55_000,
}


@pytest.mark.parametrize("who", HOSTILE.values(), ids=HOSTILE)
def test_hostile_params_of_a_run(who: str, equal: Any) -> None:
    path = FOLDER / "hostile_params.py"
    given = {"conf": {"who": who}, "parameters": {"who": json.dumps(who, ensure_ascii=False)}}
    airflow, _ = equal(lambda: load_dag(path, "given_text"), path, **given)
    assert airflow.xcoms[("shows", -1, "return_value")] == {"who": who}


def test_text_without_quotes_is_text(equal: Any) -> None:
    """Kubernetes' own syntax, tags and half JSON in a value that a person typed."""
    path, who = FOLDER / "hostile_params.py", "$(HOME) {{=sprig.b64enc('a')}} {{workflow.uid}} {\"half: \\"
    equal(lambda: load_dag(path, "given_text"), path, conf={"who": who}, parameters={"who": who})
