"""The text of `depends` and `when`: Airflow's rules in the words of Argo's controller.

`depends` decides between running and Omitted, which is Airflow's upstream_failed; `when` between running and Skipped.
Argo waits until all that `depends` names has ended before it looks at it. A name alone is then true where that one is
Succeeded or Skipped (or a daemon, which none of ours is), and `a || !a` always: it has ended, that is all.
A task that skipped itself has the phase Succeeded and the output `state=skipped`, so both are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from airflow_provider_raynode.argo.graph import Gate, Node, Upstream

_NO_FAILURE = frozenset(["all_success", "none_failed", "none_failed_min_one_success"])


def depends_of(node: Node) -> str:
    """Return a node's `depends`; empty where it waits for nothing."""
    upstream = [each.name for each in node.upstream]
    if node.kind == "order" and any(each.is_loop for each in node.upstream):
        # A group may be Succeeded though tasks in it have failed: those after it may go on.
        return _depends(needs=[], waits=[*node.needs, *upstream])
    if node.kind == "order":
        return _not_all([*node.needs, *upstream])
    if node.order and node.kind == "group":
        needs = [f"({each} || {node.order}.Succeeded)" for each in node.needs]
        return _depends(needs=[*needs, f"!({node.order}.Failed || {node.order}.Errored)"], waits=node.waits)
    if node.order:
        either = f"({' && '.join(upstream)}) || {node.order}.Succeeded"
        return _depends(needs=[f"({either})"], waits=node.waits) if node.waits else either
    if node.rule in _NO_FAILURE:
        return _depends(needs=[*node.needs, *upstream], waits=node.waits)
    return _depends(needs=node.needs, waits=[*upstream, *node.waits])


def gate_depends(gate: Gate) -> str:
    """Return the gate's `depends`: omitted, and so of the failed phase above it, where a leaf that counts failed."""
    return _depends(needs=gate.needs, waits=gate.waits)


def when_of(node: Node) -> str:
    """Return a node's `when`; empty where it is not skipped by what lies upstream."""
    if node.kind == "order":
        return _expression(_is_open(node))
    output = _output if not node.order else _output_if_any
    parts = [f"{_status(node.order)} != 'Succeeded'"] if node.order and node.kind != "group" else []
    parts += [_rule(node.rule, node.upstream, output)] if node.upstream else []
    parts += [f"!({output(name, 'skip')} contains ',{node.skip_name},')" for name in node.skipped_by]
    return _expression(" && ".join(each for each in parts if each))


def depends_after(node: Node, source: str) -> str:
    """Return the `depends` of what makes way for a node: `source` has to have succeeded, the others as for the node."""
    others = replace(
        node,
        upstream=tuple(each for each in node.upstream if each.name != source),
        waits=tuple(name for name in node.waits if name != source),
        needs=tuple(name for name in node.needs if name != source),
        order="",
    )
    rest = depends_of(others) if others.upstream or others.waits or others.needs else ""
    if not rest:
        return f"{source}.Succeeded"
    return f"{source}.Succeeded && {f'({rest})' if '||' in rest else rest}"


def when_after(node: Node, source: str) -> str:
    """Return the `when` of what makes way for a node: as the node's, and `source` is a success."""
    success, own = (
        f"{_output(source, 'state')} == 'success'",
        when_of(replace(node, order="")).removeprefix("{{= ").removesuffix(" }}"),
    )
    parts = [each for each in own.split(" && ") if each and each != success]
    return f"{{{{= {' && '.join([success, *parts])} }}}}"


def indexes_of(name: str, output: str) -> str:
    """Return a `withParam` for what a task's pod counted; nothing where it left none."""
    return _expression(f"{_output_if_any(name, output)} ?? '[]'")


def _is_open(node: Node) -> str:
    """Return the condition of an order node, where something before it has failed: something else was skipped.

    For a group over a list it is that too where the list failed, else that the list is empty.
    """
    if node.expansion is None:
        return _some_skipped(node.upstream)
    if not node.needs:
        return ""  # a literal without items
    (source,) = node.needs
    succeeded = f"{_status(source)} in ['Succeeded', 'Skipped']"
    is_empty = f"{_output_if_any(source, node.expansion.output)} == '[]'"
    # What a loop's items were is in no state of its own.
    skipped = [] if any(each.is_loop for each in node.upstream) else [_some_skipped(node.upstream)]
    return _some([_all([succeeded, is_empty]), _all([f"!({succeeded})", *skipped])])


def _some_skipped(upstream: Iterable[Upstream]) -> str:
    """Some task was skipped or skipped itself; one whose outputs nobody has, failed."""
    terms: list[str] = []
    for one in upstream:
        # A skipped one has the output's default `skipped`.
        if one.podless or not terms:
            terms.append(f"{_status(one.name)} == 'Skipped'")
        if not one.podless:
            terms.append(f"{_output_if_any(one.name, 'state')} == 'skipped'")
    return _some(terms)


def _expression(text: str) -> str:
    return f"{{{{= {text} }}}}" if text else ""


def _rule(rule: str, upstream: Iterable[Upstream], output: Callable[[str, str], str]) -> str:
    def is_success(one: Upstream) -> str:
        # Where it is Skipped its output has the default `skipped`.
        return f"{_status(one.name)} == 'Succeeded'" if one.podless else f"{output(one.name, 'state')} == 'success'"

    match rule:
        case "all_success":
            return _all(map(is_success, upstream))
        case "none_failed_min_one_success":
            return _some(map(is_success, upstream))
        case "all_failed":
            return _all(map(_is_failed, upstream))
        case "one_failed":
            return _some(map(_is_failed, upstream))
    return ""  # none_failed, all_done: nothing upstream skips it


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


def _output_if_any(name: str, parameter: str) -> str:
    """The same where the task may have failed: nil where its pod left none. Argo waits for one that is named by a path.

    (`getMemberPath` in Argo's expression_template.go: a call in it is no path.) The condition has to name a status
    first: in a sub-DAG Argo tries it once before there are any tasks, and takes what gives no error for the answer.
    """
    return f"get(get(get(tasks['{name}'], 'outputs'), 'parameters'), '{parameter}')"


def _not_all(names: list[str]) -> str:
    return f"!{names[0]}" if len(names) == 1 else f"!({' && '.join(names)})"


def _depends(*, needs: Iterable[str], waits: Iterable[str]) -> str:
    ended = [f"{name} || !{name}" for name in waits]
    parts = [*needs, *ended]
    return parts[0] if len(parts) == 1 else " && ".join([*needs, *(f"({each})" for each in ended)])
