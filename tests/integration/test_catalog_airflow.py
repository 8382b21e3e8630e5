"""The catalog in real Airflow tasks: folders, references in XCom, the configured catalog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_raynode import catalog

pytestmark = pytest.mark.airflow


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight


def test_tasks_groups_and_mapped_tasks(run_dag: Callable[..., Any], catalog_root: Path) -> None:
    with DAG("catalog_tasks", schedule=None) as dag_object:

        @task
        def make() -> dict[str, Any]:
            return catalog.put(Model(3), "model")

        @task_group
        def group(ref: Any) -> Any:
            @task
            def use(ref: dict[str, Any]) -> int:
                assert catalog.get_ref("model", task_id="make") == ref
                return int(catalog.load(ref).weight)

            return use(ref)

        @task
        def mapped(number: int) -> dict[str, Any]:
            return catalog.put([number], "numbers")

        @task
        def collect(refs: Any) -> list[Any]:
            return [catalog.load(ref) for ref in refs[:]]

        group(make())
        collect(mapped.expand(number=[5, 6]))

    result = run_dag(dag_object)
    assert result.state == "success", result.states
    raw = result.raw_xcom("make")
    assert set(raw) == {"uri", "kind", "sha256", "size", "created"}, "the reference is plain JSON in the database"
    assert result.xcom("group.use") == 3
    assert result.xcom("collect") == [[5], [6]]
    run_folder = catalog_root / "catalog_tasks" / result.run_id
    found = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*.*") if ".ref." not in path.name}
    assert found == {"make/-1/model.pkl", "mapped/0/numbers.json", "mapped/1/numbers.json"}


def test_the_configured_catalog_and_trust(
    run_dag: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(tmp_path / "configured"))
    foreign = catalog.Catalog(str(tmp_path / "foreign")).put((1, 2))

    def dag_of(dag_id: str) -> DAG:
        with DAG(dag_id, schedule=None) as dag_object:

            @task
            def put() -> dict[str, Any]:
                return catalog.put([1])

            @task
            def load() -> list[int]:
                return list(catalog.load(foreign))

            put() >> load()
        return dag_object

    result = run_dag(dag_of("catalog_untrusted"))
    assert result.xcom("put")["uri"].startswith(str(tmp_path / "configured"))
    assert result.states["load"] == "failed"
    assert "trusted_catalogs" in capfd.readouterr().out
    monkeypatch.setenv("AIRFLOW__RAYNODE__TRUSTED_CATALOGS", f"/nowhere, {tmp_path / 'foreign'}")
    assert run_dag(dag_of("catalog_trusted")).xcom("load") == [1, 2]
