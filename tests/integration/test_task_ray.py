"""`@task.ray` on the session's Ray head and on the embedded Ray: an ordinary task of Airflow's."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_raynode import catalog, context, pickled
from airflow_provider_raynode.catalog import Catalog

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

SMALL: dict[str, Any] = {"num_cpus": 0.25, "poll_interval_s": 0.3}


def test_arguments_and_values_as_taskflow_has_them(
    run_dag: Callable[..., Any], ray_connection: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    factor = 3

    @task
    def one() -> int:
        return 1

    @task.ray(**SMALL)
    def everything(first, /, second, *rest, third=3, ds, params, logical_date=None, **more):  # type: ignore[no-untyped-def]
        print("    a line of the function")
        return {
            "sum": first + second + sum(rest) + third,
            "more": more["word"],
            "ds": ds,
            "params": params,
            "year": logical_date.year,
            "run": more["run_id"] == context().run_id,
            "node": context().node_id,
        }

    @task.ray(**SMALL)
    def array(size: int) -> Any:
        return np.arange(size) * factor

    @task.ray(**SMALL)
    def total(values: Any) -> int:
        return int(values.sum())

    @task
    def load(reference: dict[str, Any]) -> int:
        return int(catalog.load(reference).sum())

    with DAG("taskflow", schedule=None, params={"depth": 4}, start_date=None) as dag:
        made = array(10)
        total(made)
        load(made)
        everything(one(), 2, 30, 400, word="{{ ds_nodash }}")
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.state == "success", (result.states, output[-4000:])
    pushed = result.xcom("everything")
    assert pushed["sum"] == 436
    assert pushed["more"] == pushed["ds"].replace("-", "")
    assert (pushed["params"], pushed["run"], pushed["node"]) == ({"depth": 4}, True, "everything")
    assert output.count("    a line of the function") == 1
    assert catalog.CatalogRef.is_ref(result.xcom("array"))
    assert result.xcom("total") == result.xcom("load") == 135
    assert all(len(json.dumps(result.xcom(name))) < 4096 for name in ("array", "everything"))


def test_mapped_in_a_group_with_multiple_outputs(
    run_dag: Callable[..., Any], ray_connection: Any, catalog_root: Path
) -> None:
    @task.ray(**SMALL)
    def split(text: str, sep: str) -> dict[str, Any]:
        first, _, rest = text.partition(sep)
        return {"first": first, "rest": np.array([rest])}

    @task.ray(returns=[pickled("model")], multiple_outputs=False, **SMALL)
    def fit(value: int) -> dict[str, Any]:
        return {"score": value * 2.0, "model": "m" * value}

    with DAG("mapped_tasks", schedule=None) as dag:

        @task_group
        def each(value: int) -> None:
            fit(value)

        split.partial(sep="-").expand(text=["a-b", "c-d"])
        each.expand(value=[2])
    result = run_dag(dag)
    assert result.state == "success", result.states
    assert [result.xcom("split", index, "first") for index in (0, 1)] == ["a", "c"]
    store = Catalog(str(catalog_root))
    assert [store.load(result.xcom("split", index, "rest"))[0] for index in (0, 1)] == ["b", "d"]
    fitted = result.xcom("each.fit", 0)
    assert fitted["score"] == 4.0
    assert store.load(fitted["model"]) == "mm"


def test_a_failure_has_the_functions_own_traceback_and_a_retry_calls_it_anew(
    run_dag: Callable[..., Any], ray_connection: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @task.ray(retries=1, retry_delay=timedelta(0), **SMALL)
    def second_time(folder: str) -> int:
        marker = Path(folder) / "tried"
        if not marker.exists():
            marker.touch()
            raise KeyError("the first time fails")
        return context().attempt

    @task.ray(**SMALL)
    def exits() -> None:
        raise SystemExit(3)

    @task(trigger_rule="all_done")
    def after(value: int) -> int:
        return value

    with DAG("task_fails", schedule=None) as dag:
        exits() >> after(second_time(str(tmp_path)))
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.states == {"second_time": "success", "exits": "failed", "after": "success"}, output[-4000:]
    assert result.xcom("after") == 2
    assert "the first time fails" in output
    assert "in second_time" in output


def test_on_the_embedded_ray_with_secrets_and_a_map(
    run_dag: Callable[..., Any],
    catalog_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_API_KEY", "open-sesame-72")

    @task.ray(secrets=["var:api_key"])
    def secret() -> int:
        print("the key is", context().variable("api_key"))
        return len(context().variable("api_key"))

    @task.ray(ray_config={"ray_map": {"over": "text"}})
    def length(text: str, plus: int) -> int:
        return len(text) + plus

    with DAG("task_embedded", schedule=None) as dag:
        secret()
        length(["a", "bb", "ccc"], plus=10)
    result = run_dag(dag)
    output = capfd.readouterr().out
    assert result.state == "success", (result.states, output[-4000:])
    assert result.xcom("secret") == 14
    assert "the key is ***" in output
    assert "open-sesame-72" not in output
    assert Catalog(str(catalog_root)).load(result.xcom("length")["results"]) == [11, 12, 13]
