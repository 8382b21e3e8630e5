"""All trigger rules x all states of 1 to 3 upstream tasks, by brute force, against `dag.test()` and the pure rules."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.argo.dag_file import load_dag
from airflow_provider_raynode.argo.rules import decide

pytestmark = pytest.mark.airflow

RULES = [
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_skipped",
    "always",
    "none_failed_min_one_success",
    "all_skipped",
]
STATES = ["success", "failed", "skipped", "upstream_failed"]
CASES = [states for size in (1, 2, 3) for states in combinations_with_replacement(STATES, size)]

# All upstream tasks end in one round of `dag.test()`; constructs/skipped_first.py has what ends one after another.
DAG_FILE = """
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

CASES = {cases!r}
RULE = {rule!r}

@task
def success():
    return 1

@task
def failed():
    raise ValueError("on purpose")

@task
def skipped():
    raise AirflowSkipException

upstream_failed = success

with DAG("rule_{rule}"):
    start, stop = success.override(task_id="start")(), failed.override(task_id="stop")()
    upstream = {{}}
    for number in range(3):
        for state in ("success", "failed", "skipped", "upstream_failed"):
            upstream[state, number] = globals()[state].override(task_id=f"{{state}}_{{number}}")()
            (stop if state == "upstream_failed" else start) >> upstream[state, number]
    for index, states in enumerate(CASES):
        [upstream[state, number] for number, state in enumerate(states)] >> success.override(
            task_id=f"case_{{index}}", trigger_rule=RULE
        )()
"""


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_over_all_states_is_airflows(rule: str, equal: Any, tmp_path: Path) -> None:
    path = tmp_path / f"rule_{rule}.py"
    path.write_text(DAG_FILE.format(rule=rule, cases=CASES))
    airflow, _ = equal(lambda: load_dag(path), path)
    # The pure rules say the same.
    expected = {"run": "success", "skipped": "skipped", "upstream_failed": "upstream_failed"}
    for index, states in enumerate(CASES):
        assert airflow.states[(f"case_{index}", -1)] == expected[decide(rule, states)], states
