"""A search that has ended removes its own experiment and those before it, never that of a later attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.collect import _remove_experiments
from airflow_provider_raynode.spec import FunctionRef, NodeSpec, RunContext, Versions


@pytest.mark.parametrize(
    ("attempt", "left"), [(1, ["attempt_2-b", "attempt_10-c"]), (2, ["attempt_10-c"]), (10, None), (11, None)]
)
def test_what_is_left(tmp_path: Path, attempt: int, left: list[str] | None) -> None:
    spec = NodeSpec(
        submission_id="raynode-a1",
        attempt=attempt,
        context=RunContext(dag_id="dag", run_id="run", node_id="node"),
        function=FunctionRef(name="train", import_path="a:b", python="3.11.7"),
        config={"ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": 1}}},
        catalog_uri=str(tmp_path),
        node_prefix=f"{tmp_path}/node",
        staged_by=Versions(python="3.11.7", package="test"),
    )
    experiments = Path(spec.experiment_prefix)
    for name in ("attempt_1-a", "attempt_2-b", "attempt_10-c"):
        (experiments / name).mkdir(parents=True)
        (experiments / name / "tuner.pkl").touch()
    _remove_experiments(spec, Catalog(str(tmp_path)).at(spec.attempt_prefix))
    found = sorted(path.name for path in experiments.iterdir()) if experiments.exists() else None
    assert found == (None if left is None else sorted(left))
