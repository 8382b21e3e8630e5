"""The export of large DAGs: time and size by number of tasks, and the parts of the time, in one run.

`python benchmarks/bench_export.py [--tasks 1000]`. The goals: 1,000 tasks in under 3 s after import, time and size
linear in the tasks. Three shapes: a layered DAG with two upstream tasks each, one wide fan-in, a chain.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="raynode-bench-"))
_REPEATS = 3
_SHAPES = {
    "layered": """
    layers = [[one.override(task_id=f"task_{i}_{j}")() for j in range(20)] for i in range(N // 20)]
    for above, below in zip(layers, layers[1:]):
        for j in range(20):
            [above[j], above[j - 1]] >> below[j]
""",
    "fan-in": """
    many = [one.override(task_id=f"task_{i}")() for i in range(N - 1)]
    many >> one.override(task_id="last")()
""",
    "chain": """
    many = [one.override(task_id=f"task_{i}")() for i in range(N)]
    for above, below in zip(many, many[1:]):
        above >> below
""",
}


def dag_file(folder: Path, shape: str, tasks: int) -> Path:
    path = folder / f"{shape.replace('-', '_')}_{tasks}.py"
    path.write_text(
        f"from airflow.sdk import DAG, task\n\nN = {tasks}\n\n"
        f'with DAG("{path.stem}", schedule="@daily"):\n    @task\n    def one():\n        return 1\n{_SHAPES[shape]}'
    )
    return path


def best(function: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    tasks = parser.parse_args().tasks
    begin = time.perf_counter()
    import airflow.sdk  # noqa: F401

    from airflow_provider_raynode.argo.dag_file import load_dag
    from airflow_provider_raynode.argo.export import export_dag
    from airflow_provider_raynode.argo.lint import lint_text

    print(f"import: {time.perf_counter() - begin:.1f} s\n")
    print("| shape | tasks | parse s | export s | of that lint s | kB | export of 2x tasks, ratio | kB, ratio |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for shape in _SHAPES:
            rows = []
            for count in (tasks, 2 * tasks):
                path = dag_file(Path(scratch), shape, count)
                parse = best(lambda path=path: load_dag(path))
                dag = load_dag(path)
                export = export_dag(dag, path)
                whole = best(lambda dag=dag, path=path: export_dag(dag, path))
                lint = best(lambda text=export.text: lint_text(text))
                rows.append((parse, whole, lint, len(export.text) / 1000))
            (parse, whole, lint, size), (_, twice_time, _, twice_size) = rows
            print(
                f"| {shape} | {tasks} | {parse:.2f} | {whole:.2f} | {lint:.2f} | {size:.0f} | {twice_time / whole:.2f} "
                f"| {twice_size / size:.2f} |"
            )


if __name__ == "__main__":
    main()
