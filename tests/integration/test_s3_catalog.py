"""A catalog on S3 (moto's server speaks it here): the store, an Airflow connection, and a whole node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG, task

from airflow_provider_raynode import catalog, pickled, ray_node, report
from airflow_provider_raynode.argo.earlier_runs import EarlierRuns, SucceededRun
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.training.parquet import rows_of
from airflow_provider_raynode.runtime.training.parquet_files import sources_of

pytest.importorskip("s3fs", reason="the S3 driver is not installed (extra s3)")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket; workers find it by the storage's own environment variables."""
    import boto3
    import fsspec

    values = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**values, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="raynode")
    yield "s3://raynode"
    for item in client.list_objects_v2(Bucket="raynode").get("Contents", []):
        client.delete_object(Bucket="raynode", Key=item["Key"])
    client.delete_bucket(Bucket="raynode")


def test_datasets(bucket: str, tmp_path: Path) -> None:
    """A reference, an archive, a folder and URIs: found, proven and read in parts, without one of them being whole."""
    store = Catalog(f"{bucket}/a prefix")
    for name in ("one", "two"):
        (tmp_path / "data" / "year=2024").mkdir(parents=True, exist_ok=True)
        rows = range(100) if name == "one" else range(100, 150)
        pq.write_table(pa.table({"x": rows}), tmp_path / "data" / "year=2024" / f"{name}.parquet", row_group_size=30)
    store.filesystem.put(str(tmp_path / "data"), f"{bucket}/elsewhere/data", recursive=True)
    frame = store.put(pd.DataFrame({"x": range(150)}))
    folder = f"{bucket}/elsewhere/data"
    files = [f"{folder}/year=2024/{name}.parquet" for name in ("one", "two")]
    for value, columns in ((frame, 1), (store.put(tmp_path / "data"), 2), (folder, 2), (files, 1)):
        found = rows_of("train", sources_of("train", value, store), store)
        assert (found.rows, len(found.schema)) == (150, columns), value
        parts = [table["x"].to_pylist() for cut in ((0, 75), (75, 150)) for table in found.read(*cut)]
        assert [row for part in parts for row in part] == list(range(150))
    found = rows_of("train", sources_of("train", frame, store), store)
    store.write_bytes(frame.uri, b"PAR1 something else PAR1")
    with pytest.raises(CatalogError, match="was replaced while it was in use"):
        list(found.read(0, 10))
    with pytest.raises(CatalogError, match="is not what its reference names"):
        sources_of("train", frame, store)
    with pytest.raises(CatalogError, match="there is no s3://raynode/nowhere"):
        sources_of("train", f"{bucket}/nowhere", store)


def test_the_runs_of_a_dag(bucket: str) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    runs = EarlierRuns(Catalog(f"{bucket}/a prefix"), "a dag")
    assert runs.last_before(noon) is None
    for days in (3, 2, 1, 0):
        date = noon - timedelta(days=days)
        names = ("logical_date", "data_interval_start", "data_interval_end", "start_date", "end_date")
        runs.add(SucceededRun(dag_id="a dag", run_id=f"run.{days}", scheduled=True, **dict.fromkeys(names, date)))
    runs.remove("run.1", noon - timedelta(days=1))
    found = runs.last_before(noon)
    assert found is not None
    assert found.run_id == "run.2"


def test_the_store(bucket: str) -> None:
    store = Catalog(f"{bucket}/a prefix").at("dag/run:1+00/task")
    array = np.arange(1000)
    ref = store.put(array, "array")
    assert ref.uri == f"{bucket}/a prefix/dag/run:1+00/task/array.npy"
    np.testing.assert_array_equal(store.load(ref), array)
    np.testing.assert_array_equal(Catalog(f"{bucket}/a prefix").load(ref), array)
    assert store.load(store.get_ref("array")).shape == (1000,)
    assert store.list(store.prefix_uri) == [f"{store.prefix_uri}/array.npy", f"{store.prefix_uri}/array.ref.json"]
    store.write_bytes(ref.uri, b"other")
    with pytest.raises(CatalogError, match="is not what its reference names"):
        store.load(ref)
    store.delete(store.prefix_uri)
    assert not store.exists(ref.uri)
    with pytest.raises(CatalogError, match="does not exist"):
        store.load(ref)
    with pytest.raises(CatalogError, match="s3://nobody"):
        Catalog("s3://nobody").put(1)


def test_the_lease_on_a_search(bucket: str) -> None:
    """Of many that begin together one gets it; one that is not heard of loses it, and sees that."""
    import threading

    from airflow_provider_raynode.runtime.lease import Lease

    lost: list[str] = []

    def tell(reason: str) -> NoReturn:
        lost.append(reason)
        raise SystemExit

    drivers = Catalog(bucket).at("node/attempt_1/drivers")
    assert drivers.creates_exclusively
    assert drivers.create_bytes(f"{bucket}/once", b"one")
    assert not drivers.create_bytes(f"{bucket}/once", b"two")
    assert drivers.read_bytes(f"{bucket}/once") == b"one"
    leases = [Lease(Catalog(bucket).at(drivers.prefix), f"job-{number}", lost=tell) for number in range(8)]
    begin, got = threading.Barrier(len(leases)), []

    def run(lease: Lease) -> None:
        begin.wait()
        if lease.acquire(over=lambda: True):
            got.append(lease)

    threads = [threading.Thread(target=run, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [holder] = got
    holder.confirm()
    waiting = Lease(drivers, "job-b", lost=tell, life_s=0.5)
    holder._ended.set()  # it renews no more
    assert waiting.acquire()
    assert waiting.number == 2
    waiting.check()
    holder._ended.clear()
    with pytest.raises(SystemExit):
        holder.confirm()
    assert "job-b" in lost[0]
    waiting.release()
    last = Lease(drivers, "job-c", lost=tell)
    assert last.acquire(over=lambda: True)
    last.release()


@pytest.mark.airflow
def test_an_airflow_connection(
    bucket: str, endpoint: str, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    pytest.importorskip("airflow.providers.amazon")
    connection = {"conn_type": "aws", "login": "k", "password": "s", "extra": {"endpoint_url": endpoint}}
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", "s3://my_s3@raynode/catalog")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    with DAG("s3_connection", schedule=None) as dag_object:

        @task
        def put() -> dict[str, Any]:
            return catalog.put({1, 2}, "set")

        @task
        def load(ref: dict[str, Any]) -> int:
            return len(catalog.load(ref))

        load(put())

    result = run_dag(dag_object)
    assert result.xcom("load") == 2
    uri = result.xcom("put")["uri"]
    assert uri.startswith("s3://raynode/catalog/s3_connection/"), "the connection id stays out of the reference"


@pytest.mark.airflow
@pytest.mark.ray
def test_a_node(bucket: str, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", f"{bucket}/catalog")

    def train(data: Any, x: int) -> None:
        for step in range(2):
            report({"score": float(data.sum()) * x, "model": {"x": x, "step": step}}, checkpoint=[x, step])

    tune = {"metric": "score", "mode": "max", "search_space": {"x": {"type": "grid_search", "values": [1, 2]}}}
    with DAG("s3_node", schedule=None) as dag_object:

        @task
        def make() -> dict[str, Any]:
            return catalog.put(np.ones(10))

        @task
        def use(tuned: dict[str, Any]) -> list[Any]:
            outputs = {name: catalog.load(ref) for name, ref in tuned["outputs"].items()}
            return [outputs["model"], outputs["checkpoint"], len(catalog.load(tuned["trials"]))]

        node = ray_node(
            "node",
            python_callable=train,
            ray_config={"ray_tune": tune},
            op_kwargs={"data": make()},
            returns=[pickled("model")],
        )
        use(node.output)
    result = run_dag(dag_object)
    assert result.state == "success", result.states
    assert result.xcom("use") == [{"x": 2, "step": 1}, [2, 1], 2]
