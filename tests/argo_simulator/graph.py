"""The tree of nodes as the controller links it, and the phase of a DAG over it (assessDAGPhase)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from argo_simulator.nodes import FAILED, Node


class Graph:
    """All the nodes of a run, by Argo's names."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> Node:
        if node.name in self.nodes:
            raise AssertionError(f"node {node.name} already initialized")
        self.nodes[node.name] = node
        return node

    def connect(self, parent: str, child: str) -> None:
        children = self.nodes[parent].children
        if child not in children:
            children.append(child)

    def outbound(self, name: str) -> list[str]:
        """Return the nodes below which what follows a node hangs: the last of its try, its items, its own leaves."""
        node = self.nodes[name]
        if node.kind in ("Skipped", "Suspend", "Pod"):
            return [name]
        if node.kind == "TaskGroup":
            return [each for child in node.children for each in self.outbound(child)] or [name]
        if node.kind == "Retry" and node.children:
            return [node.children[-1]]
        return [each for inner in node.outbound for each in self.outbound(inner)]

    def dag_phase(self, boundary: str, targets: Mapping[str, Mapping[str, bool]], *, fail_fast: bool) -> str:
        """Return the phase of a DAG whose tasks are all at their end.

        A target that is Skipped or Omitted has the phase of the last completed node before it on any way, where a
        failure outranks success. Between targets that failed the last one counts, with fail_fast the first: as every
        running node is awaited either way, that is all that `failFast` makes of a difference here.

        :param targets: the names of the leaves' nodes, sorted, each with its `continueOn`.
        :returns: Running where a target is never reached: the controller would wait for ever.
        """
        phases = dict.fromkeys(targets, "")
        queue = [(each, "Succeeded") for each in self.nodes[boundary].children]
        seen = set(queue)
        while queue:
            name, branch = queue.pop(0)
            node = self.nodes[name]
            if not node.fulfilled:
                return "Running"
            branch = node.phase if node.completed else branch
            if name in phases and phases[name] not in FAILED:
                phases[name] = branch
            for each in self._below(node):
                if (each, branch) not in seen:
                    seen.add((each, branch))
                    queue.append((each, branch))
        result = "Succeeded"
        for name, phase in phases.items():
            if not phase:
                return "Running"
            if phase in FAILED and not targets[name].get("error" if phase == "Error" else "failed"):
                result = phase
                if fail_fast:
                    break
        return result

    def _below(self, node: Node) -> Iterable[str]:
        if node.kind != "Retry":
            return node.children
        # The tries themselves do not count, only what follows them.
        return [each for child in reversed(node.children) for each in self.nodes[child].children]
