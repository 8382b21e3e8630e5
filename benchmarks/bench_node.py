"""The node against plain Ray Tune scripts, in one run on one machine: prints a table of ratios.

Every figure is the median of its repetitions; the script and the node alternate, so that a slow minute of the machine
meets both. `--quick` runs each once and the plain script with fewer trials.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOME = Path(tempfile.mkdtemp(prefix="raynode-bench-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
(HOME / "dags").mkdir()
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(HOME / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    RAY_AUTH_MODE="disabled",
)
# Compiled modules are cached, as they are in every deployment.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("RAY_ADDRESS", None)


def objective(x: float, sleep: float) -> dict[str, float]:
    if sleep:
        time.sleep(sleep)
    return {"score": x**2}


def script(*args: str) -> tuple[float, float]:
    """Run the plain script; return the seconds of its fit() and of its whole process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / "scripts" / "plain_tune.py"), *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=HOME,
    )
    whole = time.perf_counter() - start
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"the plain script failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1][7:])["fit_s"], whole


def config(trials: int, sleep: float, *, optuna: bool = False) -> dict[str, Any]:
    space = {"x": {"type": "uniform", "low": -1, "high": 1}, "sleep": sleep}
    tune: dict[str, Any] = {"metric": "score", "mode": "max", "num_samples": trials, "search_space": space}
    if optuna:
        tune["search_algorithm"] = "OptunaSearch"
    return {"ray_tune": tune, "default_resources": {"num_cpus": 1}}


_counter = 0


def node(ray_config: dict[str, Any]) -> tuple[float, float, dict[str, Any]]:
    """Run a node on the embedded Ray without Airflow around it; return search seconds, process seconds, result."""
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.launchers import JobState, launcher_for
    from airflow_provider_raynode.operators._function import stage_function
    from airflow_provider_raynode.spec import JobRef, NodeSpec, RunContext, Versions, digest, submission_id, unseal

    global _counter
    _counter += 1
    catalog = Catalog(str(HOME / "catalog"))
    run = RunContext(dag_id="bench", run_id=f"run{_counter}", node_id="node")
    where = (run.dag_id, run.run_id, run.node_id, run.map_index)
    folder = catalog.at(catalog.node_prefix(*where))
    spec = NodeSpec(
        submission_id=submission_id(*where, 1, catalog.uri),
        attempt=1,
        context=run,
        function=stage_function(objective, folder),
        config=ray_config,
        catalog_uri=catalog.uri,
        node_prefix=folder.prefix_uri,
        staged_by=Versions(python=sys.version.split()[0], package="bench"),
    )
    data = spec.to_bytes()
    folder.write_bytes(f"{spec.attempt_prefix}/spec.json", data)
    job = JobRef(
        launcher="local",
        submission_id=spec.submission_id,
        attempt=1,
        address="local",
        spec_uri=f"{spec.attempt_prefix}/spec.json",
        spec_sha256=digest(data),
        catalog_uri=catalog.uri,
        node_prefix=folder.prefix_uri,
    )
    start = time.perf_counter()
    with launcher_for(job) as launcher:
        launcher.ensure(job)
        while not (status := launcher.status(job)).state.ended:
            time.sleep(0.05)
        whole = time.perf_counter() - start
        if status.state is not JobState.SUCCEEDED:
            raise SystemExit(f"the node failed: {launcher.read_log(job, 0, final=True).text[-3000:]}")
    result = unseal(folder.read_bytes(f"{job.attempt_prefix}/result.json"))
    return result.timings_s["search"], whole, result.model_dump(mode="json")


ROWS: list[tuple[str, str, str, str]] = []


def row(what: str, measured: str, goal: str, *, right: bool) -> None:
    ROWS.append((what, measured, goal, "yes" if right else "NO"))
    print(f"{what}: {measured} (goal {goal}) {'' if right else '<-- not reached'}", flush=True)


def bench_trivial(repeat: int, plain_trials: int) -> None:
    """256 trials of nothing: the cost of a trial."""
    trials = 256
    nodes, tuned = [], []
    plain = script("--trials", str(plain_trials))[0] / plain_trials
    for _ in range(repeat):
        nodes.append(node(config(trials, 0))[0] / trials)
        tuned.append(script("--trials", str(trials), "--reuse-actors")[0] / trials)
    mine, other = statistics.median(nodes), statistics.median(tuned)
    row("256 trivial trials, per trial", f"{mine * 1000:.1f} ms", "<= 30 ms", right=mine <= 0.030)
    row(
        f"... against the plain script ({plain_trials} trials)",
        f"{plain / mine:.1f}x",
        ">= 40x",
        right=plain / mine >= 40,
    )
    row("... against the script with reuse_actors", f"{other / mine:.2f}x", ">= 1.5x", right=other / mine >= 1.5)


def bench_real(repeat: int) -> None:
    """16 trials of 2 s: the node must not be in the way."""
    nodes, tuned = [], []
    for _ in range(repeat):
        nodes.append(node(config(16, 2.0))[0])
        tuned.append(script("--trials", "16", "--sleep", "2", "--reuse-actors")[0])
    ratio = statistics.median(nodes) / statistics.median(tuned)
    row("16 trials of 2 s, against the tuned script", f"{ratio:.3f}x", "<= 1.03x", right=ratio <= 1.03)


def bench_embedded(repeat: int) -> None:
    """8 Optuna trials: the whole process, start of Ray included."""
    nodes, plain = [], []
    for _ in range(repeat):
        nodes.append(node(config(8, 0, optuna=True))[1])
        plain.append(script("--trials", "8", "--optuna")[1])
    ratio = statistics.median(nodes) / statistics.median(plain)
    measured = f"{ratio:.2f}x ({statistics.median(nodes):.1f} s / {statistics.median(plain):.1f} s)"
    row("8 Optuna trials embedded, whole process", measured, "<= 1.1x", right=ratio <= 1.1)


def run_dag(dag: Any) -> Any:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(os.devnull, collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    dag_run = dag.test()
    if str(dag_run.state.value) != "success":
        raise SystemExit(f"the DAG {dag.dag_id} ended as {dag_run.state}")
    return dag_run


def task_seconds(dag_run: Any) -> dict[str, tuple[float, float]]:
    return {
        each.task_id.rpartition(".")[2]: (each.start_date.timestamp(), each.end_date.timestamp())
        for each in dag_run.get_task_instances()
    }


def bench_warm_cluster(repeat: int) -> None:
    """One trial on a warm cluster: the node's tasks over the same script submitted as a Ray job."""
    import secrets
    import socket

    import requests
    from airflow.sdk import DAG

    from airflow_provider_raynode import ray_node

    def free_port() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

    token = secrets.token_hex(16)
    port, dashboard = free_port(), free_port()
    # Jobs run the `python` of the head's PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PATH": path}
    temp = tempfile.mkdtemp(prefix="rb", dir="/tmp")
    ray = str(Path(sys.executable).parent / "ray")
    head = subprocess.Popen(
        [
            *(ray, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"),
            *("--num-cpus=2", "--disable-usage-stats", f"--temp-dir={temp}"),
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{dashboard}"
    headers = {"Authorization": f"Bearer {token}"}

    def takes_jobs() -> bool:
        # A head that has just begun lists its jobs before it takes one.
        try:
            return requests.post(f"{url}/api/jobs/", json={"entrypoint": "true"}, headers=headers, timeout=10).ok
        except requests.RequestException:
            return False

    def job() -> float:
        start = time.perf_counter()
        entry = f"{sys.executable} {HERE / 'scripts' / 'plain_tune.py'} --trials 1 --reuse-actors"
        sid = requests.post(f"{url}/api/jobs/", json={"entrypoint": entry}, headers=headers, timeout=30).json()
        while True:
            state = requests.get(f"{url}/api/jobs/{sid['submission_id']}", headers=headers, timeout=10).json()
            if state["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
                assert state["status"] == "SUCCEEDED", state
                return time.perf_counter() - start
            time.sleep(0.1)

    try:
        for _ in range(600):
            if takes_jobs():
                break
            time.sleep(0.1)
        os.environ["AIRFLOW_CONN_RAY_BENCH"] = json.dumps(
            {"conn_type": "ray", "host": "127.0.0.1", "port": dashboard, "password": token}
        )
        with DAG("bench_warm", schedule=None) as dag:
            ray_node("node", python_callable=objective, ray_config=config(1, 0), ray_conn_id="ray_bench")
        job()
        run_dag(dag)
        nodes, jobs = [], []
        for _ in range(max(repeat, 2)):
            jobs.append(job())
            seconds = task_seconds(run_dag(dag))
            # The job runs from fan-out's submission on; Airflow's own starts of tune and fan-in lie between the tasks.
            starts = (seconds["tune"][0] - seconds["fan_out"][1]) + (seconds["fan_in"][0] - seconds["tune"][1])
            nodes.append(seconds["fan_in"][1] - seconds["fan_out"][0] - starts)
        over = statistics.median(nodes) - statistics.median(jobs)
        measured = (
            f"{over:.2f} s ({statistics.median(nodes):.1f} s, the script as a job {statistics.median(jobs):.1f} s)"
        )
        row("fixed overhead on a warm cluster", measured, "< 3 s", right=over < 3)
    finally:
        import psutil

        family = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        for process in family:
            process.terminate()
        for process in psutil.wait_procs(family, timeout=8)[1]:
            process.kill()
        head.wait()


def bench_xcom() -> None:
    """Bytes that the node's tasks leave in XCom, by size of the input."""
    import numpy as np
    from airflow.models.xcom import XComModel
    from airflow.sdk import DAG, task
    from airflow.utils.session import create_session

    from airflow_provider_raynode import catalog, ray_node

    def train(data: Any, x: float, sleep: float) -> dict[str, float]:
        return {"score": float(data[0]) + x}

    sizes: dict[str, int] = {}
    for name, count in {"1 kB": 1_000, "1 MB": 1_000_000, "1 GB": 1_000_000_000}.items():
        with DAG(f"bench_xcom_{count}", schedule=None) as dag:

            @task
            def make(count: int) -> dict[str, Any]:
                return catalog.put(np.zeros(count, dtype=np.uint8))

            ray_node("node", python_callable=train, ray_config=config(1, 0), op_kwargs={"data": make(count)})
        dag_run = run_dag(dag)
        with create_session() as session:
            rows = session.query(XComModel).filter(XComModel.dag_id == dag.dag_id, XComModel.run_id == dag_run.run_id)
            sizes[name] = max(len(json.dumps(each.value)) for each in rows if each.key == "return_value")
    measured = ", ".join(f"{name}: {size} B" for name, size in sizes.items())
    constant = max(sizes.values()) - min(sizes.values()) < 64
    row("largest XCom by input size", measured, "constant, < 4096 B", right=constant and max(sizes.values()) < 4096)


_PARSE = """
import gc, os, sys, time
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(os.devnull, collect_dags=False)
# As the DAG processor does before it forks: else a pass over all that Airflow has imported falls into it by chance.
gc.collect()
gc.freeze()
start, cpu = time.perf_counter(), time.thread_time()
dags = bag.process_file(sys.argv[1], only_if_updated=False, safe_mode=False)
print(time.perf_counter() - start, time.thread_time() - cpu)
assert dags and not bag.import_errors, bag.import_errors
"""


def bench_parse(repeat: int) -> None:
    """Seconds of parsing a DAG file in a fresh process, with the node and with three plain tasks in its place."""
    body = """
from airflow.sdk import dag, task
{imports}
def train(data, x, sleep):
    return {{"score": x}}
@dag(schedule=None)
def bench_parse():
    @task
    def make(): return 1
    @task
    def use(value): return value
{node}
bench_parse()
"""
    plain = """
    @task
    def fan_out(data): return 1
    @task
    def tune(job): return 1
    @task
    def fan_in(job): return 1
    use(fan_in(tune(fan_out(make()))))
"""
    (HOME / "tune.yaml").write_text(json.dumps(config(8, 0)))
    with_node = """
    node = ray_node("node", python_callable=train, ray_config="tune.yaml", op_kwargs={"data": make()})
    use(node.output)
"""
    files = {"plain": HOME / "plain_dag.py", "node": HOME / "node_dag.py"}
    files["plain"].write_text(body.format(imports="", node=plain))
    files["node"].write_text(body.format(imports="from airflow_provider_raynode import ray_node", node=with_node))
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "node": []}
    for _ in range(max(11, repeat)):
        for name, file in files.items():
            done = subprocess.run(
                [sys.executable, "-c", _PARSE, str(file)], capture_output=True, text=True, check=True, cwd=HOME
            )
            wall, cpu = done.stdout.split()[-2:]
            seconds[name].append((float(wall), float(cpu)))
    over, cpu_over = (
        statistics.median(each[which] for each in seconds["node"])
        - statistics.median(each[which] for each in seconds["plain"])
        for which in (0, 1)
    )
    measured = f"{over * 1000:.0f} ms ({cpu_over * 1000:.0f} ms of CPU)"
    row("DAG parse time over the same DAG without the node", measured, "< 25 ms", right=over < 0.025)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="comma-separated: trivial, real, embedded, warm, xcom, parse")
    args = parser.parse_args()
    repeat = 1 if args.quick else 3
    benches: dict[str, Callable[[], None]] = {
        "parse": lambda: bench_parse(repeat),
        "trivial": lambda: bench_trivial(repeat, 16 if args.quick else 48),
        "real": lambda: bench_real(repeat),
        "embedded": lambda: bench_embedded(repeat),
        "warm": lambda: bench_warm_cluster(repeat),
        "xcom": bench_xcom,
    }
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils import db

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    for name in args.only.split(",") if args.only else benches:
        benches[name]()
    widths = [max(len(line[column]) for line in ROWS) for column in range(4)]
    print()
    for line in [("measure", "result", "goal", "reached"), *ROWS]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
