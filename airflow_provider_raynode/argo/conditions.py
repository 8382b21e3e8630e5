"""The text of `depends` and `when`: Airflow's rules in the words of Argo's controller.

`depends` decides between running and Omitted, which is Airflow's upstream_failed; `when` between running and Skipped.
A task that skipped itself has the phase Succeeded and the output `state=skipped`, so both are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_raynode.argo.graph import Gate, Node, Upstream

_DONE = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted")
_SUCCEEDED_OR_SKIPPED = ("Succeeded", "Skipped")
_NO_FAILURE = frozenset(["all_success", "none_failed", "none_failed_min_one_success"])


def depends_of(node: Node) -> str:
    """Return a node's `depends`; empty where it waits for nothing."""
    parts = [_any_of(name, _SUCCEEDED_OR_SKIPPED) for name in node.needs]
    if node.rule in _NO_FAILURE:
        parts += [_any_of(each.name, _SUCCEEDED_OR_SKIPPED) for each in node.upstream]
    else:
        parts += [_any_of(each.name, _DONE) for each in node.upstream]
    if node.rule == "all_done_min_one_success" and node.upstream:
        alive = (_phase(each.name, phase) for each in node.upstream for phase in _SUCCEEDED_OR_SKIPPED)
        parts.append(f"({' || '.join(alive)})")
    parts += [_any_of(name, _DONE) for name in node.waits]
    return " && ".join(parts)


def gate_depends(gate: Gate) -> str:
    """Return the gate's `depends`: omitted, and so of the failed phase above it, where a leaf that counts failed."""
    parts = [_any_of(name, _SUCCEEDED_OR_SKIPPED) for name in gate.needs]
    return " && ".join(parts + [_any_of(name, _DONE) for name in gate.waits])


def when_of(node: Node) -> str:
    """Return a node's `when`; empty where it is not skipped by what lies upstream."""
    parts = [_rule(node.rule, node.upstream)] if node.upstream else []
    parts += [f"!({_output(name, 'skip')} contains ',{node.skip_name},')" for name in node.skipped_by]
    parts = [each for each in parts if each]
    return f"{{{{= {' && '.join(parts)} }}}}" if parts else ""


def _rule(rule: str, upstream: Iterable[Upstream]) -> str:
    each = list(upstream)
    match rule:
        case "all_success":
            return _all(map(_is_success, each))  # `depends` leaves only Succeeded and Skipped
        case "none_failed_min_one_success":
            return _some(map(_is_success, each))
        case "all_failed":
            return _all(map(_is_failed, each))
        case "one_failed":
            return _some(map(_is_failed, each))
        case "one_done":
            return _some(f"{_has_succeeded(one)} || {_is_failed_itself(one)}" for one in each)
        case "none_skipped" | "all_done_min_one_success":
            return _all(f"!({_is_skipped(one)})" for one in each)
        case "all_skipped":
            return _all(f"({_is_skipped(one)})" for one in each)
    return ""  # none_failed, all_done: nothing upstream skips it


def _is_success(one: Upstream) -> str:
    """Success of a task that is Succeeded or Skipped; where it is Skipped its output has the default `skipped`."""
    return f"{_status(one.name)} == 'Succeeded'" if one.podless else f"{_output(one.name, 'state')} == 'success'"


def _has_succeeded(one: Upstream) -> str:
    status = f"{_status(one.name)} == 'Succeeded'"
    return status if one.podless else f"({status} && {_output(one.name, 'state')} == 'success')"


def _is_skipped(one: Upstream) -> str:
    status = f"{_status(one.name)} == 'Skipped'"
    if one.podless:
        return status
    return f"{status} || ({_status(one.name)} == 'Succeeded' && {_output(one.name, 'state')} == 'skipped')"


def _is_failed(one: Upstream) -> str:
    return f"{_status(one.name)} in ['Failed', 'Error', 'Omitted']"


def _is_failed_itself(one: Upstream) -> str:
    """Failed by its own doing: not upstream_failed, which a pod that decides for itself says by its state."""
    failed = f"{_status(one.name)} in ['Failed', 'Error']"
    return failed if one.podless else f"({failed} && {_output(one.name, 'state')} != 'upstream_failed')"


def _all(terms: Iterable[str]) -> str:
    return " && ".join(terms)


def _some(terms: Iterable[str]) -> str:
    found = list(terms)
    return found[0] if len(found) == 1 else f"({' || '.join(found)})"


def _status(name: str) -> str:
    return f"tasks['{name}'].status"


def _output(name: str, parameter: str) -> str:
    return f"tasks['{name}'].outputs.parameters.{parameter}"


def _any_of(name: str, phases: Iterable[str]) -> str:
    return f"({' || '.join(_phase(name, phase) for phase in phases)})"


def _phase(name: str, phase: str) -> str:
    return f"{name}.{phase}"
