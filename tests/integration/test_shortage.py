"""What the cluster has not enough of fails the job at once, whatever the node runs, and names what is short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driven import Ran
from plain_work import Node

pytestmark = pytest.mark.ray

SPACE = {"search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}, "num_samples": 1}
NO_GPU = "needs 1 GPU, and no node of the cluster has any"


@pytest.mark.parametrize(
    ("tune", "train", "resources", "message"),
    [
        (SPACE, None, {"num_gpus": 1}, f"a trial {NO_GPU}. Change default_resources"),
        (SPACE, None, {"num_cpus": 3}, "each trial needs 3 CPUs, the cluster has 2. Lower default_resources"),
        (SPACE, None, {"label_selector": {"zone": "a"}}, "a trial needs a node with the labels zone: a"),
        (None, {"num_workers": 2, "use_gpu": True}, None, f"a worker {NO_GPU}. Change ray_train.scaling"),
        (None, {"num_workers": 3}, None, "the training needs 3 CPUs (3 workers x 1), the cluster has 2"),
        (None, {"num_workers": [3, 9]}, None, "the training needs 3 CPUs (3 workers x 1), the cluster has 2"),
        (
            None,
            {"num_workers": 2, "placement_strategy": "STRICT_SPREAD"},
            None,
            "2 nodes, one for each of its processes",
        ),
        (None, {"accelerator_type": "A100"}, None, "a worker needs a node with the accelerator 'A100'"),
        (SPACE, {"num_workers": 4}, {}, "each trial needs 4 CPUs (4 workers x 1), the cluster has 2"),
        (SPACE, {"num_workers": 1, "use_gpu": True}, {}, f"a worker {NO_GPU}"),
    ],
)
def test_of_searches_and_trainings(
    run: Callable[..., Ran],
    tune: dict[str, Any] | None,
    train: dict[str, Any] | None,
    resources: dict[str, Any] | None,
    message: str,
) -> None:
    options: dict[str, Any] = {} if train is None else {"ray_train": {"scaling": train}}
    failure = run(lambda x=0: {"score": x}, tune, resources=resources or {"memory": 1}, **options).failure
    assert failure.type == "ClusterError"
    assert message in failure.message


def test_of_a_function(connected: None, tmp_path: Path) -> None:
    failure = Node(tmp_path, lambda: 1, {}, resources={"num_gpus": 0.5}).run().failure
    assert failure.type == "ClusterError"
    assert "a call needs 0.5 GPUs, and no node of the cluster has any. Change default_resources" in failure.message
