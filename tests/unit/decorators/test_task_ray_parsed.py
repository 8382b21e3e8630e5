"""`@task.ray` when the DAG file is parsed: what it takes, and what it refuses by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_raynode import pickled
from airflow_provider_raynode.decorators.ray import RayDecoratedOperator
from airflow_provider_raynode.exceptions import ConfigError


def plain(x: int, y: int = 2) -> int:
    return x + y


def task_of(function: Callable[..., Any] = plain, *args: Any, **options: Any) -> RayDecoratedOperator:
    with DAG("d", schedule=None):
        return task.ray(**options)(function)(*(args or (1,))).operator  # type: ignore[no-any-return]


def test_airflow_finds_it_and_it_is_one_task() -> None:
    operator = task_of(num_cpus=0.5, resources={"disk": 1}, retries=3, secrets=["var:key"])
    assert isinstance(operator, RayDecoratedOperator)
    assert (operator.task_id, operator.retries, operator.operator_name) == ("plain", 3, "@task.ray")
    config = operator._config(operator.dag)
    assert (config.work, config.default_resources.num_cpus, config.default_resources.resources) == (
        "function",
        0.5,
        {"disk": 1.0},
    )


def test_mapped_with_resources() -> None:
    with DAG("d", schedule=None) as dag:
        task.ray(resources={"disk": 1}, num_cpus=2)(plain).partial(y=1).expand(x=[1, 2])
    mapped = dag.get_task("plain")
    assert mapped.is_mapped
    assert mapped.partial_kwargs["custom_resources"] == {"disk": 1}


def test_the_bare_decorator_and_an_override() -> None:
    with DAG("d", schedule=None) as dag:
        found = task.ray(plain)
        found(1)
        found.override(task_id="other", num_gpus=0.5)(1)
    assert dag.get_task("other").reserves["num_gpus"] == 0.5


def nested_tasks() -> Callable[..., Any]:
    @task
    def other() -> int:
        return 1

    def uses() -> int:
        return other()

    return uses


def generator(x: int) -> Any:
    yield x


async def coroutine(x: int) -> int:
    return x


def has_ti(x: int, ti: Any = None) -> None: ...


def has_try(x: int, try_number: int | None = None) -> None: ...


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "async": (coroutine, {}, "async"),
    "generator": (generator, {}, "yield"),
    "task instance": (has_ti, {}, "argument 'ti'.*context()"),
    "try number": (has_try, {}, r"argument 'try_number'.*context\(\).try_number"),
    "negative": (plain, {"num_cpus": -1}, "num_cpus"),
    "said twice": (plain, {"num_cpus": 1, "ray_config": {"default_resources": {"num_cpus": 2}}}, "as well"),
    "unknown key": (plain, {"ray_config": {"default_resource": {}}}, "default_resources"),
    "search": (
        plain,
        {"ray_config": {"ray_tune": {"metric": "a", "mode": "max", "search_space": {"x": 1}}}},
        "ray_node",
    ),
    "secret": (plain, {"secrets": ["my_db"]}, "secrets"),
    "a text of secrets": (plain, {"secrets": "conn:my_db"}, "expected a list"),
    "limit": (plain, {"run_timeout_s": 0}, "run_timeout_s"),
    "on_kill": (plain, {"on_kill": "leave"}, "on_kill"),
    "detach": (plain, {"on_kill": "detach", "address": "local"}, "detach"),
    "address": (plain, {"address": "ftp://head"}, "not an address"),
    "runtime_env": (plain, {"runtime_env": {"workingdir": "."}}, "working_dir"),
    "returns": (plain, {"returns": [pickled("a"), "a"]}, "twice"),
}


@pytest.mark.parametrize(("function", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_when_the_file_is_parsed(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        task_of(function, **options)
    assert str(raised.value).count("task '") == 1
    assert "test_task_ray_parsed.py" in str(raised.value)


def test_a_mapped_task_is_checked_when_the_file_is_parsed_too() -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigError, match="num_gpus"):
        task.ray(num_gpus=1.5)(plain).expand(x=[1])


def test_a_function_that_uses_another_task_is_refused() -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigError, match=r"uses other, which is decorated"):
        task.ray(nested_tasks())()


def test_arguments_of_a_wrong_number_are_airflows_own_error() -> None:
    with DAG("d", schedule=None), pytest.raises(TypeError, match="too many positional"):
        task.ray(plain)(1, 2, 3)


def context_of(operator: Any) -> dict[str, Any]:
    return {
        "ds": "2026-01-02",
        "logical_date": datetime(2026, 1, 2, tzinfo=UTC),
        "params": {"depth": 3},
        "run_id": "r",
        "ti": SimpleNamespace(),
    }


def test_arguments_go_by_name_where_they_have_one() -> None:
    operator = task_of(plain, 5)
    assert operator._arguments(context_of(operator)) == ([], {"x": 5})  # type: ignore[arg-type]

    def positional(a: int, /, *rest: int) -> None: ...

    operator = task_of(positional, 5, 6)
    assert operator._arguments(context_of(operator)) == ([5, 6], {})  # type: ignore[arg-type]


def test_the_context_fills_what_is_asked_for_and_given_values_win() -> None:
    def asks(x: int, ds: Any = None, logical_date: Any = None, params: Any = None) -> None: ...

    operator = task_of(asks, 1)
    _, named = operator._arguments(context_of(operator))  # type: ignore[arg-type]
    assert (named["ds"], named["params"]) == ("2026-01-02", {"depth": 3})
    assert type(named["logical_date"]) is datetime

    with DAG("d", schedule=None):
        operator = task.ray(asks)(1, ds="mine").operator
    assert operator._arguments(context_of(operator))[1]["ds"] == "mine"  # type: ignore[arg-type]


def test_a_param_that_json_does_not_have_is_refused() -> None:
    def asks(params: Any) -> None: ...

    with DAG("d", schedule=None):
        operator = task.ray(asks)().operator
    with pytest.raises(ConfigError, match="holds what JSON does not have"):
        operator._arguments({**context_of(operator), "params": {"when": {1, 2}}})


def test_parsing_a_dag_imports_no_ray() -> None:
    code = (
        "import sys\n"
        "from airflow.sdk import DAG, task\n"
        "with DAG('d', schedule=None):\n"
        "    @task.ray(num_cpus=2)\n"
        "    def f(x): return x\n"
        "    f(1)\n"
        "    from airflow_provider_raynode import RaySubmitJobOperator\n"
        "    RaySubmitJobOperator(task_id='job', entrypoint='true')\n"
        "assert 'ray' not in sys.modules, 'Ray was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
