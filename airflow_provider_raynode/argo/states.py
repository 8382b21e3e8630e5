"""The state of every task instance of a run, from what the pods recorded and what the trigger rules make of it.

Argo's controller skips and omits tasks by the same rules without a pod, so what has no record can be worked out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import is_expanded_at_once, map_indexes, mapped_node, source_ids
from airflow_provider_raynode.argo.graph import podless_tasks
from airflow_provider_raynode.argo.passes import Passes, Upstream
from airflow_provider_raynode.argo.rules import EARLY_RULES, Decision, outcomes
from airflow_provider_raynode.argo.shape import counted_leaves, expanded_by, rule_of, setups_further_up
from airflow_provider_raynode.argo.skips import skippers

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore, TaskRecord


class RunStates:
    """The states of a run's task instances; ask only for what is upstream of a task that may run.

    States are kept once they are known: make a new object to look again.
    """

    def __init__(self, dag: DAG, store: RunStore) -> None:
        self._dag = dag
        self._store = store
        self._records: dict[tuple[str, int], TaskRecord | None] = {}
        self._states: dict[tuple[str, int], str] = {}
        self._indexes: dict[str, list[int] | None] = {}
        self._podless: frozenset[str] | None = None
        self._settled: set[str] = set()
        self._passes = Passes(dag, self.instances, self.upstream, self._record)

    def state(self, task_id: str, map_index: int = -1) -> str:
        """Return the state in which a task instance ended: success, failed, skipped or upstream_failed."""
        key = (task_id, map_index)
        if key not in self._states:
            self._states[key] = self._ended(task_id, map_index)
        return self._states[key]

    def instances(self, task_id: str) -> dict[int, str]:
        """Return the states by map index; `{-1: state}` where a task is not mapped, or was never expanded."""
        task = self._dag.task_dict[task_id]
        mapped_id = expanded_by(task)
        if mapped_id is None:
            return {-1: self.state(task_id)}
        if not self._is_expanded(mapped_id) or (task.is_mapped and self.decide(task_id) != "run"):
            return {-1: self.state(task_id)}
        return {index: self.state(task_id, index) for index in self._expanded(mapped_id) or ()}

    def recorded(self, task_id: str) -> dict[int, str]:
        """Return the states that are on record so far, by map index; the indexes of what is running are among them."""
        indexes = [index for index in (-1, *self._store.map_indexes(task_id)) if self._record(task_id, index)]
        mapped_id = expanded_by(self._dag.task_dict[task_id])
        if mapped_id is not None:
            indexes = sorted({*indexes, *(self._expanded(mapped_id) or ())})
        found: dict[int, str] = {}
        for index in indexes:
            record = self._record(task_id, index)
            found[index] = record.state if record else "scheduled"
        return found

    def decide(self, task_id: str, map_index: int = -1) -> Decision:
        """Return what becomes of a task instance whose upstream has ended, by its trigger rule.

        :param map_index: -1 for a mapped task stands for all of its indexes.
        """
        task = self._dag.task_dict[task_id]
        if self._skipped_by_another(task, map_index):
            if is_expanded_at_once(self._dag, task_id):
                # Airflow skips such instances when it looks at them next, where they wait still.
                return self._passes.decide(task_id, map_index)[0]
            return "skipped"
        rule = rule_of(task)
        if rule == "always" or not task.upstream_task_ids:
            return "run"
        self._settle_above(task)
        upstream = self.upstream(task_id, map_index)
        possible = outcomes("all_success", upstream.setups_further_up.values())
        possible |= outcomes(rule, upstream.direct.values(), setups=upstream.setups.values())
        possible |= outcomes("all_success", upstream.sources.values())
        is_early = rule in EARLY_RULES and bool(upstream.sources) and len(upstream.direct) > 1
        if len(possible - {"run"}) > 1 or (is_early and "run" in possible):
            # Airflow goes by what it sees first.
            return self._passes.decide(task_id, map_index)[0]
        return max(possible, key=lambda each: each != "run")

    def upstream(self, task_id: str, map_index: int) -> Upstream:
        """Return the states of all that bears on a task instance by its rule, its setups and its list."""
        task = self._dag.task_dict[task_id]
        direct = self._relevant(task, map_index, sorted(task.upstream_task_ids))
        further_up = [] if task.is_teardown else sorted(setups_further_up(task))
        mapped_id = expanded_by(task) if map_index < 0 else None
        return Upstream(
            direct=direct,
            setups={key: state for key, state in direct.items() if self._dag.task_dict[key[0]].is_setup},
            setups_further_up=self._relevant(task, map_index, further_up),
            sources={} if mapped_id is None else self._whole_sources(mapped_id),
        )

    def decide_expansion(self, mapped_id: str) -> tuple[Decision, list[int]]:
        """Return whether a mapped task or group runs, and for which map indexes."""
        if mapped_id in self._dag.task_dict:
            decision = self.decide(mapped_id)
            if decision != "run":
                return decision, []
        if self._is_expanded(mapped_id):
            return "run", self._expanded(mapped_id) or []
        return self._unexpanded(mapped_id), []

    # -- below the surface -----------------------------------------------------------------------------------------

    def _settle_above(self, task: Any) -> None:
        """Work out what lies before a task from the top: a chain may be longer than Python's stack is deep."""
        stack = [(each, False) for each in self._above(task)]
        while stack:
            task_id, is_worked_out = stack.pop()
            if is_worked_out:
                self.instances(task_id)
            elif task_id not in self._settled:
                self._settled.add(task_id)
                stack.append((task_id, True))
                above = self._dag.task_dict[task_id]
                # Where a record or the rule says what became of it, nothing before it is asked.
                if expanded_by(above) is not None or not (rule_of(above) == "always" or self._record(task_id, -1)):
                    stack += [(each, False) for each in self._above(above)]

    def _above(self, task: Any) -> set[str]:
        """Return the tasks that may bear on what becomes of a task: by its rule, as its setups, as its list."""
        found = set(task.upstream_task_ids) | (set() if task.is_teardown else setups_further_up(task))
        mapped_id = expanded_by(task)
        return found if mapped_id is None else found | set(source_ids(mapped_node(self._dag, mapped_id)))

    def _ended(self, task_id: str, map_index: int) -> str:
        record = self._record(task_id, map_index)
        if record is not None:
            # What a killed pod left is final: this is asked once Argo calls the node done.
            return "failed" if record.state in ("running", "up_for_retry") else record.state
        task = self._dag.task_dict[task_id]
        if map_index < 0 and expanded_by(task) is not None:
            return self._decide_unexpanded(task)
        decision = self.decide(task_id, map_index)
        if decision != "run":
            return decision
        # No pod of it ever began, though it was to run.
        if self._podless is None:
            self._podless = podless_tasks(self._dag)
        return "success" if task_id in self._podless else "failed"

    def _record(self, task_id: str, map_index: int) -> TaskRecord | None:
        key = (task_id, map_index)
        if key not in self._records:
            self._records[key] = self._store.record(task_id, map_index)
        return self._records[key]

    def _expanded(self, mapped_id: str) -> list[int] | None:
        if mapped_id not in self._indexes:
            self._indexes[mapped_id] = map_indexes(self._dag, mapped_id, self._store)
        return self._indexes[mapped_id]

    def _is_expanded(self, mapped_id: str) -> bool:
        """Whether a mapped task or group has instances, where nothing else stands against it."""
        # Instances of mapped sources do not count, but whole ones (`MappedTaskUpstreamDep` of Airflow 3.3).
        return bool(self._expanded(mapped_id)) and set(self._whole_sources(mapped_id).values()) <= {"success"}

    def _unexpanded(self, mapped_id: str) -> Decision:
        """Return what becomes of a mapped task or group that has no instances though its rule lets it run.

        Of a group the tasks count that make the state of the run; others only where there are none of them.
        """
        if mapped_id in self._dag.task_dict:
            # As Airflow does with a mapped task whose inputs were not pushed.
            return "upstream_failed" if self._expanded(mapped_id) is None else "skipped"
        inside = [task for task in self._dag.tasks if expanded_by(task) == mapped_id]
        counted = counted_leaves(self._dag)
        tasks = [task for task in inside if task.task_id in counted] or inside
        states = {self._decide_unexpanded(task) for task in tasks}
        return "upstream_failed" if "upstream_failed" in states else "skipped"

    def _decide_unexpanded(self, task: Any) -> Decision:
        """Return what becomes of a mapped task, or of a task in a mapped group, all of whose indexes are one."""
        decision = self.decide(task.task_id)
        return self._without_indexes(task) if decision == "run" else decision

    def _without_indexes(self, task: Any) -> Decision:
        mapped_id = expanded_by(task)
        return "upstream_failed" if mapped_id is None or self._expanded(mapped_id) is None else "skipped"

    def _whole_sources(self, mapped_id: str) -> dict[tuple[str, int], str]:
        """Return the states of what makes the list, but for the instances of a mapped source."""
        found = {}
        for each in source_ids(mapped_node(self._dag, mapped_id)):
            states = {} if is_expanded_at_once(self._dag, each) else self.instances(each)
            if -1 in states:
                found[each, -1] = states[-1]
        return found

    def _relevant(self, task: Any, map_index: int, upstream_ids: list[str]) -> dict[tuple[str, int], str]:
        """Return the states of the upstream task instances that count: in one mapped group those of one index."""
        own_group = task.get_closest_mapped_task_group()
        found: dict[tuple[str, int], str] = {}
        for each in upstream_ids:
            group = self._dag.task_dict[each].get_closest_mapped_task_group()
            if own_group is not None and group is not None and group.group_id == own_group.group_id:
                found[each, map_index] = self.state(each, map_index)
            else:
                found |= {(each, index): state for index, state in self.instances(each).items()}
        return found

    def _skipped_by_another(self, task: Any, map_index: int) -> bool:
        for each in skippers(self._dag, task.task_id):
            record = self._record(each, map_index if self._dag.task_dict[each].is_mapped else -1)
            if record is not None and record.state == "success" and record.has_skipped(task.task_id, map_index):
                return True
        return False
