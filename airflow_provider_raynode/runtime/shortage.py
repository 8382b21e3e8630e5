"""The words for what a unit of the work needs and the nodes of the cluster do not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_raynode.config.resources import ACCELERATOR_TYPE
from airflow_provider_raynode.config.units import Bundle, Processes, Unit
from airflow_provider_raynode.runtime.placement import PARTS, Node, place

_WORDS = {"memory": "bytes of memory"}


def shortage(unit: Unit, nodes: Sequence[Node]) -> str | None:
    """Return what a unit needs that the nodes do not have, with the remedy; None where it fits."""
    if place(unit, nodes) is not None:
        return None
    if missing := _label_missing(unit, nodes) or _kind_missing(unit, nodes):
        return f"{missing}. Change {said_in(unit)}, or use a cluster that has it"
    short = (
        _too_few(unit, nodes)
        or _too_large(unit, nodes)
        or _strategy_fails(unit, nodes)
        or f"{_each(unit)} {_needed(unit)}, which do not fit on the nodes side by side: {_nodes(unit, nodes)}"
    )
    return f"{short}. Lower {said_in(unit)}, or use a larger cluster"


def said_in(unit: Unit) -> str:
    """Return the keys of the config that say what the unit reserves."""
    return " or ".join(dict.fromkeys(each.said_in for each in unit.processes))


def _each(unit: Unit) -> str:
    return f"each {unit.name} needs" if unit.name != "training" else "the training needs"


def _one(processes: Processes) -> str:
    return f"a {processes.name} needs"


def _label_missing(unit: Unit, nodes: Sequence[Node]) -> str | None:
    for each in unit.processes:
        for labels in each.labels:
            if any(node.matches(labels) for node in nodes):
                continue
            wanted = ", ".join(f"{name}: {value}" for name, value in labels.items())
            have = "; ".join(f"{name}: {_values(name, nodes)}" for name in labels)
            return (
                f"{_one(each)} a node with the labels {wanted}, and no node of the cluster has them (there is {have})"
            )
    return None


def _values(name: str, nodes: Sequence[Node]) -> str:
    return ", ".join(sorted({node.labels[name] for node in nodes if name in node.labels})) or "on no node"


def _kind_missing(unit: Unit, nodes: Sequence[Node]) -> str | None:
    known = sorted({name for node in nodes for name, amount in node.resources.items() if amount})
    for each in unit.processes:
        for name, amount in each.bundle.items():
            if name in known:
                continue
            if name.startswith(ACCELERATOR_TYPE):
                kinds = [other.removeprefix(ACCELERATOR_TYPE) for other in known if other.startswith(ACCELERATOR_TYPE)]
                wanted = name.removeprefix(ACCELERATOR_TYPE)
                near = next((kind for kind in kinds if kind.lower() == wanted.lower()), None)
                hint = f"; did you mean {near!r}" if near else ""
                return (
                    f"{_one(each)} a node with the accelerator {wanted!r}, and the cluster has "
                    f"{', '.join(kinds) or 'none of which the type is known'}{hint}"
                )
            near = next((other for other in known if other.lower() == name.lower()), None)
            hint = f"; did you mean {near!r}" if near else ""
            return f"{_one(each)} {_amount(name, amount)}, and no node of the cluster has any{hint}"
    return None


def _too_few(unit: Unit, nodes: Sequence[Node]) -> str | None:
    have = _total(nodes)
    for name, amount in unit.total.items():
        if amount > have.get(name, 0.0):
            return (
                f"{_each(unit)} {_amount(name, amount)}{_sum(unit, name)}, the cluster has {_number(have.get(name, 0))}"
            )
    return None


def _too_large(unit: Unit, nodes: Sequence[Node]) -> str | None:
    for each in unit.processes:
        for labels in each.labels or ({},):
            fits = [node for node in nodes if node.matches(labels)]
            if not any(node.score(each.bundle) >= 0 for node in fits):
                of_them = " with its labels" if labels else ""
                return (
                    f"{_one(each)} {_bundle(each.bundle)} on one node, and no node{of_them} has that: "
                    f"{_nodes(unit, fits)}"
                )
    return None


def _strategy_fails(unit: Unit, nodes: Sequence[Node]) -> str | None:
    if unit.strategy == "STRICT_PACK":
        return f"{_each(unit)} {_needed(unit)} on one node (STRICT_PACK), and no node has that: {_nodes(unit, nodes)}"
    if unit.strategy == "STRICT_SPREAD":
        count = sum(each.count for each in unit.processes)
        able = sum(any(node.score(each.bundle) >= 0 for each in unit.processes) for node in nodes)
        return (
            f"{_each(unit)} {count} nodes, one for each of its processes (STRICT_SPREAD), and {able} of the cluster's "
            f"{len(nodes)} can hold one"
        )
    return None


def _needed(unit: Unit) -> str:
    return " and ".join(_with(each, unit) for each in unit.processes)


def _with(each: Processes, unit: Unit) -> str:
    if each.name == unit.name:
        return f"{_bundle(each.bundle)}{' for itself' if len(unit.processes) > 1 else ''}"
    if each.count == 1:
        return f"a {each.name} with {_bundle(each.bundle)}"
    return f"{each.count} {each.name}s with {_bundle(each.bundle)} each"


def _sum(unit: Unit, name: str) -> str:
    """Return of what a total is the sum, where it is one."""
    parts = [each for each in reversed(unit.processes) if each.bundle.get(name)]
    if len(parts) == 1 and parts[0].count == 1:
        return ""
    summands = (
        f"{each.count} {each.name}s x {_number(each.bundle[name])}"
        if each.count > 1
        else f"{_number(each.bundle[name])} for the {each.name}"
        for each in parts
    )
    return f" ({' + '.join(summands)})"


def _nodes(unit: Unit, nodes: Sequence[Node]) -> str:
    """Return what the nodes have of what the unit asks for, the largest first, ten at most."""
    names = list(unit.total)
    each = sorted((tuple(node.resources.get(name, 0) / PARTS for name in names) for node in nodes), reverse=True)
    lines = [_bundle(dict(zip(names, amounts, strict=True))) for amounts in each[:10]]
    return "; ".join(lines) + ("; …" if len(each) > len(lines) else "") if lines else "there is none"


def _total(nodes: Iterable[Node]) -> dict[str, float]:
    total: dict[str, int] = {}
    for node in nodes:
        for name, amount in node.resources.items():
            total[name] = total.get(name, 0) + amount
    return {name: amount / PARTS for name, amount in total.items()}


def _bundle(bundle: Bundle) -> str:
    return ", ".join(_amount(name, amount) for name, amount in bundle.items() if not name.startswith(ACCELERATOR_TYPE))


def _amount(name: str, amount: float) -> str:
    if name in ("CPU", "GPU", "TPU"):
        return f"{_number(amount)} {name}{'' if amount == 1 else 's'}"
    return f"{_number(amount)} {_WORDS[name]}" if name in _WORDS else f"{_number(amount)} of {name!r}"


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:g}"
