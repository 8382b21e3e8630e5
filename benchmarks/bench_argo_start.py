"""What a task's pod costs from start to end: `raynode argo run-task` against the import of Airflow's task runner alone.

`python benchmarks/bench_argo_start.py [--repeats 15]`. CPU seconds (user and system) of whole processes, and the time
that passes. The goal: at most 0.4 CPU seconds over that import. The kinds of pods alternate with it in one run, so that
what the machine does besides meets all; the numbers are medians. `without the collector` is the same import with
Python's garbage collector at rest and its objects left out of the last collection, as the pods import it: the
difference to that is what is ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
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

    @task(trigger_rule="one_success")
    def after(x):
        return x

    each.expand(x=[1, 2])
    after(one())
"""
_IMPORT = "import airflow.sdk.execution_time.task_runner"
_AT_REST = f"import gc; gc.disable(); {_IMPORT}; gc.freeze()"
_REFERENCE, _RESTING = "the import of Airflow's task runner", "… without the collector"
_GOAL_S = 0.4


@dataclass
class Times:
    """What the runs of one command took."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, command: list[str], env: dict[str, str], exit_code: int) -> None:
        """Run a command that must end with an exit code."""
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == exit_code, f"{command}: exit code {process.returncode}"
        self.wall.append(time.perf_counter() - begin)
        self.cpu.append(usage.ru_utime + usage.ru_stime)


def main() -> None:
    """Print the medians, and what each pod takes over the import."""
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
        run_task = [raynode, "argo", "run-task", "--pipeline-file", str(file), "--outputs", str(root / "out")]
        one = [*run_task, "--run-id", "run", "--step-name"]
        commands = {
            _REFERENCE: ([sys.executable, "-c", _IMPORT], 0),
            _RESTING: ([sys.executable, "-c", _AT_REST], 0),
            "a pod with a plain task": ([*one, "one"], 0),
            "a pod with a mapped task": ([*one, "each", "--map-variable", '{"map_index": 1}'], 0),
            "a pod that plans an expansion": ([*one, "each", "--plan"], 0),
            "a pod that decides not to run": (
                [*run_task, "--run-id", "no", "--step-name", "after", "--decide=pod"],
                101,
            ),
        }
        times = {name: Times() for name in commands}
        for command, exit_code in commands.values():
            # Bytecode and Airflow's configuration file are made once.
            Times().add(command, env, exit_code)
        for _ in range(repeats):
            for name, (command, exit_code) in commands.items():
                times[name].add(command, env, exit_code)
    cpu = {name: statistics.median(each.cpu) for name, each in times.items()}
    print(f"{'median of ' + str(repeats):<40} {'CPU s':>7} {'over':>7} {'ratio':>6} {'passed s':>9}")
    for name, each in times.items():
        over, ratio = cpu[name] - cpu[_REFERENCE], cpu[name] / cpu[_REFERENCE]
        print(f"{name:<40} {cpu[name]:7.2f} {over:+7.2f} {ratio:6.2f} {statistics.median(each.wall):9.2f}")
    worst = max(cpu[name] for name in commands if name.startswith("a pod"))
    over, ours = worst - cpu[_REFERENCE], worst - cpu[_RESTING]
    said = "met" if over <= _GOAL_S else "MISSED"
    print(
        f"goal: at most {_GOAL_S} CPU s over the import; worst: {over:+.2f}: {said}; over the resting one: {ours:+.2f}"
    )


if __name__ == "__main__":
    main()
