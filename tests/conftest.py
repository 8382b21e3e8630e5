"""What every test shares: an Airflow home of the session's own, and a way to run a DAG for real."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before the first import of Airflow, which reads them once.
_HOME = Path(tempfile.mkdtemp(prefix="raynode-tests-"))
(_HOME / "dags").mkdir()
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(_HOME / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    # Ray must never find a cluster or a token of the machine's own.
    RAY_AUTH_MODE="disabled",
)
for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
    os.environ.pop(_name, None)
os.environ.pop("AIRFLOW_CONN_RAY_DEFAULT", None)

ROOT = Path(__file__).resolve().parent.parent


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's home."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def catalog_root() -> Path:
    """The default catalog's folder."""
    return _HOME / "raynode_catalog"


@pytest.fixture(scope="session")
def airflow_db() -> Iterator[None]:
    """An initialised metadata database."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils import db

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    yield


class DagResult:
    """A finished run: its state, and its tasks' states and XComs."""

    def __init__(self, dag_run: Any) -> None:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        self.run_id: str = dag_run.run_id
        self.state = str(dag_run.state.value)
        self.states = {
            (ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"): str(ti.state)
            for ti in dag_run.get_task_instances()
        }
        with create_session() as session:
            rows = session.query(XComModel).filter(
                XComModel.run_id == dag_run.run_id, XComModel.dag_id == dag_run.dag_id
            )
            self._rows = {(row.task_id, row.map_index, row.key): row.value for row in rows}

    def raw_xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """The value as the database holds it."""
        return self._rows[(task_id, map_index, key)]

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """The value that a downstream task gets."""
        from airflow.sdk.serde import deserialize

        return deserialize(self.raw_xcom(task_id, map_index, key))


@pytest.fixture
def run_dag(airflow_db: None) -> Callable[..., DagResult]:
    """Run a DAG object through Airflow's own test facility; `run_dag(dag, conf=None)`."""

    def run(dag: Any, conf: dict[str, Any] | None = None) -> DagResult:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        bag = DagBag(os.devnull, collect_dags=False)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return DagResult(dag.test(run_conf=conf))

    return run


@pytest.fixture
def load_dag(airflow_db: None) -> Callable[..., Any]:
    """Load the one DAG of a file as the DAG processor does; import errors fail the test with their text."""

    def load(path: Path) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(os.devnull, collect_dags=False)
        (dag,) = bag.process_file(str(path), only_if_updated=False, safe_mode=False) or [None]
        assert not bag.import_errors, bag.import_errors
        return dag

    return load
