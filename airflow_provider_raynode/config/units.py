"""What one unit of a node's work reserves on the cluster, all or nothing: a trial, a training, a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_raynode.config.resources import Resources

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_config import RayConfig

Bundle = Mapping[str, float]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Processes:
    """Processes that reserve the same.

    :param name: of one of them, e.g. worker.
    :param labels: what the node of each must have; empty where none is asked for.
    :param said_in: the keys of the config that say what they reserve.
    """

    name: str
    count: int
    bundle: Bundle
    labels: tuple[Labels, ...]
    said_in: str


@dataclass(frozen=True)
class Unit:
    """One unit of the work: the processes that run together.

    :param name: e.g. trial.
    :param strategy: how they are placed, as for a placement group of Ray.
    """

    name: str
    processes: tuple[Processes, ...]
    strategy: str = "PACK"

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The bundles of its placement group, in the order of its processes."""
        return [dict(each.bundle) for each in self.processes for _ in range(each.count)]

    @property
    def labels(self) -> list[dict[str, str]] | None:
        """The labels that each bundle asks for (`bundle_label_selector`), None where none does."""
        if not any(each.labels for each in self.processes):
            return None
        return [dict(labels) for each in self.processes for labels in each.labels or ({},) * each.count]

    @property
    def total(self) -> dict[str, float]:
        """What all of its processes reserve together."""
        total: dict[str, float] = {}
        for bundle in self.bundles:
            for name, amount in bundle.items():
                total[name] = total.get(name, 0.0) + amount
        return {name: round(amount, 4) for name, amount in total.items()}


def unit_of(config: RayConfig) -> Unit:
    """Return what runs first, and of which as many run at a time as fit.

    A trial of a search; with `ray_train` beside it with its workers, and its own process, which only waits for them,
    where that reserves something. A training: its workers, of an elastic one the least. Else a call of the function.
    """
    search, train = config.ray_tune, config.ray_train
    if search is not None:
        said_in = "default_resources" if search.resources == Resources() else "ray_tune.resources"
        if train is None:
            return Unit("trial", (_process("trial", config.trial_resources, said_in),))
        trial = _process("trial", config.trial_resources, said_in, num_cpus=0.0)
        processes = (trial, _workers(config)) if trial.bundle else (_workers(config),)
        return Unit("trial", processes, _strategy(config))
    if train is not None:
        return Unit("training", (_workers(config),), _strategy(config))
    own = None if config.ray_map is None else config.ray_map.resources
    said_in = "ray_map.resources" if own is not None and own != Resources() else "default_resources"
    return Unit("call", (_process("call", config.call_resources, said_in),))


def _process(name: str, resources: Resources, said_in: str, *, num_cpus: float = 1.0) -> Processes:
    labels = (resources.label_selector,) if resources.label_selector else ()
    return Processes(name, 1, resources.bundle(num_cpus=num_cpus), labels, said_in)


def _workers(config: RayConfig) -> Processes:
    assert config.ray_train is not None
    scaling, default = config.ray_train.scaling, config.default_resources
    least, _ = scaling.bounds
    labels = scaling.labels(default)
    return Processes(
        "worker", least, scaling.worker(default), tuple(labels[:least]) if labels else (), "ray_train.scaling"
    )


def _strategy(config: RayConfig) -> str:
    assert config.ray_train is not None
    return config.ray_train.scaling.placement_strategy
