"""What a node runs, by its config: the execution task's name and class, and what is refused when the DAG is parsed."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_raynode import RayFanOutOperator, RayTaskOperator, RayTrainOperator, RayTuneOperator, pickled
from airflow_provider_raynode import ray_node as make_node
from airflow_provider_raynode.exceptions import BindingError, ConfigError
from airflow_provider_raynode.operators.execution import RayExecutionOperator

SEARCH: dict[str, Any] = {
    "ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}}
}
TRAINING: dict[str, Any] = {"ray_train": {"scaling": {"num_workers": 2}}}


def fit(x: float) -> dict[str, float]:
    return {"score": x}


@pytest.mark.parametrize(
    ("config", "name", "operator"),
    [
        (SEARCH, "tune", RayTuneOperator),
        ({**SEARCH, **TRAINING}, "tune", RayTuneOperator),
        (TRAINING, "train", RayTrainOperator),
        ({}, "run", RayTaskOperator),
        ({"ray_map": {"over": "x"}}, "run", RayTaskOperator),
        ("{{ params.config }}", "tune", RayExecutionOperator),
        # The sections of a dict say it, whatever else of it is known later.
        ({**TRAINING, "ray_cluster": {"address": "{{ params.config }}"}}, "train", RayTrainOperator),
        ({"ray_cluster": {"address": "{{ params.config }}"}}, "run", RayTaskOperator),
        ({"ray_map": {"over": "{{ params.config }}"}}, "run", RayTaskOperator),
        ({**SEARCH, "default_resources": {"num_cpus": "{{ params.config }}"}}, "tune", RayTuneOperator),
    ],
)
def test_the_execution_task_is_named_after_the_work(config: Any, name: str, operator: type) -> None:
    op_kwargs = {} if "ray_tune" in config else {"x": [1]}
    with DAG("kinds", schedule=None, params={"config": "a.yaml"}) as dag:
        node = make_node("node", python_callable=fit, ray_config=config, op_kwargs=op_kwargs)
        beside = make_node(
            "b", python_callable=fit, ray_config=config, op_kwargs=op_kwargs, prefix_group_id=False, retries=4
        )
    assert type(node.execution) is operator
    assert node.execution.task_id == f"node.{name}"
    assert beside.execution.task_id == f"b_{name}"
    assert beside.execution.retries == 4
    assert getattr(node, name) is node.execution
    assert dag.get_task(f"node.{name}").downstream_task_ids == {"node.fan_in"}
    others = {"tune", "train", "run"} - {name}
    for other in others:
        assert not hasattr(node, other)
        with pytest.raises(AttributeError, match=rf"its execution task is '{name}'; node.execution is it"):
            getattr(node, other)


def test_an_xcom_as_config_is_known_when_the_node_runs() -> None:
    @task
    def choose() -> dict[str, Any]:
        return TRAINING

    with DAG("later", schedule=None):
        node = make_node("node", python_callable=fit, ray_config=choose(), op_kwargs={"x": 1})  # type: ignore[arg-type]
    assert type(node.tune) is RayExecutionOperator
    assert node.output["training"]["ending"] is not None, "what cannot be known is not refused"


@pytest.mark.parametrize(
    ("config", "operator", "message"),
    [
        (SEARCH, RayTrainOperator, r"RayTrainOperator runs a training, and .* is a search \(.*\): use RayTuneOperator"),
        (TRAINING, RayTuneOperator, r"RayTuneOperator runs a search, .* a training \(.*\): use RayTrainOperator"),
        ({}, RayTuneOperator, r"RayTuneOperator runs a search, .* is a function \(.*\): use RayTaskOperator"),
        (TRAINING, RayTaskOperator, r"RayTaskOperator runs a function or a map, .*: use RayTrainOperator"),
    ],
)
def test_an_operator_of_another_kind_is_refused_with_the_right_one(config: Any, operator: Any, message: str) -> None:
    op_kwargs = {} if "ray_tune" in config else {"x": 1}
    with DAG("mixed", schedule=None):
        fan_out = RayFanOutOperator(task_id="fan_out", python_callable=fit, ray_config=config, op_kwargs=op_kwargs)
        with pytest.raises(ConfigError, match=message):
            operator(task_id="wrong", job=fan_out.output)
        RayExecutionOperator(task_id="any", job=fan_out.output)


def test_what_a_map_may_run_over_is_not_refused() -> None:
    reference = {"uri": "s3://b/x", "kind": "json", "sha256": "0" * 64, "size": 1, "created": "2026-01-01T00:00:00Z"}
    with DAG("accepted", schedule=None, params={"xs": [1]}):

        @task
        def items() -> list[int]:
            return [1]

        for number, value in enumerate([[], (1, 2), reference, items(), "{{ params.xs }}", range(3)]):
            make_node(
                f"node_{number}",
                python_callable=fit,
                ray_config={"ray_map": {"over": "x"}},
                op_kwargs={"x": value},
            )


def takes_config(config: dict[str, Any]) -> dict[str, float]:
    return {"score": 1.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"python_callable": fit, "ray_config": {}}, BindingError, "'x' gets no value: add it to op_kwargs, or give"),
        ({"python_callable": fit, "ray_config": TRAINING}, BindingError, "'x' gets no value: add it to op_kwargs"),
        ({"python_callable": takes_config, "ray_config": TRAINING}, BindingError, "'config' gets no value"),
        ({"op_kwargs": {"x": 1, "y": 2}, "ray_config": TRAINING}, BindingError, "op_kwargs has 'y'"),
        ({"ray_config": {"ray_trian": {}}}, ConfigError, "did you mean 'ray_train'"),
        (
            {"ray_config": {"ray_map": {"over": "x"}}},
            ConfigError,
            "ray_map.over: op_kwargs has no 'x'; there is nothing",
        ),
        (
            {"ray_config": {"ray_map": {"over": "xs"}}, "op_kwargs": {"x": [1]}},
            ConfigError,
            "ray_map.over: op_kwargs has no 'xs', did you mean 'x'?",
        ),
        *(
            (
                {"ray_config": {"ray_map": {"over": "x"}}, "op_kwargs": {"x": value}},
                ConfigError,
                rf"ray_map.over: op_kwargs\['x'\] is .*, {what}.*: give a list, or a CatalogRef",
            )
            for value, what in (
                (5, "no list"),
                (None, "no list"),
                ("ab", "a text"),
                ({"a": 1}, "a dict"),
                ({1}, "a set"),
            )
        ),
        (
            {"ray_config": {"ray_map": {"over": "x"}}, "op_kwargs": {"x": [1]}, "returns": ["model"]},
            ConfigError,
            r"returns: 'model' has no effect on a map \(ray_map\)",
        ),
        (
            {"ray_config": {"ray_train": {"trainer": "jax"}}, "op_kwargs": {"x": 1}},
            ConfigError,
            r"ray_train.trainer: JaxTrainer needs the library jax, which is not installed in this Python: pip install",
        ),
        (
            {"python_callable": "pkg.mod:fn", "ray_config": {"ray_map": {"over": "y"}}, "op_kwargs": {"x": [1]}},
            ConfigError,
            "ray_map.over: op_kwargs has no 'y'; there is x",
        ),
        (
            {"ray_config": {"ray_train": {"data": {"train": "rows"}}}, "op_kwargs": {"x": 1}},
            ConfigError,
            "ray_train.data.train: op_kwargs has no 'rows'; there is x",
        ),
        (
            {
                "ray_config": {"ray_train": {"metric": "score", "mode": "max"}},
                "op_kwargs": {"x": 1},
                "returns": [pickled("score")],
            },
            ConfigError,
            r"'score' is the metric of the training \(ray_train.metric\)",
        ),
        (
            {"ray_config": TRAINING, "op_kwargs": {"x": 1}, "returns": ["training_iteration"]},
            ConfigError,
            "'training_iteration' is counted by the node itself",
        ),
    ],
)
def test_what_is_refused_at_parse_time(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with DAG("refused", schedule=None), pytest.raises(error, match=message):
        make_node("node", **{"python_callable": fit, **arguments})
