"""Airflow and the simulated Argo side by side, and the table of what was compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argo_simulator import ForkServer
from oracle import Outcome
from side_by_side import compare, pod_environment
from workflow import Argo

_TABLE: list[tuple[str, int, int, float, float]] = []
Compare = Callable[..., tuple[Outcome, Outcome]]


@pytest.fixture(scope="session")
def pod_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every pod: an Airflow home of its own, and no database."""
    return pod_environment(tmp_path_factory.mktemp("pods-home"))


@pytest.fixture(scope="session")
def fork_server(pod_env: dict[str, str]) -> Iterator[ForkServer]:
    """Forks pods from a process that has imported Airflow: 0.1 s each in place of 2 to 4 s."""
    with ForkServer(env=pod_env) as server:
        yield server


@pytest.fixture
def argo(tmp_path: Path, pod_env: dict[str, str], fork_server: ForkServer) -> Argo:
    """The simulated Argo with a catalog for this test."""
    return Argo(tmp_path, pod_env, fork_server)


@pytest.fixture
def equal(airflow_db: None, argo: Argo) -> Compare:
    """Run a DAG file's DAG in Airflow and on Argo, and fail with each difference; `equal(load, dag_file)`."""

    def run(load: Callable[[], Any], dag_file: Path, **options: Any) -> tuple[Outcome, Outcome]:
        both = compare(dag_file, argo, load=load, **options)
        _TABLE.append((both.dag_id, len(both.argo.states), len(argo.last.nodes), both.airflow_s, both.argo_s))
        assert not both.found, "\n".join([*both.found, f"order of slots: seed {argo.order}", argo.last.report()])
        return both.airflow, both.argo

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was compared: each row is a DAG whose states, values and tries were equal, or a failed test."""
    if not _TABLE:
        return
    path = Path(os.environ["AIRFLOW_HOME"]).parent / "raynode-equality.md"
    lines = ["| DAG | task instances | nodes of Argo | dag.test s | Argo s |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {tasks} | {nodes} | {one:.1f} | {two:.1f} |" for name, tasks, nodes, one, two in _TABLE]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    instances = sum(row[1] for row in _TABLE)
    terminalreporter.write_line(f"equality: {len(_TABLE)} DAGs, {instances} task instances compared; table: {path}")
