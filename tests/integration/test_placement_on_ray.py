"""The decision whether something fits, against what a real Ray with several nodes does with it."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.units import Processes, Unit, unit_of
from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.runtime.placement import check, fitting, grows_by_itself, nodes_of_cluster, place

TUNE = {"search_space": {"lr": {"type": "uniform", "low": 0, "high": 1}}, "metric": "loss", "mode": "min"}
# What a trial's own process reserves, beside its workers.
OWN = {"resources": {"num_cpus": 1}}
# What Ray has placed it has placed at once; what it has not by then, nothing else being there, it never does.
_PLACED_S, _WAITING_S = 20.0, 0.6


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Four virtual nodes on this machine, without an autoscaler."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "labels": {"zone": "a"}}
    )
    try:
        made.add_node(num_cpus=4, num_gpus=2, labels={"zone": "b"}, resources={"accelerator_type:T4": 1})
        made.add_node(num_cpus=3, memory=1_000_000_000, labels={"zone": "b", "disk": "ssd"})
        made.add_node(num_cpus=1, resources={"licence": 2})
        made.wait_for_nodes()
        ray.init(address=made.address, logging_level="WARNING")
        yield
    finally:
        ray.shutdown()
        made.shutdown()


@contextlib.contextmanager
def reserved(unit: Unit, wait_s: float) -> Iterator[bool]:
    """Whether Ray places the unit within the time; it is removed after."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group(unit.bundles, unit.strategy, bundle_label_selector=unit.labels)
    try:
        yield group.wait(wait_s)
    finally:
        remove_placement_group(group)


def freed() -> None:
    """Wait until the whole cluster is free again."""
    import ray

    end = time.monotonic() + 20
    while time.monotonic() < end:
        total, free = ray.cluster_resources(), ray.available_resources()
        if all(free.get(name, 0) == amount for name, amount in total.items() if name in ("CPU", "GPU", "licence")):
            return
        time.sleep(0.02)
    pytest.fail("what was reserved is not free")


def any_unit(source: random.Random) -> Unit:
    """One or two kinds of processes, with fractions, labels and scarce resources."""
    kinds = []
    for name in ("trial", "worker")[: source.choice((1, 1, 2))]:
        bundle: dict[str, float] = {"CPU": source.choice((0.5, 1, 1, 2, 3))}
        if source.random() < 0.3:
            bundle["GPU"] = source.choice((0.3, 0.5, 0.6, 1, 2))
        if source.random() < 0.15:
            bundle["licence"] = source.choice((0.7, 1))
        if source.random() < 0.15:
            bundle["memory"] = source.choice((4e8, 9e8))
        if source.random() < 0.1:
            bundle["accelerator_type:T4"] = 0.001
        count = source.randint(1, 5)
        labels: tuple[dict[str, str], ...] = ()
        if source.random() < 0.3:
            conditions = ({"zone": "a"}, {"zone": "!a"}, {"zone": "in(a,b)"}, {"disk": "ssd"}, {})
            labels = tuple(source.choice(conditions) for _ in range(count))
        kinds.append(Processes(name, count, bundle, labels, "here"))
    return Unit("trial", tuple(kinds), source.choice(("PACK", "PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")))


def test_what_fits_is_what_ray_places(cluster: None) -> None:
    """Random units, each alone on the cluster."""
    source = random.Random(int(os.environ.get("RAYNODE_RANDOM_SEED", "12")))
    nodes, fits = nodes_of_cluster(), []
    for _ in range(int(os.environ.get("RAYNODE_PLACEMENTS", "40"))):
        unit = any_unit(source)
        fits.append(place(unit, nodes) is not None)
        with reserved(unit, _PLACED_S if fits[-1] else _WAITING_S) as placed:
            assert placed is fits[-1], unit
        freed()
    assert len(fits) // 5 < sum(fits) < len(fits) * 4 // 5, "both sides are tried"


@pytest.mark.parametrize(
    ("scaling", "trials"),
    [
        ({"num_workers": 2}, 3),
        ({"num_workers": 1, "use_gpu": True, "resources_per_worker": {"GPU": 0.6}}, 2),
        ({"num_workers": 2, "placement_strategy": "STRICT_PACK"}, 2),
    ],
)
def test_as_many_trials_as_are_said_to_fit_do(cluster: None, scaling: dict[str, Any], trials: int) -> None:
    config = RayConfig.load({"ray_tune": {**TUNE, **OWN}, "ray_train": {"scaling": scaling}})
    unit = unit_of(config)
    assert fitting(unit, nodes_of_cluster(), most=20) == trials
    with contextlib.ExitStack() as stack:
        for _ in range(trials):
            assert stack.enter_context(reserved(unit, _PLACED_S))
        assert not stack.enter_context(reserved(unit, _WAITING_S))
    freed()


def test_a_cluster_without_an_autoscaler_does_not_grow(cluster: None) -> None:
    assert grows_by_itself() is False
    with pytest.raises(
        ClusterError,
        match=r"each trial needs 12 CPUs \(11 workers x 1 \+ 1 for the trial\), the cluster has 10.*no autoscaler",
    ):
        config = RayConfig.load({"ray_tune": {**TUNE, **OWN}, "ray_train": {"scaling": {"num_workers": 11}}})
        check(unit_of(config), embedded=False)
    total = check(unit_of(RayConfig.load({"ray_tune": TUNE})), embedded=False)
    assert (total["CPU"], total["GPU"], total["licence"]) == (10, 2, 2)


def test_trials_run_on_the_nodes_that_are_asked_for(cluster: None, tmp_path: Any) -> None:
    """Labels and the accelerator's type reach the placement groups of Tune."""
    import ray
    from ray import tune

    from airflow_provider_raynode.runtime.search import resources

    def where(_: Any) -> None:
        labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
        own = labels[ray.get_runtime_context().get_node_id()]
        tune.report({"ssd": own.get("disk") == "ssd", "zone": own.get("zone", "")})

    for asked, column, value in (
        ({"label_selector": {"disk": "ssd"}}, "ssd", True),
        ({"accelerator_type": "T4"}, "zone", "b"),
    ):
        config = RayConfig.load({"ray_tune": TUNE, "default_resources": {"num_cpus": 0.5, **asked}})
        found = tune.Tuner(
            tune.with_resources(where, resources(config)),
            tune_config=tune.TuneConfig(num_samples=3, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
        assert [result.metrics[column] for result in found] == [value] * 3
