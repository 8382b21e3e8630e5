"""What fits on the cluster: whether a unit of the work can start at all, how many at a time, and what is short.

`check` is for the start of a work: on a cluster that does not grow it is an error at once that a unit can never start.
`fitting` says how many units run at a time. Both go by what the nodes have, not by what is free of it: what others hold
now they give back. Bundles are put on nodes as Ray's own scheduler puts those of a placement group.

    unit = unit_of(config)                                 # a trial, with its workers where each trial is a training
    check(unit, embedded=job.embedded)                     # ClusterError: a trial needs 5 CPUs (…), the cluster has 4
    most = fitting(unit, nodes_of_cluster(), most=100)     # trials at a time
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_raynode.config.units import Bundle, Labels, Unit
from airflow_provider_raynode.exceptions import ClusterError

log = logging.getLogger(__name__)

# Ray counts in these parts of one.
PARTS = 10_000
# Of these a node has pieces: a process gets a part of one piece, or whole ones.
_PIECES = ("GPU", "TPU", "NPU", "HPU", "neuron_cores", "RBLN", "MBLT", "TTNPU", "FURIOSA")
_NOT_ASKED_FOR = ("node:", "object_store_memory")
# How long the monitor of a cluster may take to say what kind of cluster it is; it does every five seconds.
_REPORT_S = 12.0
_STATUS = "__autoscaling_status"


@dataclass
class Node:
    """A node with what is not reserved yet: resources in ten thousandths, accelerators piece by piece."""

    resources: dict[str, int]
    pieces: dict[str, list[int]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, resources: Mapping[str, float], labels: Mapping[str, str] | None = None) -> Node:
        """Return the node that has these resources, in the words of `ray.nodes()`."""
        counted = {name: _parts(amount) for name, amount in resources.items() if not name.startswith(_NOT_ASKED_FOR)}
        pieces = {name: [PARTS] * (amount // PARTS) for name, amount in counted.items() if name in _PIECES}
        return cls(counted, pieces, labels or {})

    def copy(self) -> Node:
        """Return one that can be reserved from without this one's changing."""
        return Node(dict(self.resources), {name: list(each) for name, each in self.pieces.items()}, self.labels)

    def matches(self, labels: Labels) -> bool:
        """Whether it has these labels."""
        return all(_holds(condition, self.labels.get(name)) for name, condition in labels.items())

    def holds(self, bundle: Bundle) -> int:
        """Return how many processes that reserve this it can hold."""
        return min((self._holds(name, _parts(amount)) for name, amount in bundle.items()), default=0)

    def _holds(self, name: str, wanted: int) -> int:
        if name not in self.pieces:
            return self.resources.get(name, 0) // wanted
        if wanted < PARTS:
            return sum(left // wanted for left in self.pieces[name])
        return sum(left == PARTS for left in self.pieces[name]) // -(-wanted // PARTS)

    def score(self, bundle: Bundle) -> float:
        """Return how much of it would be left, the higher the better; below 0 where the bundle does not fit."""
        score = 0.0
        for name, amount in bundle.items():
            has, wanted = self.resources.get(name, 0), _parts(amount)
            if wanted > has or (name in self.pieces and _taken(self.pieces[name], wanted) is None):
                return -1.0
            score += (has - wanted) / has if has else 0.0
        return score

    def reserve(self, bundle: Bundle) -> None:
        """Take the bundle, which fits."""
        for name, amount in bundle.items():
            wanted = _parts(amount)
            self.resources[name] = self.resources.get(name, 0) - wanted
            taken = _taken(self.pieces[name], wanted) if name in self.pieces else None
            for index, part in taken or ():
                self.pieces[name][index] -= part


def _parts(amount: float) -> int:
    return round(amount * PARTS)


def _taken(pieces: Sequence[int], wanted: int) -> list[tuple[int, int]] | None:
    """Return which pieces a process gets and how much of each, or None where they do not suffice."""
    if wanted >= PARTS:
        whole = [index for index, left in enumerate(pieces) if left == PARTS]
        count = -(-wanted // PARTS)
        return [(index, PARTS) for index in whole[:count]] if len(whole) >= count else None
    fits = [(left, index) for index, left in enumerate(pieces) if left >= wanted]
    return [(min(fits)[1], wanted)] if fits else None


def _holds(condition: str, value: str | None) -> bool:
    """Whether a label has a value that a selector of Ray asks for."""
    negated = condition.startswith("!")
    condition = condition.removeprefix("!")
    listed = re.fullmatch(r"(?:in)?\((.*)\)", condition)
    values = [each.strip() for each in listed[1].split(",")] if listed else [condition]
    return (value in values) != negated


def nodes_of_cluster() -> list[Node]:
    """Return the nodes of the cluster that this process is connected to."""
    import ray

    return [Node.of(node["Resources"], node.get("Labels")) for node in ray.nodes() if node["Alive"]]


def place(unit: Unit, nodes: Sequence[Node]) -> list[Node] | None:
    """Return the nodes as they are with the unit on them, or None where it does not fit.

    :param nodes: stay as they are.
    """
    left = [node.copy() for node in nodes]
    labels = unit.labels or [{}] * len(unit.bundles)
    bundles = sorted(zip(unit.bundles, labels, strict=True), key=lambda each: _rank(each[0]), reverse=True)
    placed = {"STRICT_PACK": _strict_pack, "STRICT_SPREAD": _strict_spread, "SPREAD": _spread, "PACK": _pack}
    return left if placed[unit.strategy](bundles, left) else None


_Bundles = Sequence[tuple[Bundle, Labels]]


def _rank(bundle: Bundle) -> tuple[object, ...]:
    """Return what Ray sorts bundles by, the scarce and the large first."""
    custom = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU", "memory")}
    return bundle.get("GPU", 0), sorted(custom.items(), reverse=True), bundle.get("memory", 0), bundle.get("CPU", 0)


def _best(bundle: Bundle, labels: Labels, nodes: Iterable[Node]) -> Node | None:
    scored = [(node.score(bundle), node) for node in nodes if node.matches(labels)]
    best = max(scored, key=lambda each: each[0], default=None)
    return best[1] if best is not None and best[0] >= 0 else None


def _pack(bundles: _Bundles, nodes: list[Node]) -> bool:
    waiting, candidates = list(bundles), list(nodes)
    while waiting:
        node = _best(*waiting[0], candidates)
        if node is None:
            return False
        rest = []
        for bundle, labels in waiting:
            if node.matches(labels) and node.score(bundle) >= 0:
                node.reserve(bundle)
            else:
                rest.append((bundle, labels))
        waiting = rest
        candidates = [each for each in candidates if each is not node]
    return True


def _spread(bundles: _Bundles, nodes: list[Node]) -> bool:
    fresh, used = list(nodes), list[Node]()
    for bundle, labels in bundles:
        node = _best(bundle, labels, fresh) or _best(bundle, labels, used)
        if node is None:
            return False
        node.reserve(bundle)
        if any(each is node for each in fresh):
            fresh = [each for each in fresh if each is not node]
            used.append(node)
    return True


def _strict_spread(bundles: _Bundles, nodes: list[Node]) -> bool:
    fresh = list(nodes)
    for bundle, labels in bundles:
        node = _best(bundle, labels, fresh)
        if node is None:
            return False
        node.reserve(bundle)
        fresh = [each for each in fresh if each is not node]
    return True


def _strict_pack(bundles: _Bundles, nodes: list[Node]) -> bool:
    for node in nodes:
        trial = node.copy()
        if all(trial.matches(labels) for _, labels in bundles) and _all_on(trial, bundles):
            node.resources, node.pieces = trial.resources, trial.pieces
            return True
    return False


def _all_on(node: Node, bundles: _Bundles) -> bool:
    for bundle, _ in bundles:
        if node.score(bundle) < 0:
            return False
        node.reserve(bundle)
    return True


def says_it_grows(status: Mapping[str, Any], nodes: Iterable[str]) -> bool | None:
    """Return whether the status of a cluster's monitor is that of an autoscaler, None where it says nothing of it yet.

    :param nodes: the ids of the nodes.
    """
    report = status.get("autoscaler_report")
    if not report:
        return None
    own = {f"node_{node}" for node in nodes}
    pending = {kind for _, kind, *_ in report.get("pending_nodes") or ()}
    return not {*report.get("active_nodes", ()), *report.get("pending_launches", ()), *pending} <= own


def fitting(unit: Unit, nodes: Sequence[Node], most: int) -> int:
    """Return how many of the unit run at a time on the nodes: 0 where not one fits.

    :param most: more than so many are not looked for.
    """
    count, left = 0, list(nodes)
    while count < most:
        with_it = place(unit, left)
        if with_it is None:
            break
        count, left = count + 1, with_it
    return count


def check(unit: Unit, *, embedded: bool) -> dict[str, float]:
    """Check that the unit can start on the cluster, and return what the cluster has.

    On a cluster that may grow, what does not fit yet is a warning: the startup timeout bounds the wait.

    :param embedded: whether Ray is the driver's own, which is this machine and does not grow.
    :raises ClusterError: it does not fit, and the cluster does not grow; the message names what is short.
    """
    import ray

    from airflow_provider_raynode.runtime.shortage import shortage

    total = {name: float(amount) for name, amount in ray.cluster_resources().items() if "node:" not in name}
    message = shortage(unit, nodes_of_cluster())
    if message is None:
        return total
    grows = False if embedded else grows_by_itself()
    if grows is False:
        raise ClusterError(message if embedded else f"{message}. The cluster has no autoscaler that could add nodes")
    log.warning("%s. Waiting for the cluster to grow.", message)
    return total


def grows_by_itself(wait_s: float = _REPORT_S) -> bool | None:
    """Return whether an autoscaler may add nodes to the cluster, None where nobody says so within `wait_s` seconds.

    The monitor of a cluster without one reports each node as a type of its own.
    """
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2(fetch_from_server=True):
        return True
    end = time.monotonic() + wait_s
    while True:
        status = json.loads(_internal_kv_get(_STATUS) or b"{}")
        grows = says_it_grows(status, [node["NodeID"] for node in ray.nodes()])
        if grows is not None:
            return grows
        if time.monotonic() > end:
            return None
        time.sleep(0.5)
