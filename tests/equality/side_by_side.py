"""One DAG in Airflow and on the simulated Argo, and every difference between the two."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compare import differences
from oracle import Outcome, airflow_outcome
from phases import phase_states
from workflow import Argo

from airflow_provider_raynode.argo.dag_file import load_dag


@dataclass(frozen=True)
class Comparison:
    """Both outcomes, the differences, and the seconds that each took."""

    dag_id: str
    airflow: Outcome
    argo: Outcome
    found: list[str]
    airflow_s: float
    argo_s: float


def pod_environment(home: Path) -> dict[str, str]:
    """Return the environment of every pod: an Airflow home of its own, and no database."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/no.db",
        "RAY_AUTH_MODE": "disabled",
        # Pods run the same checkout as the tests.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }


def compare(
    dag_file: Path,
    argo: Argo,
    *,
    load: Callable[[], Any] | None = None,
    conf: dict[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Run a DAG file's DAG once on each side.

    :param load: returns the DAG anew; the file's only one by default.
    :param options: of `Argo.run`.
    """
    load = load or (lambda: load_dag(dag_file))
    begin = time.perf_counter()
    dag = load()
    airflow = airflow_outcome(dag, conf)
    between = time.perf_counter()
    ours = argo.run(load(), dag_file, **options)
    end = time.perf_counter()
    found = differences(airflow, ours)
    by_phases = replace(airflow, states=phase_states(dag, argo.last, ours.states))
    found += [f"by Argo's phases: {each}" for each in differences(airflow, by_phases)]
    return Comparison(dag.dag_id, airflow, ours, found, between - begin, end - between)
