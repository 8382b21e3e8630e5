"""Airflow and the simulated Argo side by side, and the table of what was compared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argo_simulator import ForkServer
from compare import differences
from oracle import Outcome, airflow_outcome
from phases import phase_states
from workflow import Argo

_TABLE: list[tuple[str, int, int, float, float]] = []
Compare = Callable[..., tuple[Outcome, Outcome]]


@pytest.fixture(scope="session")
def pod_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every pod: an Airflow home of its own, and no database."""
    home = tmp_path_factory.mktemp("pods-home")
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/no.db",
        "RAY_AUTH_MODE": "disabled",
        # Pods run the same checkout as the tests.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }


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

    def compare(load: Callable[[], Any], dag_file: Path, **options: Any) -> tuple[Outcome, Outcome]:
        begin = time.perf_counter()
        dag = load()
        airflow = airflow_outcome(dag, options.pop("conf", None))
        between = time.perf_counter()
        ours = argo.run(load(), dag_file, **options)
        _TABLE.append(
            (dag.dag_id, len(ours.states), len(argo.last.nodes), between - begin, time.perf_counter() - between)
        )
        found = differences(airflow, ours)
        by_phases = replace(airflow, states=phase_states(dag, argo.last))
        found += [f"by Argo's phases: {each}" for each in differences(airflow, by_phases)]
        assert not found, "\n".join([*found, argo.last.report()])
        return airflow, ours

    return compare


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
