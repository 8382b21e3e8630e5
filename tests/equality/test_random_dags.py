"""Random DAGs: layers of tasks with random rules, outcomes, branches, retries and mapping, against `dag.test()`."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_raynode.argo.dag_file import load_dag

pytestmark = pytest.mark.airflow

RULES = (
    "all_success",
    "all_success",
    "none_failed",
    "none_failed_min_one_success",
    "all_done",
    "one_failed",
    "one_success",
    "all_failed",
    "one_done",
    "none_skipped",
    "all_skipped",
    "all_done_min_one_success",
)
KINDS = ("value", "value", "value", "skip", "fail", "retry", "used_up", "branch", "empty", "mapped", "mapped_fails")
_numbers = itertools.count()

HEADER = """
from datetime import timedelta
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

def work(kind):
    ti = get_current_context()["ti"]
    if kind == "skip":
        raise AirflowSkipException
    if kind in ("fail", "used_up") or (kind == "retry" and ti.try_number == 1):
        raise ValueError(kind)
    return [ti.task_id, ti.try_number]

def each(x, kind):
    if kind == "mapped_fails" and x == 1:
        raise ValueError(x)
    return x

def made(name, kind, rule, chosen=()):
    options = dict(task_id=name, trigger_rule=rule)
    if kind == "empty":
        return EmptyOperator(**options)
    if kind == "branch":
        return task.branch(**options)(lambda: list(chosen))()
    if kind.startswith("mapped"):
        return task(**options)(each).partial(kind=kind).expand(x=[0, 1])
    retries = {"retry": 2, "used_up": 1}.get(kind, 0)
    return task(**options, retries=retries, retry_delay=timedelta(0))(work)(kind)

"""


@st.composite
def dags(draw: st.DrawFn) -> str:
    """Return the text of a DAG file; edges lead from a layer to any later one."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    layers = [[f"t{depth}_{place}" for place in range(width)] for depth, width in enumerate(widths)]
    lines: list[str] = []
    below: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    for depth in range(1, len(layers)):
        upper = list(itertools.chain.from_iterable(layers[:depth]))
        for name in layers[depth]:
            above[name] = draw(st.lists(st.sampled_from(upper), min_size=1, max_size=3, unique=True))
            for each in above[name]:
                below.setdefault(each, []).append(name)
    for name in itertools.chain.from_iterable(layers):
        kind, rule = draw(st.sampled_from(KINDS)), draw(st.sampled_from(RULES))
        if name not in above:
            rule = "all_success"
        if kind == "branch" and name not in below:
            kind = "value"
        chosen = draw(st.lists(st.sampled_from(below[name]), unique=True)) if kind == "branch" else []
        lines.append(f"    {name} = made({name!r}, {kind!r}, {rule!r}, {chosen!r})")
        lines += [f"    {each} >> {name}" for each in above.get(name, ())]
    return f'{HEADER}with DAG("random_dag"):\n' + "\n".join(lines) + "\n"


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=dags())
def test_a_random_dag_is_equal(text: str, equal: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"random_{next(_numbers)}.py"
        path.write_text(text)
        try:
            equal(lambda: load_dag(path), path)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{text}") from None
