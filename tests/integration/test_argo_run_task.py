"""`raynode argo run-task` as Argo calls it: real processes, real signals, and what a person gets for a wrong call."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.argo.outcome import EXIT_FAILED, EXIT_TERMINATED, EXIT_WRONG_CALL
from airflow_provider_raynode.argo.records import RunStore
from airflow_provider_raynode.argo.run_task import execute_ray_node
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import RayNodeError

pytestmark = pytest.mark.airflow

DAG_FILE = """
import asyncio, logging, os, sys, time
from airflow.sdk import (
    DAG, BaseOperator, BaseSensorOperator, Connection, Param, Variable, get_current_context, task, task_group
)
from airflow.triggers.base import BaseTrigger, TriggerEvent

FOLDER = os.path.dirname(os.path.abspath(__file__))

def note(text):
    with open(f"{FOLDER}/notes.txt", "a") as file:
        file.write(text + "\\n")

class Sleeper(BaseOperator):
    def execute(self, context):
        note("executes")
        time.sleep(60)

    def on_kill(self):
        note("on_kill")

class Never(BaseTrigger):
    def serialize(self):
        return f"{__name__}.Never", {}

    async def run(self):
        note("waits")
        await asyncio.sleep(60)
        yield TriggerEvent(1)

    async def on_kill(self):
        note("trigger killed")

    async def cleanup(self):
        note("trigger cleaned up")

class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Never(), method_name="resume")

class Deaf(BaseOperator):
    def execute(self, context):
        note("executes")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                time.sleep(0.1)
            except BaseException as error:
                note(f"ignores {error!r}")

class Pokes(BaseSensorOperator):
    def poke(self, context):
        note("pokes")

    def on_kill(self):
        note("on_kill")

with DAG("calls", schedule=None, params={"who": "me", "number": Param(1, type="integer")}):
    Sleeper(task_id="sleeps", retries=1)
    Deferring(task_id="defers")
    Deaf(task_id="deaf")
    Pokes(task_id="pokes", mode="reschedule", poke_interval=60, retries=1)

    @task
    def leaves_a_thread():
        import threading

        threading.Thread(target=time.sleep, args=(60,)).start()
        return "done"

    leaves_a_thread()

    @task
    def reads():
        return [Connection.get("db").host, Variable.get("size")]

    @task
    def reads_nothing():
        Connection.get("nowhere")

    reads(), reads_nothing()

    @task
    def echoes():
        return "hello"

    @task
    def hears(text):
        return f"{text}, {text}"

    hears(echoes())

    @task(multiple_outputs=False)
    def numbers():
        return [{"name": "iris", "size": 3}, {"name": "wine", "size": 4}, {"name": "both", "size": 4}]

    @task
    def measure(name, size):
        return f"{name} {size}"

    @task_group
    def group(x):
        measure.override(task_id="inner")(x, 0)

    measure.expand_kwargs(numbers())
    group.expand(x=["a", "b"])

    @task
    def shows_secrets():
        password = Connection.get("db").password
        token = Variable.get("api_token")
        print("printed", password, token)
        print("to stderr", password, file=sys.stderr)
        logging.getLogger("airflow.task").info("logged %s", token)
        raise ValueError(f"raised with {password}")

    @task
    def asks_airflow():
        Variable.set("x", "y")

    @task
    def sees(params=None, ds=None):
        return [dict(params), ds, get_current_context()["dag_run"].run_type]

    sees()
    shows_secrets()
    asks_airflow()
"""
RUN = "run.1"


class Calls:
    """Calls the runner for one DAG file and one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "calls.py"
        self.file.write_text(DAG_FILE)
        self.catalog = folder / "catalog"
        self.store = RunStore(Catalog(str(self.catalog)), "calls", RUN)
        self.env = {
            **os.environ,
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__RAYNODE__CATALOG": str(self.catalog),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/no.db",
        }

    def command(self, step: str, *options: str) -> list[str]:
        program = [str(Path(sys.executable).with_name("raynode")), "argo", "run-task"]
        return [*program, "--pipeline-file", str(self.file), "--run-id", RUN, "--step-name", step, *options]

    def __call__(self, step: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(step, *options),
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, step: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(step, *options), env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def notes(self) -> list[str]:
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []

    def await_note(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.notes():
            assert time.monotonic() < deadline, self.notes()
            time.sleep(0.05)

    def returned(self, step: str, index: int = -1) -> Any:
        return self.store.xcom(step, index, "return_value")[1]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls(tmp_path)
    # For the calls within this process.
    monkeypatch.setenv("AIRFLOW__RAYNODE__CATALOG", str(found.catalog))
    return found


def test_sigterm_cleans_up_and_ends_the_pod(calls: Calls) -> None:
    process = calls.start("sleeps", "--retries=0")
    calls.await_note("executes")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_TERMINATED, output
    assert calls.notes() == ["executes", "on_kill"]
    assert calls.store.record("sleeps").state == "up_for_retry"


def test_sigterm_reaches_a_trigger_that_runs_in_the_pod(calls: Calls) -> None:
    process = calls.start("defers")
    calls.await_note("waits")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_TERMINATED, output
    assert calls.notes() == ["waits", "trigger killed", "trigger cleaned up"]
    assert calls.store.record("defers").state == "failed"


def test_sigterm_between_two_pokes(calls: Calls) -> None:
    process = calls.start("pokes")
    calls.await_note("pokes")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_TERMINATED, output
    assert calls.notes() == ["pokes", "on_kill"]
    assert calls.store.record("pokes").state == "up_for_retry"


def test_a_second_sigterm_ends_a_task_that_does_not_listen(calls: Calls) -> None:
    process = calls.start("deaf")
    calls.await_note("executes")
    process.send_signal(signal.SIGTERM)
    calls.await_note("ignores SystemExit(143)")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_TERMINATED, output


def test_a_thread_that_a_task_leaves_does_not_hold_the_pod(calls: Calls) -> None:
    begin = time.monotonic()
    done = calls("leaves_a_thread")
    assert done.returncode == 0, done.stdout
    assert calls.returned("leaves_a_thread") == "done"
    assert time.monotonic() - begin < 40


def test_a_pod_that_was_killed_counts_as_a_try(calls: Calls) -> None:
    process = calls.start("sleeps")
    calls.await_note("executes")
    process.kill()
    process.wait()
    assert calls.store.record("sleeps").state == "running"
    process = calls.start("sleeps", "--retries=1")
    deadline = time.monotonic() + 60
    while calls.notes().count("executes") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    record = calls.store.record("sleeps")
    assert (record.try_number, record.first_try, record.state) == (2, 1, "failed")


def test_secrets_are_masked_in_everything_that_a_pod_prints(calls: Calls) -> None:
    done = calls(
        "shows_secrets",
        AIRFLOW_CONN_DB="postgres://user:hunter2-password@host/db",
        AIRFLOW_VAR_API_TOKEN="abcdef-token-value",
    )
    assert done.returncode == EXIT_FAILED
    output = done.stdout + done.stderr
    for part in ("printed ***", "to stderr ***", "logged ***", "raised with ***"):
        assert part in output, output
    assert "hunter2" not in output
    assert "abcdef-token" not in output
    record = (calls.catalog / "calls" / RUN / "shows_secrets/-1/airflow_task/record.json").read_text()
    assert "hunter2" not in record


def test_what_needs_airflow_fails_by_name(calls: Calls) -> None:
    done = calls("asks_airflow")
    assert done.returncode == EXIT_WRONG_CALL
    assert calls.store.record("asks_airflow").state == "failed"
    assert "asks_airflow asked Airflow for PutVariable, and a pod of Argo has no Airflow services" in done.stdout


def test_connections_and_variables_come_from_the_secrets_backend(calls: Calls) -> None:
    (calls.folder / "connections.json").write_text('{"db": "postgres://user:pw-of-the-file@there/x"}')
    (calls.folder / "variables.json").write_text('{"size": "from the file"}')
    options = {
        "connections_file_path": str(calls.folder / "connections.json"),
        "variables_file_path": str(calls.folder / "variables.json"),
    }
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    configuration = calls.folder / "runner.json"
    configuration.write_text(
        json.dumps({"airflow": {"secrets": {"backend": backend, "backend_kwargs": json.dumps(options)}}})
    )
    done = calls("reads", "--configuration-file", str(configuration))
    assert done.returncode == 0, done.stdout
    assert calls.returned("reads") == ["there", "from the file"]


def test_a_connection_that_is_nowhere(calls: Calls) -> None:
    done = calls("reads_nothing")
    assert done.returncode == EXIT_FAILED
    assert "AirflowNotFoundException: The conn_id `nowhere` isn't defined" in done.stdout


def test_a_custom_xcom_backend_serves_both_ends(calls: Calls) -> None:
    (calls.folder / "wrapping.py").write_text(
        "from airflow.sdk.bases.xcom import BaseXCom\n"
        "class Wrapping(BaseXCom):\n"
        "    @staticmethod\n"
        "    def serialize_value(value, **_):\n"
        "        return {'wrapped': value}\n"
        "    @staticmethod\n"
        "    def deserialize_value(result):\n"
        "        return result.value['wrapped']\n"
    )
    env = {"AIRFLOW__CORE__XCOM_BACKEND": "wrapping.Wrapping", "PYTHONPATH": str(calls.folder)}
    assert calls("echoes", **env).returncode == 0
    assert calls.returned("echoes") == {"wrapped": "hello"}
    done = calls("hears", **env)
    assert done.returncode == 0, done.stdout
    assert calls.returned("hears") == {"wrapped": "hello, hello"}


def test_nothing_of_airflows_services_is_imported(calls: Calls) -> None:
    """The start of a pod is most of a short task's time: no scheduler, no DagBag, no API server."""
    code = (
        "import sys; from airflow_provider_raynode.cli import main; code = main(sys.argv[1:]); "
        "heavy = ('airflow.jobs', 'airflow.dag_processing.dagbag', 'airflow.api_fastapi.app', 'airflow.models.dagrun', "
        "'airflow.models.taskinstance', 'airflow.serialization.serialized', 'airflow.timetables.interval', "
        "'ray.', 'pandas', 'alembic', 'fastapi', 'airflow_provider_raynode.config', "
        "'airflow_provider_raynode.operators'); "
        "print('HEAVY', sorted(m for m in sys.modules if m.startswith(heavy)))"
    )
    _, *arguments = calls.command("sees")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=calls.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step-name", "numbrs"], "--step-name: the DAG calls has no task 'numbrs', did you mean 'numbers'?"),
        (["--dag-id", "other"], "holds no DAG 'other'; it has: calls"),
        (["--pipeline-file", "/nowhere/x.py"], "/nowhere/x.py: no such file"),
        (["--run-id", "a/b"], "--run-id: 'a/b' is none"),
        (["--structure", "0123456789abcdef"], "another structure"),
        (["--map-variable", '{"map_index": 1}'], "numbers is not mapped"),
        (["--map-variable", "[1]"], "is not a JSON object"),
        (["--map-variable", "{"], "is not JSON"),
        (["--logical-date", "soon"], "--logical-date: 'soon' is not an ISO date"),
        (["/nowhere/run"], "RUN_FILE: /nowhere/run: cannot be read (No such file or directory)"),
        ([__file__], "RUN_FILE: "),
        (["--parameters-file", "/nowhere/p.yaml"], "the file does not exist"),
        (["--configuration-file", "/nowhere/c.yaml"], "the file does not exist"),
        (["--plan", "--step-name=nobody"], "--plan: 'nobody' is no task or mapped group; there are: "),
        (["--step-name", "measure"], "is mapped over results that run run.1 does not have"),
        (["--step-name", "group.inner"], 'give {"map_index": N} with N from 0 to 1'),
        (["--step-name", "group.inner", "--map-variable", '{"map_index": 2}'], "map_index 2 is none of group.inner"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(
    options: list[str], message: str, calls: Calls, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_raynode.cli import main

    _, _, _, *arguments = calls.command("numbers")
    assert main(["argo", "run-task", *arguments, *options]) == EXIT_WRONG_CALL
    printed = capfd.readouterr().err
    assert message in printed
    assert printed.startswith("raynode: ")
    assert "Traceback" not in printed


def test_the_python_function_runs_a_chain(calls: Calls, tmp_path: Path) -> None:
    """Several tasks in one process, mapped ones by index and by the values of their map variables."""
    call = {"configuration_file": "", "pipeline_file": str(calls.file), "ray_config_file": "", "run_id": RUN}
    first = execute_ray_node(step_name="numbers", tag="mine", **call)
    assert (first.state, first.exit_code, first.try_number, first.map_index) == ("success", 0, 1, -1)
    assert calls.store.record("numbers").tag == "mine"
    second = execute_ray_node(step_name="measure", map_variable='{"map_index": 1}', **call)
    assert (second.state, second.map_index) == ("success", 1)
    by_name = execute_ray_node(step_name="measure", map_variable='{"name": "iris"}', **call)
    assert by_name.map_index == 0
    assert [calls.returned("measure", index) for index in (0, 1)] == ["iris 3", "wine 4"]
    with pytest.raises(RayNodeError, match="fits 2 instances of measure, not one; they are 0: "):
        execute_ray_node(step_name="measure", map_variable='{"size": 4}', **call)
    inner = execute_ray_node(step_name="group.inner", map_variable='{"x": "b"}', **call)
    assert inner.map_index == 1
    again = execute_ray_node(step_name="numbers", **call)
    assert again.try_number == 2, "a second call is another try, as after `argo retry`"


def test_params_come_from_a_file_or_from_argo(calls: Calls, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_raynode.cli import main

    parameters = tmp_path / "params.yaml"
    parameters.write_text("who: you\nnumber: 5\n")
    _, _, _, *arguments = calls.command("sees")
    assert (
        main(["argo", "run-task", *arguments, "--parameters-file", str(parameters), "--logical-date", "2026-01-31"])
        == 0
    )
    assert calls.returned("sees") == [{"who": "you", "number": 5}, "2026-01-31", "manual"]
    run_file = tmp_path / "run"

    def given(**texts: str) -> str:
        run_file.write_bytes(base64.b64encode(json.dumps({"logical-date": "2026-02-01", **texts}).encode()))
        return str(run_file)

    # The schema has no type: JSON.
    assert main(["argo", "run-task", *arguments, given(who="5", number="7")]) == 0
    assert calls.returned("sees") == [{"who": 5, "number": 7}, "2026-02-01", "manual"]
    assert main(["argo", "run-task", *arguments, given(who="no JSON, just text", number="7")]) == 0
    assert calls.returned("sees")[0]["who"] == "no JSON, just text"
    assert main(["argo", "run-task", *arguments, given(number='"seven"')]) == EXIT_WRONG_CALL
    assert main(["argo", "run-task", *arguments, given(**{"logical-date": "soon"})]) == EXIT_WRONG_CALL
    assert "the parameter logical-date: 'soon' is not an ISO date" in capfd.readouterr().err


def test_a_configuration_file_names_the_catalog(calls: Calls, tmp_path: Path) -> None:
    configuration = tmp_path / "runner.yaml"
    configuration.write_text(f"catalog: {tmp_path / 'other'}\nlog_level: WARNING\n")
    env = {key: value for key, value in calls.env.items() if key != "AIRFLOW__RAYNODE__CATALOG"}
    done = subprocess.run(
        calls.command("numbers", "--configuration-file", str(configuration)),
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "other" / "calls" / RUN / "numbers").is_dir()
    assert "[info" not in done.stdout
    configuration.write_text("catalogue: /x\n")
    done = calls("numbers", "--configuration-file", str(configuration))
    assert done.returncode == EXIT_WRONG_CALL
    assert "catalogue: unknown key, did you mean 'catalog'?" in done.stderr
