"""A distributed training as Ray Train's own documentation writes it: what the node's is compared with."""

from __future__ import annotations

import os
import sys
import tempfile

# As the node sets it: Ray's own two seconds would make every report wait.
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"

import ray
import ray.train
import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(config: dict) -> None:
    import json
    import time
    from pathlib import Path

    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(7)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    averaged = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(averaged.parameters(), lr=0.001)
    x, y = torch.randn(64, 64), torch.randint(10, (64,))
    times = []
    for epoch in range(config["epochs"]):
        for _ in range(config["steps"]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(averaged(x), y).backward()
            optimizer.step()
            times.append(time.time())
        with tempfile.TemporaryDirectory() as folder:
            if ray.train.get_context().get_world_rank() == 0:
                torch.save({"weights": network.state_dict(), "epoch": epoch}, Path(folder, "state.pt"))
            ray.train.report({"loss": 1.0 / (epoch + 1)}, checkpoint=Checkpoint.from_directory(folder))
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["marks"]).write_text(json.dumps([times[0], times[-1], len(times)]))


if __name__ == "__main__":
    marks, epochs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="plain-", dir="/tmp") as storage:
        ray.init(address="local", include_dashboard=False)
        TorchTrainer(
            train,
            train_loop_config={"marks": marks, "epochs": epochs, "steps": steps},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(storage_path=storage, name="plain"),
        ).fit()
