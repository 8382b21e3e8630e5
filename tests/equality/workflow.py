"""What Argo makes of a DAG: the export, walked by the simulator, read back from Argo's phases and the catalog."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argo_simulator import ForkServer, Result, simulate
from oracle import Outcome

from airflow_provider_raynode.argo.export import export_dag
from airflow_provider_raynode.argo.records import RunStore
from airflow_provider_raynode.argo.states import RunStates
from airflow_provider_raynode.catalog import Catalog

_PHASES = {"Succeeded": "success", "Failed": "failed", "Error": "failed"}


@dataclass
class Argo:
    """Runs DAGs on the simulated Argo, with a catalog that all pods share.

    :param folder: for the catalog and the pods.
    :param server: forks the pods; None starts a fresh interpreter for each.
    :param order: seed of the order in which waiting pods get a slot: another at each run of the tests.
    """

    folder: Path
    env: dict[str, str]
    server: ForkServer | None = None
    order: int | None = field(default_factory=lambda: random.randrange(1_000_000))
    runs: int = 0
    last: Result | None = field(default=None, init=False)

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog"

    def run(self, dag: Any, dag_file: Path, **options: Any) -> Outcome:
        """Export a live DAG, run it once, and return what became of it."""
        self.runs += 1
        settings = {
            "dag_source": {"image": {"path": str(dag_file.parent)}},
            "env": {**self.env, "AIRFLOW__RAYNODE__CATALOG": str(self.catalog)},
            **options.pop("settings", {}),
        }
        text = export_dag(dag, dag_file, settings=settings, ray=options.pop("ray", "submit")).text
        workdir = name = f"{dag.dag_id.lower().replace('_', '-')[:40]}-{self.runs}"
        if (again := options.get("retry_of")) is not None:
            name = again.name
        result = simulate(
            text,
            workdir=self.folder / "pods" / workdir,
            name=name,
            uid="1234",
            fork_server=options.pop("server", self.server),
            order=self.order,
            **options,
        )
        self.last = result
        assert not result.unresolved, f"tags that nobody replaced: {result.unresolved}"
        return read_outcome(dag, RunStore(Catalog(str(self.catalog)), dag.dag_id, f"{name}.1234"), result)


def read_outcome(dag: Any, store: RunStore, result: Result) -> Outcome:
    """Return what a finished workflow left: states as the pods and the rules have them, XComs as they lie there."""
    states = RunStates(dag, store)
    found = {(each, index): state for each in dag.task_ids for index, state in states.instances(each).items()}
    records = {(task_id, index): store.record(task_id, index) for task_id, index in found}
    xcoms = {
        (task_id, index, key): store.xcom(task_id, index, key)[1]
        for task_id, index in found
        for key in store.xcom_keys(task_id, index)
    }
    return Outcome(
        state=_PHASES[result.phase],
        states=found,
        tries={key: record.try_number for key, record in records.items() if record is not None},
        xcoms=xcoms,
    )
