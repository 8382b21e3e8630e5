"""What fits on a cluster, how many at a time, and the words for what is short. test_placement_on_ray.py asks Ray."""
# ruff: noqa: E501  one case per line

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.runtime.placement import Node, fitting, place, says_it_grows
from airflow_provider_raynode.runtime.shortage import shortage

TUNE = {"search_space": {"lr": {"type": "uniform", "low": 0, "high": 1}}, "metric": "loss", "mode": "min"}


def unit(**config: Any) -> Any:
    return unit_of(RayConfig.load(config))


def trials(scaling: dict[str, Any], **tune: Any) -> Any:
    return unit(ray_tune={**TUNE, **tune}, ray_train={"scaling": scaling})


def training(**scaling: Any) -> Any:
    return unit(ray_train={"scaling": scaling})


def nodes(*resources: dict[str, float], **labels: str) -> list[Node]:
    return [Node.of(each, labels) for each in resources]


# What a trial's own process reserves, beside its workers.
OWN: dict[str, Any] = {"resources": {"num_cpus": 1}}
FOUR = {"CPU": 4.0, "memory": 8e9, "object_store_memory": 1e9, "node:1.2.3.4": 1.0}


@pytest.mark.parametrize(
    ("asked", "cluster", "message"),
    [
        (trials({"num_workers": 5}), nodes(FOUR), "each trial needs 5 CPUs (5 workers x 1), the cluster has 4. Lower ray_train.scaling, or"),
        (trials({"num_workers": 4}, resources={"num_cpus": 1}), nodes(FOUR), "each trial needs 5 CPUs (4 workers x 1 + 1 for the trial), the cluster has 4. Lower ray_tune.resources or ray_train.scaling, or"),
        (trials({"num_workers": 1}, resources={"num_cpus": 4}), nodes(FOUR), "each trial needs 5 CPUs (1 for the worker + 4 for the trial), the cluster has 4. Lower ray_tune.resources or ray_train.scaling"),
        (unit(ray_tune=TUNE, default_resources={"num_cpus": 8}), nodes(FOUR), "each trial needs 8 CPUs, the cluster has 4. Lower default_resources, or use a larger cluster"),
        (unit(ray_tune=TUNE, default_resources={"num_cpus": 3}), nodes({"CPU": 2.0}, {"CPU": 2.0}), "a trial needs 3 CPUs on one node, and no node has that: 2 CPUs; 2 CPUs"),
        (unit(ray_tune=TUNE, default_resources={"num_gpus": 1}), nodes(FOUR), "a trial needs 1 GPU, and no node of the cluster has any. Change default_resources, or use a cluster that has it"),
        (unit(default_resources={"memory": 9e9}), nodes(FOUR), "each call needs 9,000,000,000 bytes of memory, the cluster has 8,000,000,000"),
        (unit(default_resources={"resources": {"license": 1}}), nodes({"CPU": 1.0, "License": 1.0}), "a call needs 1 of 'license', and no node of the cluster has any; did you mean 'License'"),
        (training(num_workers=2, use_gpu=True), nodes(FOUR), "a worker needs 1 GPU, and no node of the cluster has any"),
        (training(num_workers=2, use_gpu=True), nodes({"CPU": 4.0, "GPU": 1.0}), "the training needs 2 GPUs (2 workers x 1), the cluster has 1"),
        (training(num_workers=3, use_gpu=True, resources_per_worker={"GPU": 0.6}), nodes({"CPU": 4.0, "GPU": 2.0}), "the training needs 3 workers with 0.6 GPUs each, which do not fit on the nodes side by side: 2 GPUs"),
        (training(num_workers=5, placement_strategy="STRICT_PACK"), nodes(FOUR, FOUR), "the training needs 5 workers with 1 CPU each on one node (STRICT_PACK), and no node has that: 4 CPUs; 4 CPUs"),
        (training(num_workers=3, placement_strategy="STRICT_SPREAD"), nodes(FOUR, FOUR), "the training needs 3 nodes, one for each of its processes (STRICT_SPREAD), and 2 of the cluster's 2 can hold one"),
        (training(num_workers=[3, 9]), nodes({"CPU": 2.0}), "the training needs 3 CPUs (3 workers x 1), the cluster has 2"),
        (training(label_selector={"zone": "in(a, b)"}), nodes(FOUR, zone="c"), "a worker needs a node with the labels zone: in(a,b), and no node of the cluster has them (there is zone: c)"),
        (training(label_selector={"disk": "ssd"}), nodes(FOUR), "(there is disk: on no node)"),
        (training(accelerator_type="a100"), nodes({"CPU": 4.0, "accelerator_type:A100": 1.0}), "a worker needs a node with the accelerator 'a100', and the cluster has A100; did you mean 'A100'"),
        (training(accelerator_type="T4"), nodes(FOUR), "and the cluster has none of which the type is known"),
        (training(num_workers=2, resources_per_worker={"CPU": 3}), nodes(FOUR), "the training needs 6 CPUs (2 workers x 3), the cluster has 4"),
        (training(num_workers=1), [], "a worker needs 1 CPU, and no node of the cluster has any"),
    ],
)  # fmt: skip
def test_what_is_short_is_named(asked: Any, cluster: list[Node], message: str) -> None:
    found = shortage(asked, cluster)
    assert found is not None
    assert message in found
    assert fitting(asked, cluster, most=9) == 0


@pytest.mark.parametrize(
    ("asked", "cluster", "count"),
    [
        (trials({"num_workers": 1}), nodes(FOUR), 4),
        (trials({"num_workers": 1}, **OWN), nodes(FOUR), 2),
        (trials({"num_workers": 3}, **OWN), nodes(FOUR), 1),
        (trials({"num_workers": 3}, **OWN), nodes(FOUR, {"CPU": 3.0}), 1),
        (trials({"num_workers": 3}, **OWN), nodes(FOUR, FOUR), 2),
        (unit(ray_tune=TUNE, default_resources={"num_cpus": 0.5}), nodes(FOUR), 8),
        (unit(ray_tune=TUNE, default_resources={"num_cpus": 0.1, "num_gpus": 0.3}), nodes({"CPU": 4.0, "GPU": 2.0}), 6),
        (training(num_workers=2, use_gpu=True, resources_per_worker={"GPU": 0.6}), nodes({"CPU": 4.0, "GPU": 2.0}), 1),
        (training(num_workers=2, placement_strategy="STRICT_SPREAD"), nodes(FOUR, FOUR, FOUR), 6),
        (training(num_workers=4, placement_strategy="STRICT_PACK"), nodes(FOUR, FOUR, {"CPU": 3.0}), 2),
        (training(num_workers=[1, 4]), nodes(FOUR), 4),
        (training(label_selector={"zone": "!c"}), nodes(FOUR, zone="a"), 4),
        (training(num_workers=2, label_selector=[{"zone": "a"}, {}]), [*nodes({"CPU": 1.0}, zone="a"), *nodes(FOUR, zone="b")], 1),
    ],
)  # fmt: skip
def test_how_many_run_at_a_time(asked: Any, cluster: list[Node], count: int) -> None:
    assert fitting(asked, cluster, most=50) == count
    assert shortage(asked, cluster) is None
    assert fitting(asked, cluster, most=1) == 1


def test_placing_leaves_the_nodes_as_they_are() -> None:
    cluster = nodes(FOUR)
    assert place(training(num_workers=4), cluster) is not None
    assert cluster == nodes(FOUR)


def test_many_units_are_counted_in_no_time() -> None:
    assert fitting(trials({"num_workers": 3}), nodes(*[{"CPU": 16.0}] * 50), most=200) == 200


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("a", "a", True), ("a", "b", False), ("a", None, False), ("!a", "b", True), ("!a", "a", False), ("!a", None, True),
        ("in(a, b)", "b", True), ("in(a,b)", "b", True), ("in(a, b)", "c", False), ("in(a, b)", None, False),
        ("!in(a, b)", "a", False), ("!in(a, b)", "c", True), ("!in(a, b)", None, True),
    ],
)  # fmt: skip
def test_labels(condition: str, value: str | None, holds: bool) -> None:
    node = Node.of({"CPU": 1}, {} if value is None else {"zone": value})
    assert node.matches({"zone": condition}) is holds


def test_what_a_unit_is() -> None:
    workers = {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}, "placement_strategy": "SPREAD"}
    assert trials(workers).bundles == [{"CPU": 0.5}, {"CPU": 0.5}]
    asked = trials(workers, **OWN)
    assert (asked.name, asked.strategy) == ("trial", "SPREAD")
    assert asked.bundles == [{"CPU": 1.0}, {"CPU": 0.5}, {"CPU": 0.5}]
    assert asked.total == {"CPU": 2.0}
    assert asked.labels is None
    labelled = unit(
        ray_tune={**TUNE, **OWN},
        ray_train={"scaling": {"num_workers": 2}},
        default_resources={"label_selector": {"a": "b"}},
    )
    assert labelled.labels == [{}, {"a": "b"}, {"a": "b"}], "default_resources are the workers', not the trial's own"
    mapped = unit(ray_map={"over": "x", "resources": {"num_cpus": 2}}, default_resources={"num_cpus": 1, "memory": 5})
    assert mapped.bundles == [{"CPU": 2.0, "memory": 5.0}]


def test_how_many_alike_a_node_holds() -> None:
    node = Node.of({"CPU": 4, "GPU": 2, "memory": 1e9})
    assert node.holds({"CPU": 0.1}) == 40
    assert node.holds({"CPU": 1, "GPU": 0.6}) == 2
    assert node.holds({"CPU": 1, "GPU": 0.5}) == 4
    assert node.holds({"CPU": 1, "GPU": 2}) == 1
    assert node.holds({"CPU": 1, "licence": 1}) == 0


@pytest.mark.parametrize(
    ("report", "grows"),
    [
        (None, None),
        ({"active_nodes": {"node_0a": 1, "node_0b": 1}, "pending_launches": {}, "pending_nodes": []}, False),
        ({"active_nodes": {"ray.head.default": 1}}, True),
        ({"active_nodes": {"headgroup": 1, "node_small": 2}}, True),
        ({"active_nodes": {}, "pending_launches": {"cpu_node": 1}}, True),
        ({"active_nodes": {"node_0a": 1}, "pending_nodes": [["10.0.0.1", "cpu_node", "waiting-for-ssh"]]}, True),
    ],
)
def test_who_says_that_a_cluster_grows(report: dict[str, Any] | None, grows: bool | None) -> None:
    status: dict[str, Any] = {"monitor_pid": 1, "load_metrics_report": {}}
    assert (
        says_it_grows(status | ({} if report is None else {"autoscaler_report": report}), ["0a", "0b", "0c"]) is grows
    )
