"""The attempts of a node: which one comes next, what it goes on from, its spec in the catalog, its launcher.

An attempt is a folder in the node's: `attempt_1`, `attempt_2`, … with its spec, and when it has ended its result. That
folder is written before anything is submitted, and its submission id is a function of its number: whatever is killed,
what comes after finds the same job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from airflow_provider_raynode import __version__
from airflow_provider_raynode.exceptions import CatalogError, ConfigError, SpecError
from airflow_provider_raynode.launchers import JobState, Launcher, launcher_for
from airflow_provider_raynode.spec import (
    ATTACHED_FILE,
    STOP_FILE,
    TAKEN_FILE,
    JobRef,
    NodeResult,
    NodeSpec,
    digest,
    submission_id,
    unseal,
)
from airflow_provider_raynode.work import changes

if TYPE_CHECKING:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.hooks.ray import RayHook

log = logging.getLogger(__name__)

OnChange = Literal["refuse", "restart"]


def open_attempt(
    staged: NodeSpec, node: Catalog, hook: RayHook, *, own: int | None = None, on_change: OnChange = "refuse"
) -> JobRef:
    """Write the spec of the node's next attempt, or find the one that is under way, and return its job.

    One that never started is written again; one that runs is kept when it does the same work, and stopped when it does
    not; one that failed is followed by one that goes on with its work; one whose result was taken by one that starts
    anew.

    :param own: number of the attempt that this very task had opened when it was killed: it is kept, whatever its state.
    :param on_change: what to do when failed work cannot be gone on with because it has changed.
    :raises ConfigError: the work has changed, and `on_change` says refuse.
    """
    last = last_attempt(node)
    if last == 0:
        return write_attempt(staged, 1, node, hook)
    previous = spec_of_attempt(node, last)
    changed = changes(previous, staged)
    result = result_of(previous, node)
    if own == last and not changed and is_known(previous, hook):
        return job_of(previous, hook)
    if result is not None and result.state == "SUCCEEDED":
        return write_attempt(staged, last + 1, node, hook)
    if result is None and _launcher_at(hook) == "jobs_api":
        status = hook.get_job(previous.submission_id)
        if status is not None and not status.state.ended:
            if not changed and not is_stopping(previous, node):
                return job_of(previous, hook)
            hook.stop_job(previous.submission_id)
            if changed:
                what = ", ".join(changed)
                log.warning("Attempt %d ran, and %s changed since: it is stopped, the work starts anew", last, what)
                return write_attempt(staged, last + 1, node, hook)
        elif status is None and previous.search_of is None and not _is_worth_a_number(previous, node):
            # It never started: nothing of it is worth a number.
            return write_attempt(staged, last, node, hook)
    elif result is None and not _is_worth_a_number(previous, node):
        return write_attempt(staged, last, node, hook)
    return write_attempt(_resumed(staged, previous, node, changed, on_change), last + 1, node, hook)


def open_own_attempt(staged: NodeSpec, node: Catalog, hook: RayHook) -> JobRef:
    """Open the next attempt of a task that stages, runs and collects by itself; see `open_attempt`.

    A success that the task was killed too early to return is kept: the next try returns it.
    """
    last = last_attempt(node)
    own = None
    if last:
        previous = spec_of_attempt(node, last)
        if _is_lost(previous, node, hook):
            # Ray does not take the id of a job again that it has deleted.
            return write_attempt(staged, last + 1, node, hook)
        if not is_taken(previous, node) and not is_stopping(previous, node) and _has_succeeded(previous, node, hook):
            own = last
    return open_attempt(staged, node, hook, own=own, on_change="restart")


def _is_lost(spec: NodeSpec, node: Catalog, hook: RayHook) -> bool:
    """Whether the cluster has forgotten a job that was submitted and has left no result."""
    submitted = node.exists(f"{spec.attempt_prefix}/{ATTACHED_FILE}")
    return submitted and result_of(spec, node) is None and not is_known(spec, hook)


def _has_succeeded(spec: NodeSpec, node: Catalog, hook: RayHook) -> bool:
    result = result_of(spec, node)
    if result is not None:
        return result.state == "SUCCEEDED"
    if spec.entrypoint is None or spec.entrypoint.by_driver or _launcher_at(hook) != "jobs_api":
        return False
    status = hook.get_job(spec.submission_id)
    return status is not None and status.state is JobState.SUCCEEDED


def next_attempt(spec: NodeSpec, node: Catalog, hook: RayHook, *, resume: bool) -> tuple[JobRef, NodeSpec]:
    """Write the attempt that follows `spec`'s, going on with its work or anew, and return its job and spec."""
    search = (spec.search_of or spec.attempt) if resume and _has_begun(spec, node) else None
    following = as_attempt(spec.model_copy(update={"search_of": search}), spec.attempt + 1)
    return write_attempt(following, following.attempt, node, hook), following


def _resumed(staged: NodeSpec, previous: NodeSpec, node: Catalog, changed: list[str], on_change: OnChange) -> NodeSpec:
    """Return `staged` as one that goes on with the work of `previous`, where there is one to go on with."""
    if not _has_begun(previous, node):
        return staged
    if not changed:
        return staged.model_copy(update={"search_of": previous.search_of or previous.attempt})
    what = ", ".join(changed)
    if on_change == "refuse":
        raise ConfigError(
            f"attempt {previous.attempt} of this node failed, and its {previous.config.work} cannot be gone on with: "
            f"{what} changed since. Put that back as it was, set on_change='restart' on the node to start its "
            f"{staged.config.work} anew, or trigger a new DAG run"
        )
    log.warning("%s changed since attempt %d: the %s starts anew", what, previous.attempt, staged.config.work)
    return staged


def last_attempt(node: Catalog) -> int:
    """Return the number of the node's newest attempt, 0 where there is none."""
    number = 0
    while node.exists(f"{node.prefix_uri}/attempt_{number + 1}/spec.json"):
        number += 1
    return number


def spec_of_attempt(node: Catalog, number: int) -> NodeSpec:
    """Return the spec of an attempt, as it is in the node's folder."""
    uri = f"{node.prefix_uri}/attempt_{number}/spec.json"
    return NodeSpec.from_bytes(node.read_bytes(uri), source=uri)


def result_of(spec: NodeSpec, node: Catalog) -> NodeResult | None:
    """Return the sealed result of an attempt, None where it has none that is whole and its own."""
    uri = f"{spec.attempt_prefix}/result.json"
    try:
        result = unseal(node.read_bytes(uri), source=uri)
    except (CatalogError, SpecError):
        return None
    return result if result.submission_id == spec.submission_id else None


def is_known(spec: NodeSpec, hook: RayHook) -> bool:
    """Whether the cluster knows the job of an attempt, in whatever state; without a Jobs API nothing is known."""
    return _launcher_at(hook) != "jobs_api" or hook.get_job(spec.submission_id) is not None


def is_stopping(spec: NodeSpec, node: Catalog) -> bool:
    """Whether Airflow has asked for the end of an attempt."""
    return node.exists(f"{spec.attempt_prefix}/{STOP_FILE}")


def is_taken(spec: NodeSpec, node: Catalog) -> bool:
    """Whether an execution task has returned the result of an attempt: it is not returned a second time."""
    return node.exists(f"{spec.attempt_prefix}/{TAKEN_FILE}")


def mark(job: JobRef, node: Catalog, name: str) -> None:
    """Write one of the marks of an attempt (attached, stop, taken) into its folder."""
    node.write_bytes(f"{job.attempt_prefix}/{name}", b"{}")


def _has_begun(spec: NodeSpec, node: Catalog) -> bool:
    """Whether there is something of the attempt's work to go on with."""
    return node.exists(spec.state_uri)


def _is_worth_a_number(spec: NodeSpec, node: Catalog) -> bool:
    """Whether an attempt stays in the history: a function that may have been called leaves no state."""
    if spec.config.work == "function" and node.exists(f"{spec.attempt_prefix}/progress.json"):
        return True
    return _has_begun(spec, node)


def write_attempt(spec: NodeSpec, number: int, node: Catalog, hook: RayHook) -> JobRef:
    """Write `spec` as attempt `number` and return the job that will run it."""
    numbered = as_attempt(spec, number)
    data = numbered.to_bytes()
    node.write_bytes(f"{numbered.attempt_prefix}/spec.json", data)
    return _job(numbered, digest(data), hook)


def as_attempt(spec: NodeSpec, number: int) -> NodeSpec:
    """Return the spec with the number and the submission id of another attempt."""
    run = spec.context
    identity = submission_id(run.dag_id, run.run_id, run.node_id, run.map_index, number, spec.catalog_uri)
    return spec.model_copy(update={"attempt": number, "submission_id": identity})


def job_of(spec: NodeSpec, hook: RayHook) -> JobRef:
    """Return the job of an attempt whose spec is in the catalog already."""
    return _job(spec, digest(spec.to_bytes()), hook)


def read_spec(job: JobRef, catalog: Catalog) -> NodeSpec:
    """Return the spec of a job, verified against the digest that came with the job."""
    return NodeSpec.from_bytes(catalog.read_bytes(job.spec_uri), sha256=job.spec_sha256, source=job.spec_uri)


def launcher_for_spec(
    job: JobRef,
    spec: NodeSpec,
    env_vars: Callable[[], Mapping[str, str]] | None = None,
    *,
    grace_s: float = 60.0,
) -> Launcher:
    """Return the launcher of `job` with what a submission of `spec` carries to Ray.

    :param env_vars: gives the environment variables of a job that it starts, over those of the config; called only
        then.
    :param grace_s: how long in seconds a cluster may be silent.
    """
    run = spec.context
    metadata = {
        **(spec.entrypoint.metadata if spec.entrypoint is not None else {}),
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
        env_vars=env_vars,
        grace_s=grace_s,
        command=spec.entrypoint,
    )


def _job(spec: NodeSpec, sha256: str, hook: RayHook) -> JobRef:
    launcher = _launcher_at(hook)
    settings = hook.resolve()
    # The embedded Ray takes its default runtime environment from the connection, where there is one.
    connected = launcher == "jobs_api" or (launcher == "local" and settings.is_defined)
    return JobRef(
        launcher=launcher,
        submission_id=spec.submission_id,
        attempt=spec.attempt,
        ray_conn_id=hook.ray_conn_id if connected else None,
        address=settings.address,
        spec_uri=f"{spec.attempt_prefix}/spec.json",
        spec_sha256=sha256,
        catalog_uri=spec.catalog_uri,
        node_prefix=spec.node_prefix,
    )


def _launcher_at(hook: RayHook) -> Literal["jobs_api", "local", "rayjob"]:
    """Return what runs the jobs at a hook's address."""
    address = hook.resolve().address
    return "local" if address == "local" else "rayjob" if address == "rayjob" else "jobs_api"
