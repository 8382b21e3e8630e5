"""The manifest as one reads it: what is said once, and that a new task changes no line of another."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, task, task_group

from airflow_provider_raynode.argo.export import export_dag
from airflow_provider_raynode.argo.template_defaults import as_run, defaults_for, without_defaults

SETTINGS = {
    "catalog": "s3://bucket/raynode",
    "service_account": "raynode",
    "secrets": {"AIRFLOW_CONN_DB": {"name": "db", "key": "url"}},
    "pools": {"gpu": 2, "Gpu": 1},
}


@task
def number(*_: Any) -> int:
    return 1


@task
def numbers(*_: Any) -> list[int]:
    return [1, 2]


class NeedsConnection(BaseOperator):
    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Any) -> None:
        """Nothing."""


def base() -> dict[str, Any]:
    """A DAG with a task of most kinds."""
    made: dict[str, Any] = {"first": numbers.override(task_id="first")()}
    made["second"] = number.override(task_id="second", retries=2)(made["first"])
    made["joint"] = EmptyOperator(task_id="joint")
    made["second"] >> made["joint"]
    made["slow"] = number.override(task_id="slow", execution_timeout=timedelta(minutes=5), pool="gpu")()
    return made


def add_plain(made: dict[str, Any]) -> None:
    number.override(task_id="new")()


def add_retried(made: dict[str, Any]) -> None:
    number.override(task_id="new", retries=7, retry_delay=timedelta(seconds=3), retry_exponential_backoff=3)()


def add_timed(made: dict[str, Any]) -> None:
    number.override(task_id="new", retries=1, execution_timeout=timedelta(hours=2))()


def add_in_pool(made: dict[str, Any]) -> None:
    number.override(task_id="new", pool="Gpu")()


def add_limited(made: dict[str, Any]) -> None:
    number.override(task_id="new", max_active_tis_per_dag=3)()


def add_with_a_pod_of_its_own(made: dict[str, Any]) -> None:
    number.override(task_id="new", executor_config={"pod_override": {"metadata": {"labels": {"a": "b"}}}})()


def add_with_settings(made: dict[str, Any]) -> None:
    number.override(task_id="new_with_settings")()


def add_with_a_capital(made: dict[str, Any]) -> None:
    number.override(task_id="First", max_active_tis_per_dag=1)()


def add_named_as_a_template(made: dict[str, Any]) -> None:
    number.override(task_id="task", max_active_tis_per_dag=1)()


def add_that_needs_a_secret(made: dict[str, Any]) -> None:
    NeedsConnection(task_id="new", conn_id="db")


def add_empty(made: dict[str, Any]) -> None:
    made["joint"] >> EmptyOperator(task_id="new")


def add_mapped(made: dict[str, Any]) -> None:
    @task(task_id="new")
    def each(x: int) -> int:
        return x

    each.expand(x=made["first"])


def add_mapped_over_literals(made: dict[str, Any]) -> None:
    @task(task_id="new")
    def each(x: int) -> int:
        return x

    each.expand(x=[1, 2, 3])


def add_planned(made: dict[str, Any]) -> None:
    @task(task_id="new")
    def each(x: int, y: int) -> int:
        return x + y

    each.expand(x=made["first"], y=numbers.override(task_id="more")())


def add_group(made: dict[str, Any]) -> None:
    @task_group(group_id="new")
    def group(x: int) -> None:
        number(x)

    group.expand(x=made["first"])


def add_below(made: dict[str, Any]) -> None:
    made["slow"] >> number.override(task_id="new")()


ADDED = [value for name, value in sorted(globals().items()) if name.startswith("add_")]


def text_of(*adds: Callable[[dict[str, Any]], None], settings: dict[str, Any] | None = None) -> str:
    with DAG("lines", schedule=None) as dag:
        made = base()
        for add in adds:
            add(made)
    known = {"new_with_settings": {"resources": {"cpu": 3}}} if "new_with_settings" in dag.task_ids else {}
    text = export_dag(dag, Path("dags/lines.py"), settings={**SETTINGS, **(settings or {}), "tasks": known}).text
    # What the whole DAG is: it has to change.
    return re.sub(r'structure: "?[0-9a-f]{16}"?', "structure: x", re.sub(r"structure=[0-9a-f]{16}", "structure=", text))


def spec_of(text: str) -> dict[str, Any]:
    return dict(next(iter(yaml.safe_load_all(text)))["spec"])


@pytest.mark.parametrize("add", ADDED, ids=lambda each: each.__name__)
def test_a_new_task_changes_no_other_line(add: Callable[[dict[str, Any]], None]) -> None:
    before, after = text_of(), text_of(add)
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert [each for each in lines if each.startswith("- ")] == []
    assert any(each.startswith("+ ") for each in lines)


def test_nor_do_many_at_once() -> None:
    some = [add_with_settings, add_with_a_capital, add_named_as_a_template, add_mapped_over_literals]
    lines = list(difflib.ndiff(text_of().splitlines(), text_of(*some).splitlines()))
    assert [each for each in lines if each.startswith("- ")] == []


def test_a_thousand_tasks_have_one_template_and_fit_the_object() -> None:
    with DAG("many", schedule=None) as dag:
        before = None
        for index in range(1000):
            found = number.override(task_id=f"task_{index}", retries=index % 4)()
            _ = before >> found if before else None
            before = found
    text = export_dag(dag, Path("dags/many.py"), settings=SETTINGS).text
    spec = spec_of(text)
    assert [each["name"] for each in spec["templates"]] == ["dag", "task", "task-with-retries"]
    assert len(text) < 500_000


def test_what_is_said_once_and_the_rest_are_the_whole() -> None:
    full = {
        "name": "a",
        "script": {
            "image": "x",
            "args": ["1"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        },
    }
    other = {
        "name": "b",
        "script": {
            "image": "y",
            "args": ["1"],
            "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
            "resources": {"limits": {"cpu": "2"}},
        },
    }
    defaults = defaults_for({"script": full["script"]}, [full, other])
    # Of what the other does not have, and of a value that would stand beside a valueFrom, nothing is a default.
    assert defaults == {"script": {"image": "x", "args": ["1"], "resources": {"limits": {"cpu": "1"}}}}
    for each in (full, other):
        assert as_run(without_defaults(each, defaults), defaults) == each


def test_a_pod_that_differs_says_the_difference_alone() -> None:
    found = spec_of(text_of(add_with_settings, settings={"resources": {"cpu": 1, "memory": "2Gi"}}))
    (own,) = [each for each in found["templates"] if each["name"] == "new-with-settings"]
    assert own["script"].keys() == {"source", "resources"}
    assert own["script"]["resources"] == {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}


def test_ids_are_in_the_live_objects() -> None:
    spec = spec_of(text_of(add_group))
    templates = {each["name"]: each for each in spec["templates"]}
    for node in templates["dag"]["dag"]["tasks"]:
        given = {each["name"]: each.get("value") for each in node["arguments"]["parameters"]}
        inputs = {each["name"]: each.get("value") for each in templates[node["template"]]["inputs"]["parameters"]}
        assert {**inputs, **given}["step"], node
    assert spec["templateDefaults"]["metadata"]["labels"] == {
        "raynode/task-id": "{{inputs.parameters.step}}",
        "raynode/map-index": "{{inputs.parameters.index}}",
    }
    assert spec["workflowMetadata"]["labels"] == spec["podMetadata"]["labels"] == {"raynode/dag-id": "lines"}
