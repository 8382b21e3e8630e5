"""A training of the node against the same script under plain Ray Train: steps per second, time to the first step.

Both start an embedded Ray, two workers and PyTorch's process group, train the same network with a report and a
checkpoint after each epoch. They alternate, so that a slow minute of the machine meets both; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("RAY_ADDRESS", None)

CONFIG = {
    "ray_train": {
        "trainer": "torch",
        "scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}},
        "metric": "loss",
        "mode": "min",
    }
}


def train(epochs: int, steps: int, marks: str) -> None:
    import json
    import tempfile
    import time
    from pathlib import Path

    import torch
    from torch.nn.parallel import DistributedDataParallel

    from airflow_provider_raynode import context, report

    torch.manual_seed(7)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    averaged = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(averaged.parameters(), lr=0.001)
    x, y = torch.randn(64, 64), torch.randint(10, (64,))
    times = []
    for epoch in range(epochs):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(averaged(x), y).backward()
            optimizer.step()
            times.append(time.time())
        with tempfile.TemporaryDirectory() as folder:
            if context().rank == 0:
                torch.save({"weights": network.state_dict(), "epoch": epoch}, Path(folder, "state.pt"))
            report({"loss": 1.0 / (epoch + 1)}, checkpoint=Path(folder))
    if context().rank == 0:
        Path(marks).write_text(json.dumps([times[0], times[-1], len(times)]))


def figures(marks: Path, begin: float) -> tuple[float, float]:
    """Return the seconds to the first step and the steps per second."""
    first, last, count = json.loads(marks.read_text())
    return first - begin, (count - 1) / (last - first)


def plain(epochs: int, steps: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        marks, begin = Path(folder, "marks"), time.time()
        command = [sys.executable, str(HERE / "scripts" / "plain_train.py"), str(marks), str(epochs), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not marks.exists():
            raise SystemExit(f"the plain script failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return figures(marks, begin)


def node(epochs: int, steps: int) -> tuple[float, float]:
    from airflow_provider_raynode.launchers.local import LocalLauncher

    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder, "marks")
        job = stage(Path(folder, "catalog"), {"epochs": epochs, "steps": steps, "marks": str(marks)})
        begin = time.time()
        with LocalLauncher() as launcher:
            launcher.ensure(job)
            while not launcher.status(job).state.ended:
                time.sleep(0.1)
            if not marks.exists():
                raise SystemExit(f"the node failed:\n{launcher.read_log(job, 0, final=True).text[-3000:]}")
        return figures(marks, begin)


def stage(root: Path, op_kwargs: dict[str, Any]) -> Any:
    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.operators._function import stage_function
    from airflow_provider_raynode.spec import JobRef, NodeSpec, RunContext, Versions, digest, submission_id

    catalog = Catalog(str(root))
    where = ("bench", "run", "node", -1)
    folder = catalog.at(catalog.node_prefix(*where))
    spec = NodeSpec(
        submission_id=submission_id(*where, 1, catalog.uri),
        attempt=1,
        context=RunContext(dag_id="bench", run_id="run", node_id="node"),
        function=stage_function(train, folder),
        op_kwargs=op_kwargs,
        config=CONFIG,
        catalog_uri=catalog.uri,
        node_prefix=folder.prefix_uri,
        staged_by=Versions(python=platform.python_version(), package="bench"),
    )
    data = spec.to_bytes()
    uri = f"{spec.attempt_prefix}/spec.json"
    folder.write_bytes(uri, data)
    return JobRef(
        launcher="local",
        submission_id=spec.submission_id,
        attempt=1,
        address="local",
        spec_uri=uri,
        spec_sha256=digest(data),
        catalog_uri=catalog.uri,
        node_prefix=folder.prefix_uri,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300, help="of an epoch")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"script": [], "node": []}
    for _ in range(args.repeat):
        found["script"].append(plain(args.epochs, args.steps))
        found["node"].append(node(args.epochs, args.steps))
        for name, runs in found.items():
            print(f"{name:7} first step after {runs[-1][0]:6.2f} s, {runs[-1][1]:7.1f} steps/s", flush=True)
    start = {name: statistics.median(each[0] for each in runs) for name, runs in found.items()}
    speed = {name: statistics.median(each[1] for each in runs) for name, runs in found.items()}
    print(f"time to the first step: {start['node'] / start['script']:.3f} of the script's (goal: at most 1.1)")
    print(f"steps per second:       {speed['node'] / speed['script']:.3f} of the script's (goal: at least 0.98)")


if __name__ == "__main__":
    main()
