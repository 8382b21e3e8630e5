"""What a person reads in the log of a search: on the embedded Ray and on a cluster, the driver's log and the task's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_raynode import context, ray_node, report

pytestmark = [pytest.mark.ray, pytest.mark.airflow]

CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {"x": {"type": "grid_search", "values": [1, 2, 3, 4]}},
        "failure": {"max_failures": 1},
    },
    "default_resources": {"num_cpus": 1},
}


def speaks(x: int) -> None:
    """Write in every way; 3 fails, and 4 kills its process."""
    import os
    import subprocess
    import sys
    import time

    print(f"printed {x}\n\n  indented ünïcode", file=sys.stderr if x == 2 else sys.stdout)
    for done in range(5):
        print(f"\rbar {done}/4", end="", flush=True)
        time.sleep(0.15)
    print()
    print("begun ", end="", flush=True)
    time.sleep(0.3)
    print("and \x1b[32mended\x1b[0m")
    subprocess.run([sys.executable, "-c", "print('child', flush=True)"], check=True)
    os.write(2, b"raw \xff\n")
    context().logger.info("logged %d", x)
    print("y" * 300_000)
    if x == 3:
        raise ValueError("three\nis out")
    if x == 4:
        print("last words", flush=True)
        os.kill(os.getpid(), 9)
    for step in range(1, 5):
        report({"score": x * step}, checkpoint={"step": step})
    print("after the last report", end="")


WRITTEN = [
    "printed {x}", "", "  indented ünïcode", "bar 4/4", "begun and ended", "child", "raw \ufffd", "logged {x}",
    "y" * 300_000,
]  # fmt: skip
NOISE = ("Checkpoint successfully", "Restored on", "/dev/shm", "SearchGenerator", "pid=", "Trial task failed", "\x1b")


@pytest.mark.parametrize("where", ["embedded", "cluster"])
def test_the_log_of_a_search_can_be_read(
    where: str, request: pytest.FixtureRequest, run_dag: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_raynode.hooks.catalog import catalog_for
    from airflow_provider_raynode.hooks.ray import RayHook

    config = CONFIG
    if where == "cluster":
        request.getfixturevalue("ray_connection")
    else:
        config = {**CONFIG, "ray_cluster": {"address": "local"}}
    with DAG(f"log_{where}", schedule=None) as dag_object:
        ray_node("search", python_callable=speaks, ray_config=config, poll_interval_s=0.5)
    result = run_dag(dag_object)
    output = capfd.readouterr().out
    assert result.state == "success", output[-3000:]
    job = result.xcom("search.fan_out")
    attempt = f"{job['node_prefix']}/attempt_1"
    if where == "cluster":
        hook = RayHook()
        text = hook.job_log(job["submission_id"])
        hook.close()
    else:
        text = catalog_for().read_bytes(f"{attempt}/driver.log").decode()

    lines = text.splitlines()
    assert not [line[:200] for line in lines for noise in NOISE if noise in line]
    tagged: dict[str, list[str]] = {}
    for line in lines:
        match = re.fullmatch(r"\[(\w+)\] (.*)", line)
        # On a busy machine the bar is shown on its way.
        if match is not None and not re.fullmatch("bar [0-3]/4", match.group(2)):
            tagged.setdefault(match.group(1), []).append(match.group(2))
    foreign = [line for line in lines if not re.match(r"\[\w+\] ", line)]
    assert [line for line in foreign if line.startswith("raynode: SUCCEEDED")], foreign
    assert len(foreign) <= 5, foreign

    by_x = {int(own[0].removeprefix("printed ")): (trial, own) for trial, own in tagged.items()}
    written = {x: [line.format(x=x) for line in WRITTEN] for x in (1, 2, 3, 4)}
    for x in (1, 2):
        assert by_x[x][1] == [*written[x], "after the last report"]
    uri = f"{attempt}/trials/{{}}/error{{}}.json"
    for x, last, error in ((3, [], "ValueError: three is out"), (4, ["last words"], "WorkerDied: ")):
        trial, own = by_x[x]
        tries = [*written[x], *last]
        assert own[: len(tries)] == tries
        assert own[len(tries) + 1 : -1] == tries
        again, failed = own[len(tries)], own[-1]
        assert again.startswith(f"failed, and is tried again: {error}"), again
        assert again.endswith(f"(traceback: {uri.format(trial, '_1')})")
        assert failed.startswith(f"failed: {error}"), failed
        assert failed.endswith(f"(traceback: {uri.format(trial, '')})")
        for number in ("_1", ""):
            assert catalog_for().read_bytes(uri.format(trial, number))
    shown = [line for line in lines if len(line) < 1000 and not line.endswith("] ")]
    missing = [line for line in shown if line not in output]
    assert not missing, "the task's log lacks lines of the driver's"
