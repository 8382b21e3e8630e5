"""The composite node on the real Airflow: with the embedded Ray, and, where the place does not matter, on the head."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from airflow.sdk import DAG, Param, dag, task, task_group

from airflow_provider_raynode import RayNode, catalog, context, metric, pickled, ray_node, report
from airflow_provider_raynode import json as json_return
from airflow_provider_raynode.exceptions import BindingError, ConfigError

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}},
    },
    "default_resources": {"num_cpus": 0.5},
}


@pytest.fixture
def embedded() -> Any:
    """The node runs on the embedded Ray, and afterwards no process of it is alive."""
    before = {process.pid for process in psutil.process_iter()}
    yield
    left = [
        process.info
        for process in psutil.process_iter(["pid", "name", "cmdline", "environ"])
        # A process that this session started, directly or not, has its Airflow home.
        if (process.info.pop("environ") or {}).get("AIRFLOW_HOME") == os.environ["AIRFLOW_HOME"]
        and process.pid not in before
    ]
    assert not left


class Model:
    """A class of this file: what a DAG file's own class is to a worker."""

    def __init__(self, weight: float) -> None:
        self.weight = weight


def test_a_search_from_end_to_end(embedded: None, run_dag: Callable[..., Any], catalog_root: Path) -> None:
    def train(data: dict[str, Any], x: int, offset: float = 0.5) -> dict[str, Any]:
        print(f"    indented: x={x} ünïcode")
        run = context()
        run.logger.info("run %s of %s", run.run_id, run.dag_id)
        return {
            "score": float(data["array"].sum()) * x + offset,
            "note": "short",
            "model": Model(x),
            "report": {"params": run.params, "history": list(range(100))},
            "nan": float("nan"),
        }

    with DAG("end_to_end", schedule=None, params={"who": Param("me", type="string")}) as dag_object:

        @task
        def make() -> dict[str, Any]:
            return catalog.put({"array": np.ones(4)})

        @task
        def use(tuned: dict[str, Any]) -> list[Any]:
            model = catalog.load(tuned["outputs"]["model"])
            history = catalog.load(tuned["outputs"]["report"])
            trials = catalog.load(tuned["trials"])
            record = catalog.load(tuned["run_record"])
            return [model.weight, history["params"], sorted(trials["config/x"]), record["outcome"]]

        node = ray_node(
            "search",
            python_callable=train,
            ray_config=CONFIG,
            op_kwargs={"data": make()},
            returns=[pickled("model"), json_return("report"), metric("score"), "note"],
        )
        use(node.output)

    result = run_dag(dag_object, conf={"who": "you"})
    assert result.state == "success", result.states
    tuned = result.xcom("search.fan_in")
    assert set(tuned) == {
        "best_trial",
        "best_config",
        "best_metrics",
        "completion",
        "outputs",
        "run_record",
        "steps",
        "trials",
    }
    assert tuned["best_config"] == {"x": 3}
    assert tuned["best_metrics"]["score"] == 12.5
    assert tuned["best_metrics"]["note"] == "short"
    assert tuned["best_metrics"]["nan"] is None
    assert set(tuned["outputs"]) == {"model", "report"}
    assert set(tuned["outputs"]["model"]) == {"uri", "kind", "sha256", "size", "created"}
    assert result.xcom("use") == [3, {"who": "you"}, [1, 2, 3], "succeeded"]
    folder = catalog_root / "end_to_end" / result.run_id / "search" / "-1"
    assert {"spec.json", "result.json", "progress.json", "run.json"} <= {
        path.name for path in (folder / "attempt_1").iterdir()
    }
    for task_id in ("search.fan_out", "search.tune", "search.fan_in"):
        assert len(json.dumps(result.xcom(task_id))) < 4096


def test_a_large_input_is_never_in_xcom_and_read_only_once(
    ray_connection: Any, run_dag: Callable[..., Any], catalog_root: Path
) -> None:
    def train(data: Any, x: int) -> dict[str, float]:
        return {"score": float(data[:, 0].sum()) + x, "shared": float(not data.flags.owndata)}

    with DAG("large_input", schedule=None) as dag_object:

        @task
        def make() -> dict[str, Any]:
            return catalog.put(np.ones((100, 125_000)))  # 100 MB

        ray_node("search", python_callable=train, ray_config=CONFIG, op_kwargs={"data": make()})

    result = run_dag(dag_object)
    assert result.state == "success", result.states
    tuned = result.xcom("search.fan_in")
    assert tuned["best_metrics"]["score"] == 103.0
    assert tuned["best_metrics"]["shared"] == 1.0, "a trial got its own copy"
    sizes = [path.stat().st_size for path in (catalog_root / "large_input").rglob("*") if path.is_file()]
    assert sum(size > 50_000_000 for size in sizes) == 1, "the input was staged a second time"
    assert len(json.dumps(tuned)) < 4096


def test_steps_early_stopping_and_checkpoints(ray_connection: Any, run_dag: Callable[..., Any]) -> None:
    def train(x: int) -> None:
        for step in range(1, 21):
            report({"score": float(x * step)}, checkpoint={"step": step, "x": x})

    config = {
        "ray_tune": {
            "metric": "score",
            "mode": "max",
            "num_samples": 1,
            "max_concurrent_trials": 1,
            "scheduler": {"type": "ASHAScheduler", "max_t": 20, "grace_period": 2, "reduction_factor": 2},
            "search_space": {"x": {"type": "grid_search", "values": [4, 3, 2, 1]}},
        }
    }
    with DAG("steps", schedule=None) as dag_object:
        node = ray_node("search", python_callable=train, ray_config=config)

        @task
        def use(tuned: dict[str, Any]) -> list[Any]:
            trials = catalog.load(tuned["trials"])
            return [catalog.load(tuned["outputs"]["checkpoint"]), sorted(trials["training_iteration"])]

        use(node.output)

    result = run_dag(dag_object)
    assert result.state == "success", result.states
    checkpoint, iterations = result.xcom("use")
    assert checkpoint == {"step": 20, "x": 4}
    assert iterations[-1] == 20
    assert iterations[0] < 20, "no trial was stopped early"


def test_nodes_in_a_mapped_group_are_apart(embedded: None, run_dag: Callable[..., Any], catalog_root: Path) -> None:
    def train(name: str, x: int) -> dict[str, Any]:
        run = context()
        assert run.map_variables == {"name": name}
        return {"score": x * len(name), "index": run.map_index, "named": name}

    @dag(schedule=None)
    def mapped_nodes() -> None:
        @task_group
        def one(name: str) -> Any:
            return ray_node("search", python_callable=train, ray_config=CONFIG, op_kwargs={"name": name}).output

        @task
        def collect(results: Any) -> list[Any]:
            return [[each["best_metrics"]["named"], each["best_metrics"]["score"]] for each in results[:]]

        collect(one.expand(name=["a", "bcd"]))

    dag_object = mapped_nodes()
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    assert result.xcom("collect") == [["a", 3], ["bcd", 9]]
    node_folder = catalog_root / "mapped_nodes" / result.run_id / "one.search"
    assert sorted(path.name for path in node_folder.iterdir()) == ["0", "1"]


def test_a_node_inside_groups_with_dependencies_and_default_args(
    ray_connection: Any, run_dag: Callable[..., Any]
) -> None:
    def train(x: int, upstream: list[int]) -> dict[str, int]:
        return {"score": x + sum(upstream)}

    with DAG("grouped", schedule=None, default_args={"retries": 0}) as dag_object:

        @task
        def numbers() -> list[int]:
            return [10, 20]

        @task
        def before() -> None: ...

        @task
        def after() -> None: ...

        @task_group
        def outer() -> Any:
            return ray_node(
                "search",
                python_callable=train,
                ray_config=CONFIG,
                op_kwargs={"upstream": numbers()},
                default_args={"retries": 2, "queue": "gpu"},
            )

        node = outer()
        before() >> node >> after()

    assert isinstance(node, RayNode)
    fan_out, tune, fan_in = (dag_object.get_task(f"outer.search.{name}") for name in ("fan_out", "tune", "fan_in"))
    assert {each.retries for each in (fan_out, tune, fan_in)} == {2}
    assert tune.queue == "gpu"
    assert fan_out.upstream_task_ids == {"outer.numbers", "before"}
    assert (tune.upstream_task_ids, fan_in.upstream_task_ids) == ({fan_out.task_id}, {tune.task_id})
    assert fan_in.downstream_task_ids == {"after"}
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    assert result.xcom("outer.search.fan_in")["best_metrics"]["score"] == 33


def test_every_trial_failing_fails_the_node_with_the_users_traceback(
    ray_connection: Any,
    run_dag: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def train(x: int) -> dict[str, int]:
        raise ValueError(f"no luck with {x}")

    with DAG("all_fail", schedule=None) as dag_object:
        ray_node("search", python_callable=train, ray_config=CONFIG)
    result = run_dag(dag_object)
    assert result.state == "failed"
    assert result.states["search.tune"] == "failed"
    assert result.states["search.fan_in"] == "upstream_failed"
    output = capfd.readouterr().out
    assert "no luck with 1" in output
    assert "in train" in output


def test_some_trials_failing_leaves_a_result(ray_connection: Any, run_dag: Callable[..., Any]) -> None:
    def train(x: int) -> dict[str, int]:
        if x == 3:
            raise ValueError("three is out")
        return {"score": x}

    with DAG("some_fail", schedule=None) as dag_object:
        node = ray_node("search", python_callable=train, ray_config=CONFIG)

        @task
        def use(tuned: dict[str, Any]) -> dict[str, Any]:
            return catalog.load(tuned["run_record"])

        use(node.output)
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    assert result.xcom("search.fan_in")["best_config"] == {"x": 2}
    record = result.xcom("use")
    assert record["trial_states"] == {"TERMINATED": 2, "ERROR": 1}
    assert record["warnings"]


@pytest.mark.parametrize(
    ("function", "op_kwargs", "message"),
    [
        (lambda y: {"score": y}, {}, "x"),
        (lambda x, missing: {"score": x}, {}, "missing"),
        (lambda x: {"score": x}, {"x": 1}, "x"),
        (lambda x: {"score": x}, {"extra": 1}, "extra"),
    ],
    ids=["no such argument", "missing", "clash", "unknown op_kwarg"],
)
def test_arguments_that_do_not_fit_are_an_import_error(function: Any, op_kwargs: dict, message: str) -> None:
    with DAG("arguments", schedule=None), pytest.raises(BindingError, match=message):
        ray_node("search", python_callable=function, ray_config=CONFIG, op_kwargs=op_kwargs)


def test_a_bad_config_is_an_import_error_of_the_dag(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "tune.yaml").write_text("ray_tune: {metric: m, mode: max, num_sample: 3, search_space: {}}\n")
    (tmp_path / "bad.py").write_text(
        "from airflow.sdk import dag\nfrom airflow_provider_raynode import ray_node\n"
        "@dag(schedule=None)\ndef bad():\n    ray_node('n', python_callable=lambda: 1, ray_config='tune.yaml')\nbad()\n"
    )
    bag = DagBag("/dev/null", collect_dags=False)
    assert bag.process_file(str(tmp_path / "bad.py"), only_if_updated=False, safe_mode=False) == []
    (error,) = bag.import_errors.values()
    assert "tune.yaml" in error
    assert "num_sample" in error
    assert "num_samples" in error


def test_a_missing_config_file_names_the_places(tmp_path: Path) -> None:
    with (
        DAG("missing_config", schedule=None),
        pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist; looked"),
    ):
        ray_node("search", python_callable=lambda x: x, ray_config="nowhere.yaml")


def test_a_templated_config_path_is_read_at_run_time(
    ray_connection: Any, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    import yaml

    (tmp_path / "chosen.yaml").write_text(yaml.safe_dump(CONFIG))
    with DAG("templated", schedule=None, params={"config": "other"}) as dag_object:
        ray_node(
            "search",
            python_callable=lambda x: {"score": x},
            ray_config=str(tmp_path / "{{ params.config }}.yaml"),
        )
    assert run_dag(dag_object, conf={"config": "chosen"}).state == "success"
