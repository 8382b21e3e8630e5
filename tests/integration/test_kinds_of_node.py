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
            python_callable=len,
            ray_config=config(),  # type: ignore[arg-type]
            op_kwargs={"obj": [1]},
        )
        RayTrainOperator(task_id="train", job=fan_out.output)

    result = run_dag(dag)
    assert result.states["train"] == "failed"
    written = "".join(capfd.readouterr())
    assert "RayTrainOperator runs a training, and the job raynode-" in written
    assert "use RayTaskOperator" in written
