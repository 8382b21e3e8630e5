"""Stages a node by hand, as fan-out does, for tests of the runtime and the launchers without Airflow."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.operators._function import stage_function
from airflow_provider_raynode.operators._inputs import stage_inputs
from airflow_provider_raynode.operators._resolve import as_returns
from airflow_provider_raynode.spec import (
    JobRef,
    NodeResult,
    NodeSpec,
    RunContext,
    Versions,
    digest,
    submission_id,
    unseal,
)

_runs = itertools.count()


def stage(
    root: Path,
    function: Callable[..., Any] | str,
    ray_tune: dict[str, Any] | None = None,
    *,
    ray_train: dict[str, Any] | None = None,
    op_kwargs: dict[str, Any] | None = None,
    returns: Any = (),
    resources: dict[str, Any] | None = None,
    python: str | None = None,
) -> tuple[JobRef, NodeSpec, Catalog]:
    """Write a spec below `root`; return its job, itself, and the catalog at the node's folder."""
    catalog = Catalog(str(root))
    run = RunContext(dag_id="dag", run_id=f"run_{next(_runs)}", node_id="node", params={"who": "ünïcode"})
    where = (run.dag_id, run.run_id, run.node_id, run.map_index)
    node = catalog.at(catalog.node_prefix(*where))
    staged = stage_function(function, node)
    spec = NodeSpec(
        submission_id=submission_id(*where, 1, catalog.uri),
        attempt=1,
        context=run,
        function=staged if python is None else staged.model_copy(update={"python": python}),
        op_kwargs=stage_inputs(op_kwargs or {}, node.child("inputs")),
        returns=as_returns(returns),
        config={
            **({} if ray_tune is None else {"ray_tune": {"metric": "score", "mode": "max", **ray_tune}}),
            **({} if ray_train is None else {"ray_train": ray_train}),
            "default_resources": resources or {"num_cpus": 1},
        },
        catalog_uri=catalog.uri,
        node_prefix=node.prefix_uri,
        staged_by=Versions(python=platform.python_version(), package="test"),
    )
    data = spec.to_bytes()
    node.write_bytes(f"{spec.attempt_prefix}/spec.json", data)
    job = JobRef(
        launcher="local",
        submission_id=spec.submission_id,
        attempt=1,
        address="local",
        spec_uri=f"{spec.attempt_prefix}/spec.json",
        spec_sha256=digest(data),
        catalog_uri=catalog.uri,
        node_prefix=node.prefix_uri,
    )
    return job, spec, node


def result_of(job: JobRef, node: Catalog) -> NodeResult:
    """Return the sealed result of an ended job."""
    return unseal(node.read_bytes(f"{job.attempt_prefix}/result.json"))
