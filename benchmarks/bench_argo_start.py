"""The start of a task's pod: `raynode argo run-task` against `import airflow.sdk` plus the task itself, in one run.

`python benchmarks/bench_argo_start.py [--repeats 15]`. The goal: within 1.3 times. Both load the same DAG file in a new
process and call the same function; the runner's side also checks the call, renders, writes XCom, record and outputs.
The two alternate, so that what the machine does besides meets both; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_DAG = """
from airflow.sdk import DAG, task

with DAG("start", schedule=None):
    @task
    def one():
        return sum(range(1000))

    @task
    def each(x):
        return x

    each.expand(x=[1, 2])
    one()
"""
# What Python alone needs for the same function: the SDK and the DAG file.
_CALL = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("dag_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.one.function())
"""
_GOAL = 1.3


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Return how long a process takes that must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each (15)")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="raynode-bench-") as folder:
        root = Path(folder)
        file = root / "start.py"
        file.write_text(_DAG)
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(root / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__RAYNODE__CATALOG": str(root / "catalog"),
            # A pod has no database.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/no.db",
        }
        raynode = str(Path(sys.executable).with_name("raynode"))
        index = '{"map_index": 1}'
        run_task = [raynode, "argo", "run-task", "--pipeline-file", str(file), "--run-id", "run"]
        commands = {
            "python -c 'import airflow.sdk'": [sys.executable, "-c", "import airflow.sdk; airflow.sdk.DAG"],
            "the SDK, the DAG file and the task's function": [sys.executable, "-c", _CALL, str(file)],
            "raynode argo run-task, a plain task": [*run_task, "--step-name", "one", "--outputs", str(root / "out")],
            "raynode argo run-task, a mapped task": [*run_task, "--step-name", "each", "--map-variable", index],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            # Bytecode and Airflow's configuration file are made once.
            seconds(command, env)
        for _ in range(repeats):
            for name, command in commands.items():
                times[name].append(seconds(command, env))
    medians = {name: statistics.median(found) for name, found in times.items()}
    reference = medians["the SDK, the DAG file and the task's function"]
    print(f"{'median of ' + str(repeats):<50} {'seconds':>8} {'ratio':>6}")
    for name, median in medians.items():
        print(f"{name:<50} {median:8.3f} {median / reference:6.2f}")
    worst = max(median for name, median in medians.items() if name.startswith("raynode")) / reference
    print(f"goal: at most {_GOAL}; worst: {worst:.2f}: {'met' if worst <= _GOAL else 'MISSED'}")


if __name__ == "__main__":
    main()
