"""The DAGs of the fault tests: one per fault, each a single Ray node, made from `faults.json` beside this file."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag

from airflow_provider_raynode import context, get_checkpoint, ray_node, report


def train(x: int, seconds: float, marks: str, ending: str) -> dict[str, Any]:
    """Sleep, leave a mark, return; `ending` says how a trial misbehaves."""
    import os
    import signal
    import tempfile
    import time

    print(f"trial {x} runs")
    time.sleep(seconds)
    attempts = len(list(Path(marks).glob(f"seen{x}-*")))
    tempfile.mkstemp(prefix=f"seen{x}-", dir=marks)
    if ending == "killed" and x == 3 and attempts == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "error":
        raise ValueError(f"x must not be {x}")
    if ending == "nan":
        return {"score": float("nan")}
    tempfile.mkstemp(prefix=f"{x}-", dir=marks)
    return {"score": float(x), "square": [x * x]}


def stepwise(x: int, seconds: float, marks: str, ending: str) -> None:
    """Report ten steps with a checkpoint each, and leave a mark at the end."""
    import tempfile
    import time

    for step in range((get_checkpoint() or 0) + 1, 11):
        time.sleep(seconds / 10)
        report({"score": float(x + step)}, checkpoint=step)
    tempfile.mkstemp(prefix=f"{x}-", dir=marks)


def training(steps: int, seconds: float, marks: str, ending: str) -> None:
    """Report steps with a checkpoint each, from two workers; rank 0 leaves a mark after each."""
    import os
    import signal
    import tempfile
    import time

    rank, killed = context().rank, Path(marks, "killed")
    last = get_checkpoint()
    for step in range(0 if last is None else last + 1, steps):
        time.sleep(seconds)
        if step == 3 and rank == 1 and ending == "killed" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 3 and rank == 1 and ending == "hangs":
            time.sleep(600)
        report({"loss": 1 / (step + 1)}, checkpoint=step)
        if rank == 0:
            tempfile.mkstemp(prefix=f"{step}-", dir=marks)


def ray_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a fault's node runs."""
    if settings.get("function") == "training":
        return {
            "ray_train": {
                "scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.05}},
                "metric": "loss",
                "mode": "min",
                "report_timeout_s": 8,
                "failure": settings.get("failure", {}),
                **({"stop": settings["stop"]} if "stop" in settings else {}),
            }
        }
    return {
        "ray_tune": {
            "metric": "score",
            "mode": "max",
            "search_space": {"x": {"type": "grid_search", "values": list(range(settings["trials"]))}},
            "max_concurrent_trials": 2,
            "failure": settings.get("failure", {}),
        },
        "default_resources": {"num_cpus": settings.get("num_cpus", 0.05)},
    }


def make(settings: dict[str, Any]) -> None:
    """Make one DAG."""
    timeout = settings.get("dagrun_timeout_s")

    @dag(
        dag_id=settings["dag_id"],
        schedule=None,
        max_active_runs=8,
        dagrun_timeout=timedelta(seconds=timeout) if timeout else None,
    )
    def faults() -> None:
        is_training = settings.get("function") == "training"
        defaults: dict[str, Any] = {"retries": settings["retries"], "retry_delay": timedelta(seconds=1)}
        if "execution_timeout_s" in settings:
            defaults["execution_timeout"] = timedelta(seconds=settings["execution_timeout_s"])
        node = ray_node(
            "node",
            python_callable={"train": train, "stepwise": stepwise, "training": training}[
                settings.get("function", "train")
            ],
            ray_config={
                **ray_config(settings),
                **({"catalog": settings["catalog"]} if "catalog" in settings else {}),
                **({"ray_cluster": settings["ray_cluster"]} if "ray_cluster" in settings else {}),
            },
            op_kwargs={
                "seconds": settings["seconds"],
                "marks": settings["marks"],
                "ending": settings.get("ending", ""),
                **({"steps": settings.get("steps", settings["trials"])} if is_training else {}),
            },
            returns=["square"] if settings.get("function", "train") == "train" else [],
            ray_conn_id=settings["conn_id"],
            poll_interval_s=1.0,
            default_args=defaults,
            **settings.get("node", {}),
        )
        if "tune_pool" in settings:
            node.tune.pool = settings["tune_pool"]

    faults()


for each in json.loads(Path(__file__).with_name("faults.json").read_text()):
    make(each)
