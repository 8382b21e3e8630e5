"""The world of the fault tests: one Airflow, one Ray head, a proxy per fault, and what can be asked and broken."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from proxy import Proxy
from ray_head import await_node, free_ports, start, stop
from standalone import Standalone, kill

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.spec import NodeProgress

_WAIT_S = 240.0
# A Python that starts with this has a clock that is two hours ahead.
SKEW = "import time; _time = time.time; time.time = lambda: _time() + 7200\n"


@dataclass(frozen=True)
class Fault:
    """One fault: the DAG that meets it, what breaks, and what must come of it.

    `settings` are those of the DAG (see dag_of_faults); `breaks` gets the run and does the damage; `state` is the state
    the run must end in; `attempts` the number of attempts, and of Ray jobs, that may be needed.
    """

    name: str
    what: str
    breaks: Callable[[Run], None]
    state: str = "success"
    attempts: tuple[int, ...] = (1,)
    settings: dict[str, Any] = field(default_factory=dict)
    # Whether the fault needs the cluster, the triggerer or the machine for itself.
    alone: bool = False
    # Whether the short form, in CI, has it.
    short: bool = False


@dataclass
class Row:
    """What came of a fault."""

    fault: Fault
    state: str = ""
    attempts: int = 0
    jobs: int = 0
    lost: int = 0
    orphans: int = 0
    stopped_after_s: float | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def right(self) -> bool:
        return not self.problem


class World:
    """Starts everything, and takes everything down."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self.root = Path(tempfile.mkdtemp(prefix="rn-faults-", dir="/tmp"))
        self.token = secrets.token_hex(16)
        self._mounted: list[Path] = []
        self._mark = secrets.token_hex(8)
        self._ports = dict(zip(("gcs", "client", "agent", "dashboard"), free_ports(4), strict=True))
        self._head_dir = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
        self.address = f"http://127.0.0.1:{self._ports['dashboard']}"
        self.proxies = {fault.name: Proxy(("127.0.0.1", self._ports["dashboard"])) for fault in faults}
        self.airflow = Standalone(self.root / "airflow", free_ports(1)[0], self._env())
        self._write_dags()

    def _env(self) -> dict[str, str]:
        connections = {
            f"AIRFLOW_CONN_RAY_{name.upper()}": json.dumps(
                {"conn_type": "ray", "host": proxy.url, "password": self.token}
            )
            for name, proxy in self.proxies.items()
            if name != "token_expired"
        }
        return {
            **connections,
            **self._s3(),
            "AIRFLOW__RAYNODE__CATALOG": str(self.root / "catalog"),
            "AIRFLOW_VAR_RAYNODE_SECRET": "hunter2-very-secret",
        }

    def _s3(self) -> dict[str, str]:
        """Start a server that speaks S3 behind a proxy, and return the environment that leads to it."""
        if "catalog_slow" not in self.proxies:
            return {}
        from moto.server import ThreadedMotoServer

        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        host, port = self._moto.get_host_and_port()
        import boto3

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="raynode")
        self.s3_proxy = Proxy((host, port))
        return {
            "AWS_ENDPOINT_URL": self.s3_proxy.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def mount(self, fault: Fault) -> Path:
        """Mount a small filesystem of its own for the catalog of a fault, and return it.

        :raises PermissionError: this user must not mount.
        """
        folder = self.root / "mounts" / fault.name
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise PermissionError("this user must not mount a filesystem")
        self._mounted.append(folder)
        return folder

    def _write_dags(self) -> None:
        here = Path(__file__).parent
        shutil.copy(here / "dag_of_faults.py", self.airflow.dags / "dag_of_faults.py")
        listed = []
        for fault in self.faults:
            self.marks(fault).mkdir(parents=True)
            if fault.settings.get("catalog", {}).get("uri") == "{mount}":
                fault.settings["catalog"] = {"uri": str(self.mount(fault))}
            defaults = {"retries": 2, "trials": 14, "seconds": 2.0, "marks": str(self.marks(fault))}
            own = {"dag_id": fault.name, "conn_id": f"ray_{fault.name}"}
            listed.append({**defaults, **own, **fault.settings})
        skew = self.root / "skew"
        skew.mkdir()
        (skew / "sitecustomize.py").write_text(SKEW)
        (self.airflow.dags / "faults.json").write_text(
            json.dumps(listed).replace("{skew}", str(skew)).replace("{s3}", self._s3_url())
        )

    def _s3_url(self) -> str:
        return self.s3_proxy.url if "catalog_slow" in self.proxies else ""

    def marks(self, fault: Fault) -> Path:
        """The folder where the trials of a fault leave their marks."""
        return self.root / "marks" / fault.name

    @contextmanager
    def running(self) -> Iterator[World]:
        """Everything is up."""
        try:
            self.start_head()
            self.airflow.start()
            self.airflow.await_dags({fault.name for fault in self.faults})
            self.airflow.call("POST", "pools", {"name": "closed", "slots": 0})
            if "token_expired" in self.proxies:
                proxy = self.proxies["token_expired"]
                body = {"connection_id": "ray_token_expired", "conn_type": "ray", "host": proxy.url}
                self.airflow.call("POST", "connections", {**body, "password": self.token})
            yield self
        finally:
            left = self.airflow.stop()
            left += stop(self.head, self._mark)
            for proxy in self.proxies.values():
                proxy.close()
            if "catalog_slow" in self.proxies:
                self.s3_proxy.close()
                self._moto.stop()
            for folder in self._mounted:
                subprocess.run(["umount", "-l", str(folder)], check=False)
            shutil.rmtree(self._head_dir, ignore_errors=True)
            if left:
                print("left behind:", left)

    def start_head(self) -> None:
        """Start the head, again on the same ports after it was killed."""
        self.head = start(self._head_dir, self.token, self._mark, **self._ports)
        await_node(self.address, self.token, self.head, self._head_dir / "head.log")

    def kill_head(self) -> None:
        """Kill the head with all that it started, by pid, as a machine that loses its power."""
        stop(self.head, self._mark)

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that the head knows."""
        headers = {"Authorization": f"Bearer {self.token}"}
        listed: list[dict[str, Any]] = requests.get(f"{self.address}/api/jobs/", headers=headers, timeout=30).json()
        return listed

    def run(self, fault: Fault) -> Row:
        """Trigger the fault's DAG, break what it breaks, and judge what comes of it."""
        row = Row(fault)
        begin = time.monotonic()
        try:
            run = Run(self, fault)
            fault.breaks(run)
            run.judge(row)
        except Exception as error:
            row.problem = f"{type(error).__name__}: {error}"[:2000]
        row.seconds = time.monotonic() - begin
        return row


class Run:
    """One run of a fault's DAG."""

    def __init__(self, world: World, fault: Fault) -> None:
        self.world = world
        self.fault = fault
        self.proxy = world.proxies[fault.name]
        self.airflow = world.airflow
        self.marks_folder = world.marks(fault)
        self.run_id = self.airflow.trigger(fault.name)
        self.seen: dict[str, Any] = {}

    # -- what it looks like ----------------------------------------------------------------------------------------

    @property
    def is_training(self) -> bool:
        """Whether the node is a training."""
        return self.fault.settings.get("function") == "training"

    @property
    def execution(self) -> str:
        """The name of the execution task."""
        return "train" if self.is_training else "tune"

    def task(self, task_id: str) -> dict[str, Any]:
        """A task instance of the node: fan_out, the execution or fan_in."""
        return self.airflow.tasks(self.fault.name, self.run_id)[task_id]

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = _WAIT_S) -> Any:
        """Wait until a condition is true, and return its value."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.3)
        raise AssertionError(f"waited {timeout_s:g} s in vain until {what}; tasks: {self.states()}")

    def states(self) -> dict[str, str]:
        """The states of the tasks."""
        listed = self.airflow.tasks(self.fault.name, self.run_id)
        return {name: f"{each['state']} (try {each['try_number']})" for name, each in listed.items()}

    def marks(self) -> Counter[str]:
        """How often each trial came to its end."""
        names = (path.name.partition("-")[0] for path in self.marks_folder.iterdir())
        return Counter(name for name in names if name.isdigit())

    def await_marks(self, number: int) -> None:
        """Wait until so many trials have ended, and a moment longer, so that the driver has heard of them."""
        self.until(lambda: sum(self.marks().values()) >= number, f"{number} trials have ended")
        time.sleep(0.7)

    def await_deferred(self) -> None:
        """Wait until the triggerer waits for the job."""
        self.until(lambda: self.task(self.execution)["state"] == "deferred", "the execution is deferred")
        time.sleep(1.5)

    def await_running(self) -> None:
        """Wait until a worker runs the execution task."""
        task_id = self.execution
        self.until(lambda: self.task(task_id)["state"] == "running", f"{task_id} is running")

    def end(self, timeout_s: float = _WAIT_S) -> str:
        """Wait until the run has ended, and return its state."""
        state = lambda: self.airflow.run_state(self.fault.name, self.run_id)  # noqa: E731
        self.until(lambda: state() in ("success", "failed"), "the run has ended", timeout_s)
        return state()

    def node(self) -> Catalog:
        """The node's folder of the catalog."""
        root = self.fault.settings.get("catalog", {}).get("uri") or str(self.world.root / "catalog")
        options = {}
        if root.startswith("s3://"):
            options = {"endpoint_url": self.world.s3_proxy.url, "key": "test", "secret": "test"}
        catalog = Catalog(root, storage_options=options)
        return catalog.at(catalog.node_prefix(self.fault.name, self.run_id, "node", -1))

    def attempts(self) -> int:
        """How many attempts the node had."""
        node, number = self.node(), 0
        while node.exists(f"{node.prefix_uri}/attempt_{number + 1}/spec.json"):
            number += 1
        return number

    def progress(self, attempt: int) -> NodeProgress | None:
        """The progress that an attempt wrote last."""
        node = self.node()
        uri = f"{node.prefix_uri}/attempt_{attempt}/progress.json"
        return NodeProgress.from_bytes(node.read_bytes(uri)) if node.exists(uri) else None

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this run that the head knows."""
        return [job for job in self.world.jobs() if (job.get("metadata") or {}).get("run_id") == self.run_id]

    def drivers(self) -> list[psutil.Process]:
        """The driver processes of this run."""
        prefix = self.node().prefix_uri
        return [
            each
            for each in psutil.process_iter(["cmdline", "status"])
            if each.info["status"] != psutil.STATUS_ZOMBIE
            and "airflow_provider_raynode.runtime" in (each.info["cmdline"] or [])
            and any(prefix in part for part in each.info["cmdline"])
        ]

    def log(self, try_number: int = 1) -> str:
        """The log of one try of the execution task."""
        return self.airflow.task_log(self.fault.name, self.run_id, f"node.{self.execution}", try_number)

    # -- what breaks -----------------------------------------------------------------------------------------------

    def kill_task(self, task_id: str = "", *, supervisor: bool = False) -> None:
        """Kill the process of a task that runs (the execution's), or its supervisor as well."""
        task_id = task_id or self.execution
        identity = self.task(task_id)["id"]
        found = self.until(lambda: self._task_processes(identity), f"the process of {task_id} is there", 30)
        if supervisor:
            kill(*found)
        else:
            kill(*[each for each in found if "LocalExecutor" not in " ".join(each.cmdline())])

    def _task_processes(self, identity: str) -> list[psutil.Process]:
        found = []
        for each in psutil.process_iter(["cmdline"]):
            if any(identity in part for part in each.info["cmdline"] or []):
                found.append(each)
        return found

    def await_stopped(self, within_s: float = 40.0) -> None:
        """Wait until no job and no driver of this run is left, and note how long that took.

        The bound is wide, the table has the number: how long a busy machine takes is no test.
        """
        begin = time.monotonic()
        ended = ("STOPPED", "FAILED", "SUCCEEDED")
        self.until(
            lambda: all(job["status"] in ended for job in self.jobs()) and not self.drivers(),
            f"the job has stopped (within {within_s:g} s)",
            within_s,
        )
        self.seen["stopped after"] = time.monotonic() - begin

    # -- judging ---------------------------------------------------------------------------------------------------

    def judge(self, row: Row) -> None:
        """Wait for the end, and write into `row` what came of it."""
        row.state = self.end()
        settings = self.fault.settings
        trials = settings.get("trials", 14)
        row.stopped_after_s = self.seen.get("stopped after")
        row.attempts = self.attempts()
        row.jobs = len(self.jobs())
        problems = []
        if row.state != self.fault.state:
            problems.append(f"the run ended as {row.state}, expected {self.fault.state}: {self.states()}")
        if row.attempts not in self.fault.attempts:
            problems.append(f"{row.attempts} attempts, expected {self.fault.attempts}")
        if row.jobs > row.attempts:
            problems.append(f"{row.jobs} jobs for {row.attempts} attempts: a duplicate")
        marks = self.marks()
        finished = self.seen.get("finished", Counter())
        runs = settings.get("runs", 1)
        # A stop rule ends the function in its last report, before it leaves a mark.
        ended = trials - 1 if "stop" in settings else trials
        row.lost = sum(1 for name in finished if marks[name] > finished[name])
        if row.lost:
            problems.append(f"{row.lost} finished trials ran again: {marks}")
        if self.fault.state == "success" and set(marks) != {str(number) for number in range(ended)}:
            problems.append(f"not every trial ended: {sorted(marks)}")
        if self.fault.state == "success" and self.is_training:
            problems += self.training_problems()
            if any(count < runs for count in marks.values()):
                problems.append(f"not every step of {runs} runs: {marks}")
        if self.fault.state == "success" and settings.get("function", "train") == "train":
            result = self.result()
            if result["best_config"] != {"x": trials - 1}:
                problems.append(f"the best is {result['best_config']}")
        if unrecorded := self.unrecorded():
            problems.append(f"no run record of attempts {unrecorded}")
        with suppress(AssertionError):
            self.until(lambda: not self.drivers(), "no driver is left", 15)
        row.orphans = len(self.drivers()) + sum(job["status"] in ("RUNNING", "PENDING") for job in self.jobs())
        if row.orphans:
            problems.append(f"{row.orphans} orphans")
        row.problem = "; ".join(problems)

    def training_problems(self) -> list[str]:
        """What is wrong with the result of a training: its end, its steps, its loss curve, where it went on from."""
        settings, result, problems = self.fault.settings, self.result(), []
        end, steps = result["training"], settings["trials"]
        expected = settings.get("as", "finished")
        if (end["ending"], end["reports"]) != (expected, steps):
            problems.append(f"the training ended as {end}, expected {expected} after {steps} reports")
        table = self.node().load(result["steps"])
        if list(table["training_iteration"]) != list(range(1, steps + 1)):
            problems.append(f"the steps are {list(table['training_iteration'])}")
        if list(table["loss"]) != [1 / number for number in range(1, steps + 1)]:
            problems.append(f"the loss curve is {list(table['loss'])}")
        if 2 in self.fault.attempts and not end["resumed_from"]:
            problems.append("the second attempt began anew")
        return problems

    def unrecorded(self) -> list[int]:
        """The attempts that an execution task saw and that have no run record, a moment after the end."""
        node = self.node()

        def missing() -> list[int]:
            numbers = range(1, self.attempts() + 1)
            folders = {number: f"{node.prefix_uri}/attempt_{number}" for number in numbers}
            return [
                number
                for number, folder in folders.items()
                if node.exists(f"{folder}/attached.json") and not node.exists(f"{folder}/run.json")
            ]

        with suppress(AssertionError):
            self.until(lambda: not missing(), "every attempt is recorded", 45)
        return missing()

    def result(self) -> dict[str, Any]:
        """What fan-in pushed."""
        path = f"dags/{self.fault.name}/dagRuns/{self.run_id}/taskInstances/node.fan_in/xcomEntries/return_value"
        value: Any = self.airflow.call("GET", path, deserialize="true")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def note_finished(self) -> None:
        """Remember what has ended: none of it may run again.

        What ended in the last second and a half does not count: on a busy machine its report is still on the way.
        """
        old = time.time() - 1.5
        names = [path.name.partition("-")[0] for path in self.marks_folder.iterdir() if path.stat().st_mtime < old]
        self.seen["finished"] = Counter(name for name in names if name.isdigit())


def meet(faults: list[Fault], *, together: int) -> list[Row]:
    """Run the faults, those that need the world for themselves last and one by one; return what came of each."""
    world = World(faults)
    rows = []
    with world.running():
        with ThreadPoolExecutor(together) as pool:
            for row in pool.map(world.run, [fault for fault in faults if not fault.alone]):
                rows.append(row)
                print(f"{'ok ' if row.right else 'BAD'} {row.fault.name} {row.seconds:.0f} s {row.problem}", flush=True)
        for fault in faults:
            if fault.alone:
                row = world.run(fault)
                rows.append(row)
                print(f"{'ok ' if row.right else 'BAD'} {row.fault.name} {row.seconds:.0f} s {row.problem}", flush=True)
    if all(row.right for row in rows):
        shutil.rmtree(world.root, ignore_errors=True)
    else:
        print(f"logs, catalog and database are kept: {world.root}", flush=True)
    return rows
