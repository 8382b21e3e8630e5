"""A DAG as Argo sees it: scopes of nodes, what each waits for, and who decides whether it runs.

The controller decides wherever Argo's own phases and the `state` outputs say enough; elsewhere the node's own pod does,
by `states.RunStates`, which costs a pod where the task is then skipped. Pure: nothing of Argo's syntax is in here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_raynode.argo.expansion import indexes_output, mapped_node, source_ids, total_length
from airflow_provider_raynode.argo.names import ORDER_SUFFIX, PLAN_SUFFIX, argo_names, mapped_group_ids
from airflow_provider_raynode.argo.shape import counted_leaves, is_podless, rule_of, scope_of, setups_further_up
from airflow_provider_raynode.argo.skips import may_be_mixed, passes_on, skippers
from airflow_provider_raynode.argo.task_sdk._dag import expand_input

if TYPE_CHECKING:
    from airflow.sdk import DAG

# Rules that the controller can hold. The others are about states that only a task's outputs tell, and a pod that was
# lost leaves none: Argo would wait for them for ever.
CONTROLLED = frozenset(
    ("all_success", "none_failed", "none_failed_min_one_success", "all_done", "all_failed", "one_failed")
)
# Those that leave only Succeeded and Skipped upstream, which always have outputs.
_NO_FAILURE = frozenset(("all_success", "none_failed", "none_failed_min_one_success"))
# Among them, those for which an upstream task that surely succeeded makes no difference.
_NEUTRAL = frozenset(("all_success", "none_failed", "all_done"))


@dataclass(frozen=True)
class Upstream:
    """An upstream task whose phase and state the controller looks at."""

    name: str
    podless: bool
    is_loop: bool = False
    """Whether it has a node for each map index: such a one has no state of its own."""


@dataclass(frozen=True)
class Expansion:
    """Where the map indexes of a node come from."""

    kind: Literal["literal", "direct", "plan"]
    length: int = 0
    source: str = ""
    """Argo name of the node whose pod gives the indexes."""
    output: str = ""
    """Name of the output that holds them, where it is `direct`."""


@dataclass(frozen=True)
class Node:
    """One node of a scope: a task, a mapped task, a mapped task group, or what is asked about one of them first.

    A plan counts the map indexes. An order node runs only where the phases before it leave the outcome open: one thing
    was skipped and another failed, or a task group has nothing to map over and something beside its list failed. Its
    pod tells by the order in which Airflow sees them: it ends well for skipped, else with the exit code for
    upstream_failed.
    """

    id: str
    name: str
    kind: Literal["task", "group", "plan", "order"]
    skip_name: str = ""
    """The name under which a branch lists it."""
    rule: str = "all_success"
    upstream: tuple[Upstream, ...] = ()
    """What the rule is about, where the controller decides."""
    decided_in_pod: bool = False
    waits: tuple[str, ...] = ()
    """Argo names to wait for, whatever becomes of them."""
    needs: tuple[str, ...] = ()
    """Argo names that must have succeeded or been skipped."""
    order: str = ""
    """Argo name of its order node."""
    skipped_by: tuple[str, ...] = ()
    expansion: Expansion | None = None
    podless: bool = False


@dataclass(frozen=True)
class Gate:
    """The end of a scope where its leaves alone would not give Airflow's state of the run."""

    needs: tuple[str, ...]
    waits: tuple[str, ...]


@dataclass
class Scope:
    """The nodes of the DAG itself (id None), or of one mapped task group."""

    id: str | None
    name: str = ""
    nodes: list[Node] = field(default_factory=list)
    gate: Gate | None = None


class CycleThroughGroupError(Exception):
    """A task outside a mapped group lies between two tasks of it; `args` are the group's and the task's id."""


def build_scopes(dag: DAG) -> list[Scope]:
    """Return the scopes of a DAG: the DAG's own first, then one for each mapped task group.

    :raises CycleThroughGroupError: see the class.
    """
    return _Builder(dag).build()


def tasks_between(dag: DAG) -> list[tuple[str, str]]:
    """Return each mapped group and task where the task lies between two tasks of the group and outside it."""
    builder = _Builder(dag)
    return [(group, task) for group in mapped_group_ids(dag) for task in builder.between(group)]


def podless_tasks(dag: DAG) -> frozenset[str]:
    """Return the ids of the tasks that run without a pod."""
    nodes = (node for scope in build_scopes(dag) for node in scope.nodes)
    return frozenset(node.id for node in nodes if node.podless)


class _Builder:
    def __init__(self, dag: DAG) -> None:
        self._dag = dag
        self._names = argo_names(dag)
        self._groups = mapped_group_ids(dag)
        self._scope_of = {task.task_id: scope_of(task) for task in dag.tasks}
        self._has_setups = any(task.is_setup for task in dag.tasks)
        self._podless: set[str] = set()

    def build(self) -> list[Scope]:
        scopes = {each: Scope(each, self._names[each] if each else "") for each in (None, *self._groups)}
        placed: set[str] = set()
        for task in self._sorted():
            group_id = self._scope_of[task.task_id]
            if group_id is not None and group_id not in placed:
                placed.add(group_id)
                scopes[None].nodes += self._group_nodes(group_id)
            scopes[group_id].nodes += self._task_nodes(task)
        if self._needs_gates(scopes.values()):
            for scope in scopes.values():
                scope.gate = self._gate(scope)
        return list(scopes.values())

    def _sorted(self) -> Iterator[Any]:
        """Yield the tasks, each after its upstream; Airflow's own order takes a task group for one node."""
        above = {task.task_id: sorted(task.upstream_task_ids) for task in self._dag.tasks}
        return (self._dag.task_dict[each] for each in TopologicalSorter(above).static_order())

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _task_nodes(self, task: Any) -> list[Node]:
        node = self._decided(task)
        if node.podless:
            self._podless.add(task.task_id)
        nodes = self._expanded(task, node) if task.is_mapped else [node]
        return [*self._order_of(nodes[0]), *nodes]

    def _order_of(self, node: Node) -> list[Node]:
        if not node.order:
            return []
        return [Node(id=node.id, name=node.order, kind="order", upstream=node.upstream)]

    def _decided(self, task: Any) -> Node:
        """Return the node of a task with who decides whether it runs, as if it were not mapped."""
        task_id, rule = task.task_id, rule_of(task)
        scope = self._scope_of[task_id]
        name = self._names[task_id]
        base: dict[str, Any] = {"id": task_id, "name": name, "kind": "task", "skip_name": name, "rule": rule}
        base["podless"] = is_podless(task)
        if rule == "always" or not task.upstream_task_ids:
            return Node(**base)
        direct = sorted(task.upstream_task_ids)
        inside = [each for each in direct if self._scope_of[each] == scope]
        surely = self._surely_succeeded(scope) if rule in _NEUTRAL else set()
        plain = [each for each in inside if not self._dag.task_dict[each].is_mapped]
        if (
            rule in CONTROLLED
            and len(plain) == len(inside)
            and set(direct) - set(inside) <= surely
            and self._is_free_of_setups(task, rule)
            and self._skips_are_plain(task, inside, rule)
            and not self._list_may_be_skipped_first(task, rule, direct)
        ):
            base["upstream"] = tuple(self._upstream(each) for each in inside)
            base["skipped_by"] = tuple(self._names[each] for each in skippers(self._dag, task_id) if each in inside)
            # With nothing before it in its own scope, the group's own order node has decided.
            is_open = bool(inside) and may_be_mixed(self._dag, task_id)
            return Node(**base, order=f"{name}{ORDER_SUFFIX}" if is_open else "")
        waits = {self._names[each] for each in inside} | self._setups_between(task) | self._skipper_names(task)
        # A task that always runs lets those below it go on before its setups have ended.
        further_up = set() if task.is_teardown else self._setups_above(task)
        waits |= {self._names[each] for each in further_up if self._scope_of[each] == scope}
        base["podless"] = False
        return Node(**base, decided_in_pod=True, waits=self._in_scope(scope, [*direct, *further_up], waits))

    def _in_scope(self, scope: str | None, direct: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
        found = set(names)
        if scope is None:
            found |= {self._outer_name(each) for each in direct}
        return tuple(sorted(found))

    def _upstream(self, task_id: str) -> Upstream:
        return Upstream(self._names[task_id], task_id in self._podless)

    def _skippers(self, task: Any, scope: str | None) -> tuple[str, ...]:
        found = (each for each in skippers(self._dag, task.task_id) if self._scope_of[each] == scope)
        return tuple(self._names[each] for each in found)

    def _skipper_names(self, task: Any) -> set[str]:
        return set(self._skippers(task, self._scope_of[task.task_id]))

    def _skips_are_plain(self, task: Any, inside: list[str], rule: str) -> bool:
        """Whether what lies directly upstream tells all when another task skips this one.

        It does where that is the skipper itself, or is skipped by it as well and the rule passes that on. Else a
        failure there would make the task upstream_failed, though Airflow has skipped it.
        """
        found = skippers(self._dag, task.task_id)
        if found and rule not in _NO_FAILURE:
            return False
        for each in found:
            if self._scope_of[each] != self._scope_of[task.task_id] or self._dag.task_dict[each].is_mapped:
                return False
            if each not in inside and rule != "all_success":
                return False
            if not all(other == each or self._is_skipped_by(other, each) for other in inside):
                return False
        return True

    def _is_skipped_by(self, task_id: str, skipper: str) -> bool:
        # What always runs has run before the skipper has ended.
        return skipper in skippers(self._dag, task_id) and rule_of(self._dag.task_dict[task_id]) != "always"

    @staticmethod
    def _list_may_be_skipped_first(task: Any, rule: str, direct: list[str]) -> bool:
        """Whether a skipped list may skip a task before a failure fails it, which the rule does not show."""
        is_open = rule in _NO_FAILURE and rule != "all_success" and len(direct) > 1
        return is_open and bool(task.is_mapped) and bool(source_ids(task))

    def _is_free_of_setups(self, task: Any, rule: str) -> bool:
        """Whether no setup further up bears on the task beyond what its direct upstream shows."""
        if task.is_teardown:
            return False
        further_up = self._setups_above(task)
        shown = frozenset[str]().union(*(passes_on(self._dag, each) for each in task.upstream_task_ids))
        return not further_up or (rule == "all_success" and further_up <= shown)

    def _setups_above(self, task: Any) -> set[str]:
        if not self._has_setups:
            return set()
        return setups_further_up(task)

    def _setups_between(self, task: Any) -> set[str]:
        """Return the names of what a teardown waits for: all between its setups and itself."""
        if not task.is_teardown:
            return set()
        above = task.get_flat_relative_ids(upstream=True)
        found: set[str] = set()
        for each in task.upstream_task_ids:
            if self._dag.task_dict[each].is_setup:
                below: set[str] = self._dag.task_dict[each].get_flat_relative_ids(upstream=False)
                found |= above & below
        scope = self._scope_of[task.task_id]
        return {self._names[each] if self._scope_of[each] == scope else self._outer_name(each) for each in found}

    # -- expansion -------------------------------------------------------------------------------------------------

    def _expanded(self, task: Any, decided: Node) -> list[Node]:
        sources = source_ids(task)
        if not sources and not decided.decided_in_pod:
            length = total_length(expand_input(task), lambda *_: None) or 0
            return [_replace(decided, expansion=Expansion("literal", length))]
        direct = len(sources) == 1 and self._is_plain_source(sources[0])
        if direct and not decided.decided_in_pod and decided.rule == "all_success":
            return [_replace(decided, expansion=self._direct(task.task_id, self._names[sources[0]]))]
        by_index = any(self._dag.task_dict[each].is_mapped for each in skippers(self._dag, task.task_id))
        return self._planned(decided, decided_by_index=by_index)

    def _direct(self, mapped_id: str, source: str) -> Expansion:
        return Expansion("direct", source=source, output=indexes_output(self._dag, mapped_id))

    def _is_plain_source(self, task_id: str) -> bool:
        return not self._dag.task_dict[task_id].is_mapped and self._scope_of[task_id] is None

    def _planned(self, decided: Node, *, decided_by_index: bool = False) -> list[Node]:
        plan = f"{decided.name}{PLAN_SUFFIX}"
        return [
            _replace(decided, name=plan, kind="plan", podless=False),
            Node(
                id=decided.id,
                name=decided.name,
                kind=decided.kind,
                rule="plan",
                decided_in_pod=decided_by_index,
                needs=(plan,),
                expansion=Expansion("plan", source=plan),
            ),
        ]

    # -- mapped task groups ----------------------------------------------------------------------------------------

    def _group_nodes(self, group_id: str) -> list[Node]:
        group = mapped_node(self._dag, group_id)
        sources = source_ids(group)
        beside = self._outer_upstream(group_id) - set(sources)
        others = {self._outer_name(each) for each in beside}
        self._check_cycle(group_id)
        base = Node(id=group_id, name=self._names[group_id], kind="group", waits=tuple(sorted(others)))
        if not sources:
            length = total_length(expand_input(group), lambda *_: None) or 0
            base = _replace(base, expansion=Expansion("literal", length))
            return self._with_order(base, beside) if others and not length else [base]
        if len(sources) == 1 and self._is_plain_source(sources[0]):
            source = self._names[sources[0]]
            base = _replace(base, needs=(source,), expansion=self._direct(group_id, source))
            return self._with_order(base, beside) if beside - passes_on(self._dag, sources[0]) else [base]
        plan, node = self._planned(base)
        waits = sorted({self._outer_name(each) for each in sources} | others)
        return [_replace(plan, decided_in_pod=True, waits=tuple(waits)), node]

    def _with_order(self, group: Node, beside: set[str]) -> list[Node]:
        """Return a mapped group with its order node: its tasks may have failed though there is nothing to map over."""
        upstream = {self._outer_name(each): self._outer(each) for each in sorted(beside)}
        order = Node(
            id=group.id,
            name=f"{group.name}{ORDER_SUFFIX}",
            kind="order",
            needs=group.needs,
            upstream=tuple(upstream[each] for each in sorted(upstream)),
            expansion=group.expansion,
        )
        return [order, _replace(group, order=order.name)]

    def _outer(self, task_id: str) -> Upstream:
        is_loop = self._scope_of[task_id] is not None or bool(self._dag.task_dict[task_id].is_mapped)
        return Upstream(self._outer_name(task_id), task_id in self._podless, is_loop)

    def _outer_upstream(self, group_id: str) -> set[str]:
        """Return the ids of the tasks outside that the group's tasks have upstream."""
        found: set[str] = set()
        for task_id, scope in self._scope_of.items():
            if scope == group_id:
                task = self._dag.task_dict[task_id]
                above = set(task.upstream_task_ids) | set(skippers(self._dag, task_id)) | self._setups_above(task)
                found |= {each for each in above if self._scope_of[each] != group_id}
        return found

    def _check_cycle(self, group_id: str) -> None:
        if found := self.between(group_id):
            raise CycleThroughGroupError(group_id, found[0])

    def between(self, group_id: str) -> list[str]:
        """Return the tasks outside a mapped group that lie between two tasks of it."""
        inside = {each for each, scope in self._scope_of.items() if scope == group_id}
        below: set[str] = set()
        for each in inside:
            below |= self._dag.task_dict[each].get_flat_relative_ids(upstream=False)
        return sorted((below - inside) & self._all_above(inside))

    def _all_above(self, task_ids: set[str]) -> set[str]:
        found: set[str] = set()
        for each in task_ids:
            found |= self._dag.task_dict[each].get_flat_relative_ids(upstream=True)
        return found

    def _surely_succeeded(self, scope: str | None) -> set[str]:
        """Return the tasks outside a mapped group that have succeeded when one of its indexes runs."""
        if scope is None:
            return set()
        # Of a mapped source some instances may have failed: the group then maps over what the others pushed.
        return {each for each in source_ids(mapped_node(self._dag, scope)) if self._is_plain_source(each)}

    def _outer_name(self, task_id: str) -> str:
        """Return the name of the node that stands for a task in the DAG's own scope."""
        return self._names[self._scope_of[task_id] or task_id]

    # -- gates -----------------------------------------------------------------------------------------------------

    def _needs_gates(self, scopes: Iterable[Scope]) -> bool:
        """Whether Argo's phase of the leaves may differ from Airflow's state of the run."""
        return any(
            task.is_teardown or rule_of(task) != "all_success" or skippers(self._dag, task.task_id)
            for task in self._dag.tasks
        ) or any(node.order for scope in scopes for node in scope.nodes)

    def _gate(self, scope: Scope) -> Gate:
        inside = [task for task in self._dag.tasks if scope.id is None or self._scope_of[task.task_id] == scope.id]
        counted = {task.task_id for task in inside} & counted_leaves(self._dag)
        name = self._names.__getitem__ if scope.id is not None else self._outer_name
        needs = {name(each) for each in counted}
        named = {
            each
            for node in scope.nodes
            for each in (*node.waits, *node.needs, *(one.name for one in node.upstream), node.order)
        }
        waits = {node.name for node in scope.nodes} - named - needs
        return Gate(needs=tuple(sorted(needs)), waits=tuple(sorted(waits)))


def _replace(node: Node, **changes: Any) -> Node:
    return dataclasses.replace(node, **changes)
