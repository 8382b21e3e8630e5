"""The attempts of a node: which one comes next, its spec in the catalog, the launcher that runs it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode import __version__
from airflow_provider_raynode.catalog import CatalogRef
from airflow_provider_raynode.launchers import Launcher, launcher_for
from airflow_provider_raynode.spec import JobRef, NodeSpec, digest, submission_id

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.hooks.ray import RayHook

log = logging.getLogger(__name__)


def open_attempt(staged: NodeSpec, node: Catalog, hook: RayHook) -> JobRef:
    """Write the spec of the node's next attempt, or find the one that is under way, and return its job.

    A node's attempts count up in its folder. One that has ended is followed by a new one; one that never started is
    written again; one that runs is kept when it does the same work, and stopped when function, inputs or config have
    changed since.
    """
    settings = hook.resolve()
    last = last_attempt(node)
    number = last + 1
    if last and not node.exists(f"{node.prefix_uri}/attempt_{last}/result.json"):
        data = node.read_bytes(f"{node.prefix_uri}/attempt_{last}/spec.json")
        previous = NodeSpec.from_bytes(data, source=f"attempt_{last}/spec.json")
        status = None if settings.address == "local" else hook.get_job(previous.submission_id)
        if status is None:
            number = last
        elif not status.state.ended:
            if _work(previous) == _work(staged):
                return _job(previous, digest(data), hook)
            log.warning("%s runs with another function, input or config: it is stopped", previous.submission_id)
            hook.stop_job(previous.submission_id)
    return write_attempt(staged, number, node, hook)


def last_attempt(node: Catalog) -> int:
    """Return the number of the node's newest attempt, 0 where there is none."""
    number = 0
    while node.exists(f"{node.prefix_uri}/attempt_{number + 1}/spec.json"):
        number += 1
    return number


def write_attempt(spec: NodeSpec, number: int, node: Catalog, hook: RayHook) -> JobRef:
    """Write `spec` as attempt `number` and return the job that will run it."""
    numbered = as_attempt(spec, number)
    data = numbered.to_bytes()
    node.write_bytes(f"{numbered.attempt_prefix}/spec.json", data)
    return _job(numbered, digest(data), hook)


def as_attempt(spec: NodeSpec, number: int) -> NodeSpec:
    """Return the spec with the number and the submission id of another attempt."""
    run = spec.context
    identity = submission_id(run.dag_id, run.run_id, run.node_id, run.map_index, number)
    return spec.model_copy(update={"attempt": number, "submission_id": identity})


def job_of(spec: NodeSpec, hook: RayHook) -> JobRef:
    """Return the job of an attempt whose spec is in the catalog already."""
    return _job(spec, digest(spec.to_bytes()), hook)


def read_spec(job: JobRef, catalog: Catalog) -> NodeSpec:
    """Return the spec of a job, verified against the digest that came with the job."""
    return NodeSpec.from_bytes(catalog.read_bytes(job.spec_uri), sha256=job.spec_sha256, source=job.spec_uri)


def launcher_for_spec(job: JobRef, spec: NodeSpec) -> Launcher:
    """Return the launcher of `job` with what a submission of `spec` carries to Ray."""
    run = spec.context
    metadata = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "node_id": run.node_id,
        "map_index": str(run.map_index),
        "attempt": str(job.attempt),
        "airflow_provider_raynode": __version__,
    }
    runtime_env = spec.config.ray_cluster.runtime_env
    return launcher_for(
        job,
        runtime_env=None if runtime_env is None else runtime_env.model_dump(mode="json", exclude_unset=True),
        metadata=metadata,
    )


def _job(spec: NodeSpec, sha256: str, hook: RayHook) -> JobRef:
    settings = hook.resolve()
    local = settings.address == "local"
    return JobRef(
        launcher="local" if local else "jobs_api",
        submission_id=spec.submission_id,
        attempt=spec.attempt,
        ray_conn_id=None if local else hook.ray_conn_id,
        address=settings.address,
        spec_uri=f"{spec.attempt_prefix}/spec.json",
        spec_sha256=sha256,
        catalog_uri=spec.catalog_uri,
        node_prefix=spec.node_prefix,
    )


def _work(spec: NodeSpec) -> str:
    """Return a digest of what a spec computes: references count by content, not by place or time."""
    parts = {
        "function": _content(spec.function.pickle or {}) or spec.function.import_path,
        "op_kwargs": _content(spec.op_kwargs),
        "returns": [declared.model_dump() for declared in spec.returns],
        "config": spec.config.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _content(value: Any) -> Any:
    if CatalogRef.is_ref(value):
        return value["sha256"]
    if isinstance(value, Mapping):
        return {key: _content(item) for key, item in value.items()}
    return [_content(item) for item in value] if isinstance(value, list) else value
