"""The text of `depends` and `when`: Airflow's rules in the words of Argo's controller.

`depends` decides between running and Omitted, which is Airflow's upstream_failed; `when` between running and Skipped.
Argo waits until all that `depends` names has ended before it looks at it. A name alone is then true where that one is
Succeeded or Skipped (or a daemon, which none of ours is), and `a || !a` always: it has ended, that is all.
A task that skipped itself has the phase Succeeded and the output `state=skipped`, so both are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from airflow_provider_raynode.argo.graph import Gate, Node, Upstream

_NO_FAILURE = frozenset(["all_success", "none_failed", "none_failed_min_one_success"])


def depends_of(node: Node) -> str:
    """Return a node's `depends`; empty where it waits for nothing."""
    upstream = [each.name for each in node.upstream]
    if node.rule in _NO_FAILURE:
        return _depends(needs=[*node.needs, *upstream], waits=node.waits)
    return _depends(needs=node.needs, waits=[*upstream, *node.waits])


def gate_depends(gate: Gate) -> str:
    """Return the gate's `depends`: omitted, and so of the failed phase above it, where a leaf that counts failed."""
    return _depends(needs=gate.needs, waits=gate.waits)


def when_of(node: Node) -> str:
    """Return a node's `when`; empty where it is not skipped by what lies upstream."""
    parts = [_rule(node.rule, node.upstream)] if node.upstream else []
    parts += [f"!({_output(name, 'skip')} contains ',{node.skip_name},')" for name in node.skipped_by]
    parts = [each for each in parts if each]
    return f"{{{{= {' && '.join(parts)} }}}}" if parts else ""


def depends_after(node: Node, source: str) -> str:
    """Return the `depends` of what makes way for a node: `source` has to have succeeded, the others as for the node."""
    others = replace(
        node,
        upstream=tuple(each for each in node.upstream if each.name != source),
        waits=tuple(name for name in node.waits if name != source),
        needs=tuple(name for name in node.needs if name != source),
    )
    rest = depends_of(others) if others.upstream or others.waits or others.needs else ""
    if not rest:
        return f"{source}.Succeeded"
    return f"{source}.Succeeded && {f'({rest})' if '||' in rest else rest}"


def when_after(node: Node, source: str) -> str:
    """Return the `when` of what makes way for a node: as the node's, and `source` is a success."""
    success, own = f"{_output(source, 'state')} == 'success'", when_of(node).removeprefix("{{= ").removesuffix(" }}")
    parts = [each for each in own.split(" && ") if each and each != success]
    return f"{{{{= {' && '.join([success, *parts])} }}}}"


def _rule(rule: str, upstream: Iterable[Upstream]) -> str:
    match rule:
        case "all_success":
            return _all(map(_is_success, upstream))
        case "none_failed_min_one_success":
            return _some(map(_is_success, upstream))
        case "all_failed":
            return _all(map(_is_failed, upstream))
        case "one_failed":
            return _some(map(_is_failed, upstream))
    return ""  # none_failed, all_done: nothing upstream skips it


def _is_success(one: Upstream) -> str:
    """Success of a task that is Succeeded or Skipped; where it is Skipped its output has the default `skipped`."""
    return f"{_status(one.name)} == 'Succeeded'" if one.podless else f"{_output(one.name, 'state')} == 'success'"


def _is_failed(one: Upstream) -> str:
    """Failed or upstream_failed. Outputs are not looked at: a pod that was lost has none, and Argo waits for them."""
    return f"{_status(one.name)} in ['Failed', 'Error', 'Omitted']"


def _all(terms: Iterable[str]) -> str:
    return " && ".join(terms)


def _some(terms: Iterable[str]) -> str:
    found = list(terms)
    return found[0] if len(found) == 1 else f"({' || '.join(found)})"


def _status(name: str) -> str:
    return f"tasks['{name}'].status"


def _output(name: str, parameter: str) -> str:
    return f"tasks['{name}'].outputs.parameters.{parameter}"


def _depends(*, needs: Iterable[str], waits: Iterable[str]) -> str:
    ended = [f"{name} || !{name}" for name in waits]
    parts = [*needs, *ended]
    return parts[0] if len(parts) == 1 else " && ".join([*needs, *(f"({each})" for each in ended)])
