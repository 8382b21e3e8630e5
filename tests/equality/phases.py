"""The states of a run as Argo alone tells them: phases, outputs and exit codes.

Nothing of the product is in here but the names of the nodes: `workflow.read_outcome` asks the product's own rules for
what has no record, so that a wrong decision of the controller about such a task would not be seen there.
"""

from __future__ import annotations

import re
from typing import Any

from argo_simulator import Node, Result

from airflow_provider_raynode.argo.names import PLAN_SUFFIX, argo_names

_UPSTREAM_FAILED = 101


def node_state(node: Node) -> str:
    """Return the state in Airflow's words in which a node ended."""
    if node.phase == "Omitted":
        return "upstream_failed"
    if node.phase == "Skipped":
        return "skipped"
    if node.failed:
        return "upstream_failed" if node.exit_code == _UPSTREAM_FAILED else "failed"
    # Without a pod there are no outputs.
    return (node.outputs or {}).get("state", "success")


def phase_states(dag: Any, result: Result, known: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Return the states by task id and map index; -1 stands for all of a task that was never expanded.

    :param known: the states for the tasks of a mapped group that was never expanded: they may differ, and all that
        Argo has of them is one node. Whether that one fails the run is seen in the run's own state.
    """
    found: dict[tuple[str, int], str] = {}
    for task in dag.tasks:
        nodes = _nodes(dag, task, result)
        if -1 in nodes and task.get_closest_mapped_task_group() is not None:
            found[task.task_id, -1] = known[task.task_id, -1]
        else:
            found |= {(task.task_id, index): node_state(node) for index, node in nodes.items()}
    return found


def _nodes(dag: Any, task: Any, result: Result) -> dict[int, Node]:
    names = argo_names(dag)
    group = task.get_closest_mapped_task_group()
    own = names[task.task_id]
    if group is None and not task.is_mapped:
        return {-1: result.node(own)}
    base = own if group is None else names[group.group_id]
    below = "" if group is None else rf"\.{re.escape(own)}"
    matches = ((re.fullmatch(rf"{re.escape(base)}\((\d+)\){below}", path), path) for path in result.nodes)
    items = {int(match[1]): result.nodes[path] for match, path in matches if match}
    if items:
        return items
    plan = result.nodes.get(f"{base}{PLAN_SUFFIX}")
    return {-1: plan if plan is not None and node_state(plan) != "success" else result.node(base)}
