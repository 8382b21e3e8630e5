"""The node's own arguments: its tasks' ones, default_args, and errors that say where."""

from __future__ import annotations

import functools
import inspect
import os
import re
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, TaskGroup

from airflow_provider_raynode import RayFanInOperator, RayFanOutOperator, RayNode, RayTuneOperator, metric, pickled
from airflow_provider_raynode import json as json_return
from airflow_provider_raynode import ray_node as make_node
from airflow_provider_raynode.exceptions import ArgumentError, ConfigError, NodeWarning
from airflow_provider_raynode.task_groups import _arguments
from airflow_provider_raynode.task_groups.reference import parameters_of, reference, texts_of

CONFIG: dict[str, Any] = {
    "ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}
}
ROOT = Path(__file__).resolve().parents[3]


def fit(x: float) -> dict[str, float]:
    return {"score": x}


def node(group_id: str = "search", **arguments: Any) -> RayNode:
    return make_node(group_id, **{"python_callable": fit, "ray_config": CONFIG, **arguments})


# -- the signature and its page ----------------------------------------------------------------------------------------


def test_the_page_is_current() -> None:
    command = "python -m airflow_provider_raynode.task_groups.reference > docs/parameters.md"
    written = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == reference(), f"docs/parameters.md is out of date: {command}"


@pytest.mark.parametrize("documented", [RayNode, RayFanOutOperator, RayTuneOperator, RayFanInOperator])
def test_every_parameter_has_a_text(documented: type) -> None:
    texts = texts_of(documented)
    assert not [each.name for each in parameters_of(documented) if not texts.get(each.name)]
    assert all(f"`{each.name}`" in reference() for each in parameters_of(documented))


def test_both_signatures_show_every_parameter() -> None:
    signature = inspect.signature(make_node)
    assert list(signature.parameters) == list(inspect.signature(RayNode).parameters)
    for name, parameter in inspect.signature(RayNode).parameters.items():
        assert signature.parameters[name].default == parameter.default, name
    assert not [each for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
    own = {"python_callable", "ray_config", "op_kwargs", "returns", "secrets", "on_kill", "parent_group", "tooltip"}
    assert own | set(_arguments.TASK_ARGUMENTS) <= set(signature.parameters)
    group = set(inspect.signature(TaskGroup).parameters)
    assert group <= set(signature.parameters), "an argument of TaskGroup that a node does not take"
    assert set(_arguments.TaskArguments.__annotations__) == set(_arguments.TASK_ARGUMENTS)
    assert set(_arguments.TASK_ARGUMENTS) <= set(inspect.signature(BaseOperator.__init__).parameters)


# -- the arguments of the tasks ----------------------------------------------------------------------------------------


def test_task_arguments_go_where_they_make_sense() -> None:
    asset = Asset("model")
    with DAG("arguments", schedule=None, default_args={"retries": 7, "pool": "of_the_dag"}):
        made = node(
            retries=2,
            retry_delay=timedelta(seconds=3),
            execution_timeout=timedelta(hours=1),
            trigger_rule="all_done",
            on_failure_callback=print,
            on_success_callback=print,
            on_execute_callback=print,
            outlets=[asset],
            priority_weight=4,
            depends_on_past=True,
            default_args={"queue": "of_the_node", "retries": 5},
        )
    tasks = [made.fan_out, made.tune, made.fan_in]
    assert [task.retries for task in tasks] == [2, 2, 2]
    assert [task.retry_delay for task in tasks] == [timedelta(seconds=3)] * 3
    assert [task.pool for task in tasks] == ["of_the_dag"] * 3
    assert [task.queue for task in tasks] == ["of_the_node"] * 3
    assert [task.priority_weight for task in tasks] == [4] * 3
    assert [task.execution_timeout for task in tasks] == [None, timedelta(hours=1), None]
    assert [task.trigger_rule for task in tasks] == ["all_done", "all_success", "all_success"]
    assert [bool(task.on_failure_callback) for task in tasks] == [True, True, True]
    assert [bool(task.on_success_callback) for task in tasks] == [False, False, True]
    assert [bool(task.on_execute_callback) for task in tasks] == [True, False, False]
    assert [task.outlets for task in tasks] == [[], [], [asset]]
    assert [task.depends_on_past for task in tasks] == [True, True, True]
    assert made.fan_out.wait_for_downstream


def test_a_trigger_rule_of_the_dag_is_the_nodes_not_its_tasks() -> None:
    with DAG("rules", schedule=None, default_args={"trigger_rule": "all_done", "do_xcom_push": False}):
        made = node()
    assert [task.trigger_rule for task in (made.fan_out, made.tune, made.fan_in)] == [
        "all_done",
        "all_success",
        "all_success",
    ]
    assert all(task.do_xcom_push for task in (made.fan_out, made.tune, made.fan_in))


def test_the_nodes_parameters_have_their_defaults_in_default_args() -> None:
    of_the_dag = {"ray_conn_id": "of_the_dag", "on_kill": "detach", "grace_s": 7, "doc_md": "of a task"}
    with DAG("defaults", schedule=None, default_args=of_the_dag):
        assert node("first").doc_md is None
        assert node().fan_out.ray_conn_id == "of_the_dag"
        with TaskGroup("around", default_args={"ray_conn_id": "of_the_group"}):
            inner = node(grace_s=300.0, default_args={"poll_interval_s": 9})
        given = make_node("given", python_callable=fit, ray_config=CONFIG, ray_conn_id="ray_default")
    assert inner.fan_out.ray_conn_id == "of_the_group"
    assert (inner.tune.kill_policy, inner.tune.grace_s, inner.tune.poll_interval_s) == ("detach", 300.0, 9)
    assert given.fan_out.ray_conn_id == "ray_default", "what is given wins, also where it is the default"


def test_an_unknown_key_of_default_args_is_warned_of_by_name() -> None:
    with DAG("warned", schedule=None), pytest.warns(NodeWarning) as found:
        node(default_args={"retires": 2, "quite_other": 1, "retries": 1, "on_kill": "detach", "doc_md": "x"})
    texts = [str(each.message) for each in found]
    assert len(texts) == 2, texts
    assert "'retires': it has no effect, did you mean 'retries'?" in texts[0]
    assert texts[1].endswith("'quite_other': it has no effect")
    assert {each.filename for each in found} == {__file__}
    with DAG("silent", schedule=None), warnings.catch_warnings():
        warnings.simplefilter("error")
        node(default_args={"retries": 2, "poll_interval_s": 3})


def test_warnings_have_the_line_of_the_node_and_raynode_run_shows_them(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from airflow_provider_raynode.run.dag_run import _warnings

    file = tmp_path / "warned.py"
    file.write_text(
        "import warnings\n"
        "from airflow.sdk import DAG\n"
        "from airflow_provider_raynode import ray_node\n"
        "warnings.warn('of the author')\n"
        "config = {'ray_tune': {'metric': 'a', 'mode': 'max', 'search_space': {'x': [1, 2]}}}\n"
        "with DAG('warned', schedule=None):\n"
        "    ray_node('n', python_callable=lambda x: x, ray_config=config, default_args={'retires': 1})\n"
    )
    bag = DagBag(os.devnull, collect_dags=False)
    bag.process_file(str(file), only_if_updated=False, safe_mode=False)
    assert not bag.import_errors
    captured = [text for told in bag.captured_warnings.values() for text in told]
    assert len(captured) == 3, captured
    first, second = sorted(_warnings(captured))
    assert first.startswith(f"{file}:7: DAG 'warned', node 'n': default_args: no task of a node has 'retires'")
    assert second.startswith(
        f"{file}:7: DAG 'warned', node 'n': ray_config: ray_tune.search_space.x: [1, 2] is a const"
    )


# -- errors that say where ---------------------------------------------------------------------------------------------


async def in_a_coroutine(x: float) -> dict[str, float]:
    return {"score": x}


def in_a_generator(x: float) -> Any:
    yield {"score": x}


async def in_both(x: float) -> Any:
    yield {"score": x}


class Model:
    def __init__(self, x: float) -> None:
        self.x = x


class Callable_:
    def __call__(self, x: float) -> dict[str, float]:
        return {"score": x}

    def method(self, x: float) -> dict[str, float]:
        return {"score": x}

    async def later(self, x: float) -> dict[str, float]:
        return {"score": x}


class LaterCallable(Callable_):
    async def __call__(self, x: float) -> dict[str, float]:  # type: ignore[override]
        return {"score": x}


class InheritsIt(LaterCallable):
    pass


def positional_only(x: float, /) -> dict[str, float]:
    return {"score": x}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retires": 2}, "retires is no argument of a node, did you mean 'retries'?"),
        ({"task_id": "t"}, "task_id is no argument of a node: the node's id is its first argument, group_id"),
        ({"do_xcom_push": False}, "do_xcom_push is no argument of a node: "),
        ({"qwertz": 1}, "qwertz is no argument of a node; it has: add_suffix_on_collision, attach_timeout_s, dag, "),
        ({"default_args": [1]}, "default_args: expected a dict of arguments by name, got [1]"),
        ({"trigger_rule": "sometimes"}, "sometimes"),
        ({"python_callable": in_a_coroutine}, "in_a_coroutine is async"),
        ({"python_callable": functools.partial(in_a_coroutine)}, "in_a_coroutine is async"),
        ({"python_callable": LaterCallable()}, "LaterCallable is async"),
        ({"python_callable": InheritsIt()}, "InheritsIt is async"),
        ({"python_callable": Callable_().later}, "later is async"),
        ({"python_callable": in_a_generator}, "in_a_generator has a `yield`"),
        ({"python_callable": in_both}, "in_both has a `yield`"),
        ({"python_callable": Model}, "Model is a class"),
        ({"python_callable": functools.partial(Model)}, "Model is a class"),
        ({"python_callable": positional_only}, "argument 'x' is positional-only"),
        ({"python_callable": lambda *args: None}, "hyperparameter 'x' has no argument"),
        ({"python_callable": 5}, "expected a function or an import path 'pkg.mod:fn', got int"),
        ({"returns": [pickled("score")]}, "'score' is the metric of the search (ray_tune.metric), a number, and is"),
        ({"returns": [json_return("score")]}, "is declared as json: write metric('score')"),
        ({"returns": [pickled("a b")]}, "returns: 'a b' is no name of an output"),
        ({"returns": 5}, "returns: expected a list"),
        ({"ray_config": 5}, "ray_config: int is not a path, a dict or a RayConfig"),
        ({"ray_config": None}, "ray_config: NoneType is not a path, a dict or a RayConfig"),
        ({"op_kwargs": {1: 2}}, "op_kwargs: 1 is no name of an argument"),
        ({"op_kwargs": [1]}, "op_kwargs: expected a dict of arguments by name, got [1]"),
        ({"op_kwargs": {"dat": 1}}, "op_kwargs has 'dat', which is no argument"),
        ({"poll_interval_s": 0}, "poll_interval_s: 0 is not allowed"),
        ({"on_kill": "leave"}, "on_kill: 'leave' is not allowed: stop or detach"),
    ],
)
def test_what_is_refused_and_where(arguments: dict[str, Any], message: str) -> None:
    with DAG("refused", schedule=None), pytest.raises(ConfigError) as caught_config:
        try:
            node(**arguments)
        except TypeError as error:  # BindingError is one; ArgumentError is both
            raise ConfigError(str(error)) from error
    text = str(caught_config.value)
    assert message in text
    assert re.match(rf"{re.escape(__file__)}, line \d+: DAG 'refused', (node 'search'|task 'search\.tune'):", text)
    assert text.count("DAG 'refused'") == 1


@pytest.mark.parametrize(
    "function",
    [Callable_(), Callable_().method, lambda x: {"score": x}, functools.partial(lambda x, y: {"score": x}, y=1)],
)
def test_callables_that_are_no_functions(function: Callable[..., Any]) -> None:
    with DAG("callables", schedule=None):
        assert node(python_callable=function).fan_out.python_callable is function


def test_what_is_missing_or_has_no_name() -> None:
    with DAG("missing", schedule=None):
        with pytest.raises(ArgumentError, match="node 'n': ray_config is missing"):
            make_node("n", python_callable=fit)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"node 'n': .*has no name: a node has one argument without a name"):
            make_node("n", fit, CONFIG)  # type: ignore[call-arg,misc]
        node()
        with pytest.raises(ArgumentError, match="node 'search': group_id 'search' has already been added"):
            node()
        with pytest.raises(ArgumentError, match="node 'a b': The key 'a b' has to be made of"):
            make_node("a b", python_callable=fit, ray_config=CONFIG)


def test_outside_a_dag() -> None:
    with pytest.raises(ArgumentError, match=r"line \d+: node 'search': stands outside a DAG: call it within `with DAG"):
        node()


def test_the_place_is_the_line_that_called(tmp_path: Path) -> None:
    """In Airflow's own list of import errors: the file, the DAG, the node, the author's line; lines stay lines."""
    from airflow.dag_processing.dagbag import DagBag

    file = tmp_path / "two_mistakes.py"
    file.write_text(
        "from airflow.sdk import dag, task_group\n"
        "from airflow_provider_raynode import ray_node\n"
        "@dag(schedule=None)\n"
        "def wrong():\n"
        "    @task_group\n"
        "    def around():\n"
        "        ray_node('n', python_callable=lambda x: x,\n"
        "            ray_config={'ray_tune': {'metrik': 'a', 'mode': 'mx', 'search_space': {'x': 1}}})\n"
        "    around()\n"
        "wrong()\n"
    )
    bag = DagBag(os.devnull, collect_dags=False)
    bag.process_file(str(file), only_if_updated=False, safe_mode=False)
    (text,) = bag.import_errors.values()
    assert f"ConfigError: {file}, line 7: DAG 'wrong', node 'around.n':\n" in text
    assert "\n  ray_config: ray_tune.metrik: unknown key, did you mean 'metric'?" in text
    assert "\n  ray_config: ray_tune.mode: 'mx' is not allowed" in text
    assert "During handling" not in text
    assert text.count("Traceback") == 1
    frames = re.findall(r'File "([^"]+)", line (\d+)', text)
    assert (str(file), "7") in frames


def test_the_same_text_in_the_commands(tmp_path: Path) -> None:
    from airflow_provider_raynode.argo.dag_file import load_dag
    from airflow_provider_raynode.exceptions import DagFileError
    from airflow_provider_raynode.run.dag_run import _import_error

    file = tmp_path / "one_mistake.py"
    file.write_text(
        "from airflow.sdk import DAG\n"
        "from airflow_provider_raynode import ray_node\n"
        "with DAG('wrong', schedule=None):\n"
        "    ray_node('n', python_callable=lambda x: x, ray_config='nowhere.yaml', retires=1)\n"
    )
    told = f"{file}, line 4: DAG 'wrong', node 'n': retires is no argument of a node, did you mean 'retries'?"
    with pytest.raises(DagFileError) as caught:
        load_dag(file)
    assert str(caught.value) == told
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(os.devnull, collect_dags=False)
    bag.process_file(str(file), only_if_updated=False, safe_mode=False)
    (text,) = bag.import_errors.values()
    assert _import_error(text, str(file)) == told


def test_an_error_that_is_no_nodes_has_the_line_too(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from airflow_provider_raynode.argo.dag_file import load_dag
    from airflow_provider_raynode.exceptions import DagFileError
    from airflow_provider_raynode.run.dag_run import _import_error

    file = tmp_path / "own_config.py"
    file.write_text("from airflow_provider_raynode import RayConfig\n\nRayConfig.load(5)\n")
    with pytest.raises(DagFileError) as caught:
        load_dag(file)
    assert str(caught.value) == f"{file}: line 3: ray_config: int is not a path, a dict or a RayConfig"
    bag = DagBag(os.devnull, collect_dags=False)
    bag.process_file(str(file), only_if_updated=False, safe_mode=False)
    ((name, text),) = bag.import_errors.items()
    assert _import_error(text, name) == f"{file}, line 3: ray_config: int is not a path, a dict or a RayConfig"


def test_an_operator_by_itself_says_where_too() -> None:
    with DAG("alone", schedule=None), pytest.raises(ConfigError, match=r"line \d+: DAG 'alone', task 'out': returns: "):
        RayFanOutOperator(task_id="out", python_callable=fit, ray_config=CONFIG, returns=[metric("a"), "a"])
