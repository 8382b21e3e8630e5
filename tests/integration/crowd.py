"""Many nodes that start together on one head, some of whose drivers are killed: whose trials does each result hold?"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from staged import result_of, stage

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SpecError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.launchers import JobStatus
from airflow_provider_raynode.operators._attempt import launcher_for_spec, next_attempt
from airflow_provider_raynode.spec import JobRef, NodeProgress, NodeSpec

TRIALS = 4
_SEARCHES: dict[str, dict[str, Any]] = {
    "random": {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}, "num_samples": TRIALS},
    "optuna": {
        "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}, "num_samples": TRIALS,
        "search_algorithm": "optuna",
    },
    "grid": {"search_space": {"x": {"type": "grid_search", "values": list(range(TRIALS))}}},
}  # fmt: skip


@dataclass
class Node:
    """One node of the crowd, and what came of it."""

    number: int
    search: str
    job: JobRef
    spec: NodeSpec
    folder: Catalog
    killed: bool = False
    status: JobStatus | None = None
    restored: int = 0
    ids: frozenset[str] = frozenset()
    values: frozenset[float] = frozenset()
    problems: list[str] = field(default_factory=list)

    def ended(self) -> int:
        """How many trials have ended."""
        try:
            return NodeProgress.from_bytes(
                self.folder.read_bytes(f"{self.job.attempt_prefix}/progress.json")
            ).terminated
        except (CatalogError, SpecError):
            return 0


def meet(root: Path, address: str, *, nodes: int, killed: int, trial_s: float, timeout_s: float) -> list[Node]:
    """Start so many nodes at once, kill the drivers of some in the middle, resume them; return what came of each.

    :param address: the Jobs API of the head, which the connection `ray_default` names.
    """

    def train(x: float, node: int, trial_s: float) -> dict[str, Any]:
        import time as clock

        clock.sleep(trial_s)
        return {"score": 1000 * node + x, "node": node}

    names = list(_SEARCHES)
    crowd = []
    for number in range(nodes):
        search = names[number % len(names)]
        job, spec, folder = stage(
            root, train, {**_SEARCHES[search], "max_concurrent_trials": 1},
            op_kwargs={"node": number, "trial_s": trial_s}, resources={"num_cpus": 0.05},
        )  # fmt: skip
        job = job.model_copy(update={"launcher": "jobs_api", "ray_conn_id": "ray_default", "address": address})
        crowd.append(Node(number, search, job, spec, folder))
    for node in crowd[:: max(nodes // killed, 1)][:killed]:
        node.killed = True
    end = time.monotonic() + timeout_s
    with ThreadPoolExecutor(nodes) as pool:
        list(pool.map(start, crowd))
        list(pool.map(lambda node: kill(node, end), [node for node in crowd if node.killed]))
        list(pool.map(lambda node: finish(node, end), crowd))
    ids = Counter(trial for node in crowd for trial in node.ids)
    values = Counter(value for node in crowd if node.search != "grid" for value in node.values)
    for node in crowd:
        judge(node, ids, values)
    return crowd


def start(node: Node) -> None:
    with launcher_for_spec(node.job, node.spec, grace_s=120) as launcher:
        launcher.ensure(node.job)


def kill(node: Node, end: float) -> None:
    """Kill the driver in the middle of its search, and start the attempt that goes on."""
    until(lambda: node.ended() >= 1, end)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if node.job.spec_uri in words and "airflow_provider_raynode.runtime" in words:
            with suppress(psutil.Error):
                os.kill(process.pid, signal.SIGKILL)
    await_end(node, end)
    hook = RayHook(address=node.job.address)
    node.job, node.spec = next_attempt(node.spec, node.folder, hook, resume=True)
    start(node)


def await_end(node: Node, end: float) -> None:
    with launcher_for_spec(node.job, node.spec, grace_s=120) as launcher:

        def over() -> bool:
            node.status = launcher.status(node.job)
            return node.status.state.ended

        until(over, end)


def finish(node: Node, end: float) -> None:
    """Wait for the end, and read the result."""
    await_end(node, end)
    try:
        result = result_of(node.job, node.folder)
        if result.failure is not None:
            node.problems.append(f"{result.failure.type}: {result.failure.message}")
            return
        table = node.folder.load(result.trials)
    except (CatalogError, SpecError) as error:
        node.problems.append(f"{node.status}: {error}")
        return
    node.ids, node.values, node.restored = frozenset(table["trial_id"]), frozenset(table["config/x"]), result.restored
    if len(table) != TRIALS:
        node.problems.append(f"{len(table)} trials")
    if others := set(table["node"]) - {node.number}:
        node.problems.append(f"trials of the nodes {sorted(others)}")
    if result.best is None or result.best.metrics["score"] != max(table["score"]):
        node.problems.append(f"its best is {result.best}")


def judge(node: Node, ids: Counter[str], values: Counter[float]) -> None:
    """Add what is wrong with a node beside the others."""
    if shared := [trial for trial in node.ids if ids[trial] > 1]:
        node.problems.append(f"trial ids of other nodes: {shared}")
    if foreign := [trial for trial in node.ids if not trial.startswith(node.spec.trial_prefix)]:
        node.problems.append(f"trial ids that are not its own: {foreign}")
    if node.search != "grid" and (same := [value for value in node.values if values[value] > 1]):
        node.problems.append(f"values of other nodes: {same}")
    if node.killed and not node.restored:
        node.problems.append("nothing was restored")


def until(condition: Callable[[], bool], end: float) -> None:
    while not condition():
        assert time.monotonic() < end, "the crowd is too slow"
        time.sleep(0.5)


def seconds(temp_dir: Path, crowd: list[Node]) -> Counter[str]:
    """How many of the nodes' searches began in each second, by the folders that Tune keeps on the head."""
    names = {node.spec.experiment_name for node in crowd}
    folders = (temp_dir / "session_latest" / "artifacts").glob("*/*")
    return Counter(folder.parent.name for folder in folders if folder.name in names)
