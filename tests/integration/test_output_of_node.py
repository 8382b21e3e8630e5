"""A node's output taken by other tasks, on the real Airflow and the real Ray: parts, the node itself, mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task, task_group

from airflow_provider_raynode import RayNode, catalog, pickled, ray_node
from airflow_provider_raynode.operators._output import OUTPUT_KEYS

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

ODD = 'it\'s {{ ünï }} "?/."'
CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {
            "x": {"type": "grid_search", "values": [1, 2]},
            "layers": {"type": "constant", "value": [8, 4]},
            ODD: 7,
        },
    },
    "default_resources": {"num_cpus": 0.5},
}
# Of one metric there is no front.
KEYS = set(OUTPUT_KEYS["search"]) - {"front"}


def train(config: dict[str, Any], offset: int = 0) -> dict[str, Any]:
    return {"score": config["x"] + offset, "model": {"weight": config["x"]}, "history": [[1], {"deep": [2, 3]}]}


def distil(teacher: dict[str, int], tuned: dict[str, Any], y: int) -> dict[str, Any]:
    assert set(tuned) == KEYS
    return {"score": y + teacher["weight"]}


DISTIL: dict[str, Any] = {
    "ray_tune": {"metric": "score", "mode": "max", "search_space": {"y": {"type": "grid_search", "values": [10]}}},
    "default_resources": {"num_cpus": 0.5},
}


@task
def taken(*values: Any, named: Any = None) -> list[Any]:
    # As JSON has it: what else is in the output would fail the task.
    return [list(values), named]


def test_parts_of_the_output_and_the_node_itself(ray_connection: Any, run_dag: Callable[..., Any]) -> None:
    with DAG("output_parts", schedule=None) as dag_object:
        node = ray_node("search", python_callable=train, ray_config=CONFIG, returns=[pickled("model"), "history"])

        # The case that was reported: the search ran to its end, and the task that took the part failed.
        taken.override(task_id="deploy")(node.output["best_config"], node.output["best_metrics"]["score"])
        taken.override(task_id="odd")(node.best_config[ODD], node.best_config["layers"][-1], node.trials["kind"])
        taken.override(task_id="itself")(node, named=[{"deep": (node, node.best_trial)}])

        @task
        def weigh(model: dict[str, Any], whole: Any) -> list[Any]:
            return [catalog.load(model), catalog.load(whole["outputs"]["history"])]

        weigh(node.outputs["model"], node)
        RayNode(
            "student",
            python_callable=distil,
            ray_config=DISTIL,
            op_kwargs={"teacher": node.output["outputs"]["model"], "tuned": node},
        )
        node >> BashOperator(
            task_id="template",
            bash_command=f"echo {node.best_config['layers'][0]} {node.best_config['x']}",
        )
        BashOperator(task_id="field", bash_command='echo "$TRIAL"', env={"TRIAL": node.best_trial}, append_env=True)
        PythonOperator(task_id="classic", python_callable=lambda n: n["best_config"]["x"], op_args=[node])
        # A text makes no dependency: the task that lacks it fails, and does not go on with nothing.
        early = BashOperator(task_id="early", bash_command=f"echo {node.best_trial}")
        early >> node

    result = run_dag(dag_object)
    assert result.states.pop("early") == "failed"
    assert set(result.states.values()) == {"upstream_failed"}, "nothing runs before what it needs"

    early.bash_command = "true"
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    best = {"x": 2, "layers": [8, 4], ODD: 7}
    whole = result.xcom("search.fan_in")
    assert set(whole) == KEYS
    assert result.xcom("deploy") == [[best, 2], None]
    assert result.xcom("odd") == [[7, 4, "parquet"], None]
    values, named = result.xcom("itself")
    assert values == [whole]
    assert list(named[0]["deep"]) == [whole, whole["best_trial"]]
    assert result.xcom("weigh") == [{"weight": 2}, [[1], {"deep": [2, 3]}]]
    assert result.xcom("student.fan_in")["best_metrics"]["score"] == 12
    assert result.xcom("template") == "8 2"
    assert result.xcom("field") == whole["best_trial"]
    assert result.xcom("classic") == 2


def test_mapping_over_parts_and_a_mapped_node(ray_connection: Any, run_dag: Callable[..., Any]) -> None:
    @task
    def one(i: Any, named: Any = None) -> list[Any]:
        return [i, named]

    with DAG("output_mapped", schedule=None) as dag_object:

        @task
        def offsets() -> list[int]:
            return [100, 200]

        @task_group
        def searches(offset: int) -> RayNode:
            node = ray_node("n", python_callable=train, ray_config=CONFIG, op_kwargs={"offset": offset})
            taken.override(task_id="inside")(node.best_metrics["score"], offset)
            node >> BashOperator(task_id="text", bash_command=f"echo {node.best_metrics['score']}")
            return node

        node = searches.expand(offset=offsets())
        taken.override(task_id="outside")(node.best_metrics["score"], named=node)
        one.override(task_id="each").expand(i=node.best_metrics["score"])
        single = searches.override(group_id="single").expand(offset=[300])
        taken.override(task_id="of_one")(single.best_metrics["score"])
        one.override(task_id="layer").partial(named=single.best_trial).expand(i=[1, 2])

        alone = ray_node("alone", python_callable=train, ray_config=CONFIG)
        one.override(task_id="layers").partial(named=alone.best_config["x"]).expand(i=alone.best_config["layers"])
        one.override(task_id="pairs").expand(i=alone.best_config["layers"].zip(alone.best_config["layers"]))
        one.override(task_id="literal").expand(i=[alone.best_config["x"], 5, [alone.best_config["layers"][1]]])
        one.override(task_id="dicts").expand_kwargs([{"i": alone.best_config["x"], "named": [alone.best_trial]}])

        @task_group
        def over(layer: int) -> None:
            one.override(task_id="layer")(layer)

        over.expand(layer=alone.best_config["layers"])

    result = run_dag(dag_object)
    assert result.state == "success", result.states
    scores = [result.xcom("searches.n.fan_in", index)["best_metrics"]["score"] for index in (0, 1)]
    assert scores == [102, 202]
    assert [result.xcom("searches.inside", index) for index in (0, 1)] == [[[102, 100], None], [[202, 200], None]]
    assert [result.xcom("searches.text", index) for index in (0, 1)] == ["102", "202"]
    values, named = result.xcom("outside")
    assert values == [[102, 202]]
    assert [each["best_metrics"]["score"] for each in named] == [102, 202]
    assert [result.xcom("each", index) for index in (0, 1)] == [[102, None], [202, None]]
    assert result.xcom("of_one") == [[[302]], None], "a list of one, and not its entry"
    trial = result.xcom("single.n.fan_in", 0)["best_trial"]
    assert [result.xcom("layer", index) for index in (0, 1)] == [[1, [trial]], [2, [trial]]]
    assert [result.xcom("layers", index) for index in (0, 1)] == [[8, 2], [4, 2]]
    assert [list(result.xcom("pairs", index)[0]) for index in (0, 1)] == [[8, 8], [4, 4]]
    assert [result.xcom("literal", index)[0] for index in (0, 1, 2)] == [2, 5, [4]]
    assert result.xcom("dicts", 0) == [2, [result.xcom("alone.fan_in")["best_trial"]]]
    assert [result.xcom("over.layer", index)[0] for index in (0, 1)] == [8, 4]


def test_a_part_that_is_not_there_fails_fan_in_and_not_its_taker(
    ray_connection: Any, run_dag: Callable[..., Any], catalog_root: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with DAG("output_missing", schedule=None, default_args={"retries": 2}) as dag_object:
        node = ray_node("search", python_callable=train, ray_config=CONFIG)
        taken(node.best_metrics["scroe"], node.outputs["modle"]["uri"], node.best_config["layers"][2])
    result = run_dag(dag_object)
    assert result.states["search.tune"] == "success"
    assert result.states["search.fan_in"] == "failed", "and is not tried again"
    assert result.states["taken"] == "upstream_failed"
    record = catalog_root / "output_missing" / result.run_id / "search" / "-1" / "attempt_1" / "run.json"
    assert record.exists()
