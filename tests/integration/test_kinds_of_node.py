"""A training, a function and a map as nodes of a DAG: on the real Airflow, with the embedded Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_raynode import RayFanOutOperator, RayTrainOperator, catalog, context, pickled, ray_node, report
from airflow_provider_raynode.operators._output import OUTPUT_KEYS
from airflow_provider_raynode.record import RunRecord

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

TRAINING: dict[str, Any] = {
    "ray_train": {
        "scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}},
        "metric": "loss",
        "mode": "min",
    }
}
SMALL: dict[str, Any] = {"default_resources": {"num_cpus": 0.5}}


@pytest.fixture(autouse=True)
def fast_health_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")


def small(result: Any, *task_ids: str) -> None:
    for task_id in task_ids:
        assert len(json.dumps(result.xcom(task_id))) < 4096, task_id


def train(numbers: list[int], target: int = 0) -> dict[str, Any]:
    run = context()
    for step in range(1, 5):
        # The third report is the best.
        report({"loss": abs(step - 3) + run.rank * 100, "step": step})
    return {"loss": 9.0, "step": 5, "weights": [run.world_size, sum(numbers), target]}


def test_a_training_whose_parts_other_tasks_take(run_dag: Callable[..., Any]) -> None:
    with DAG("a_training", schedule=None) as dag:

        @task
        def numbers() -> dict[str, Any]:
            return catalog.put([1, 2, 3])

        @task
        def use(model: Any, best: float, ending: str, steps: Any, record: Any) -> list[Any]:
            told = RunRecord.model_validate(catalog.load(record))
            assert (told.work, told.outcome) == ("training", "succeeded")
            assert told.training is not None
            return [catalog.load(model), best, ending, len(catalog.load(steps)), told.training.world_size]

        node = ray_node(
            "node",
            python_callable=train,
            ray_config=TRAINING,
            op_kwargs={"numbers": numbers(), "target": 7},
            returns=[pickled("weights")],
        )
        use(
            node.outputs["weights"],
            node.best_metrics["loss"],
            node.training["ending"],
            node.steps,
            node.run_record,
        )

    result = run_dag(dag)
    assert result.state == "success", result.states
    assert result.states["node.train"] == "success"
    pushed = result.xcom("node.fan_in")
    assert set(pushed) == set(OUTPUT_KEYS["training"])
    assert pushed["metrics"]["loss"] == 9.0
    assert pushed["best_metrics"]["loss"] == 0
    assert pushed["training"] == {
        "world_size": 2,
        "reports": 5,
        "best_step": 3,
        "ending": "finished",
        "restarts": 0,
        "resumed_from": None,
    }
    assert result.xcom("use") == [[2, 6, 7], 0, "finished", 5, 2]
    small(result, "node.fan_out", "node.train", "node.fan_in")


def describe(text: str, scale: int = 1) -> dict[str, Any]:
    return {"length": len(text) * scale, "words": text.split()}


def test_a_function_and_a_map_over_what_it_gives(run_dag: Callable[..., Any]) -> None:
    with DAG("function_and_map", schedule=None) as dag:

        def split(text: str) -> list[str]:
            return text.split(".")

        def length(part: str, plus: int) -> int:
            if part == "bad":
                raise ValueError("a bad part")
            return len(part) + plus

        @task
        def use(value: Any, results: Any, failed: Any, items: Any, record: Any) -> list[Any]:
            told = RunRecord.model_validate(catalog.load(record))
            return [value, catalog.load(results), failed, items["succeeded"], told.work, list(told.failed)]

        function = ray_node("function", python_callable=split, ray_config=SMALL, op_kwargs={"text": "a.bcd.bad.ef"})
        mapped = ray_node(
            "map",
            python_callable=length,
            ray_config={"ray_map": {"over": "part", "on_error": "keep"}, **SMALL},
            op_kwargs={"part": function.value, "plus": 1},
        )
        use(function.value, mapped.results, mapped.failed, mapped.items, mapped.run_record)

    result = run_dag(dag)
    assert result.state == "success", result.states
    assert result.states["function.run"] == result.states["map.run"] == "success"
    assert set(result.xcom("function.fan_in")) == set(OUTPUT_KEYS["function"])
    assert set(result.xcom("map.fan_in")) == set(OUTPUT_KEYS["map"])
    assert result.xcom("map.fan_in")["items"] == {
        "items": 4,
        "succeeded": 3,
        "failed": 1,
        "restored": 0,
        "ending": "all_items",
    }
    assert result.xcom("use") == [["a", "bcd", "bad", "ef"], [2, 4, None, 3], [2], 3, "map", [2]]
    small(result, "function.fan_in", "map.fan_in")


def test_a_config_that_is_known_when_the_node_runs(run_dag: Callable[..., Any], capfd: Any) -> None:
    """Its execution task runs every kind; what the DAG takes and the kind does not give is said by fan-in."""
    with DAG("known_later", schedule=None) as dag:

        @task
        def config() -> dict[str, Any]:
            return SMALL

        @task
        def use(value: Any) -> Any:
            return value

        node = ray_node("node", python_callable=describe, ray_config=config(), op_kwargs={"text": "a b"})  # type: ignore[arg-type]
        use(node.value["length"])
        use.override(task_id="other")(node.best_trial)

    result = run_dag(dag)
    assert result.states["node.tune"] == "success"
    assert result.states["node.fan_in"] == "failed"
    written = "".join(capfd.readouterr())
    assert "The function has succeeded, and the DAG takes from it what it does not have" in written
    assert "output['best_trial'] is not there: there is 'value', 'metrics', 'outputs', 'run_record'" in written


def test_an_operator_of_another_kind_fails_with_the_right_one(
    run_dag: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the config is known when the task runs."""
    with DAG("another_kind", schedule=None, params={"workers": 1}) as dag:

        @task
        def config() -> dict[str, Any]:
            return SMALL

        fan_out = RayFanOutOperator(
            task_id="fan_out",
            python_callable=describe,
            ray_config=config(),  # type: ignore[arg-type]
            op_kwargs={"text": "a"},
        )
        RayTrainOperator(task_id="train", job=fan_out.output)

    result = run_dag(dag)
    assert result.states["train"] == "failed"
    written = "".join(capfd.readouterr())
    assert "RayTrainOperator runs a training, and the job raynode-" in written
    assert "use RayTaskOperator" in written
