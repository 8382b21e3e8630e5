"""The state of every task instance of a run, from what the pods recorded and what the trigger rules make of it.

Argo's controller skips and omits tasks by the same rules without a pod, so what has no record can be worked out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.expansion import map_indexes, mapped_node, source_ids
from airflow_provider_raynode.argo.graph import podless_tasks
from airflow_provider_raynode.argo.passes import Passes
from airflow_provider_raynode.argo.rules import Decision, constrain, decide
from airflow_provider_raynode.argo.shape import expanded_by, rule_of, setups_further_up
from airflow_provider_raynode.argo.skips import may_be_skipped_first, skippers

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
        self._passes = Passes(dag, self.instances, self._record)

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
        decision = self._decide_whole(task, mapped_id)
        if decision != "run":
            return {-1: decision}
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
            return "skipped"
        rule = rule_of(task)
        if rule == "always" or not task.upstream_task_ids:
            return "run"
        self._settle_above(task)
        if not task.is_teardown:
            further_up = sorted(setups_further_up(task))
            constrained = constrain(self._relevant(task, map_index, further_up).values())
            if constrained != "run":
                return constrained
        direct = sorted(task.upstream_task_ids)
        setups = [each for each in direct if self._dag.task_dict[each].is_setup]
        states = self._relevant(task, map_index, direct)
        decision = decide(rule, states.values(), setups=self._relevant(task, map_index, setups).values())
        if decision == "upstream_failed" and "skipped" in states.values() and may_be_skipped_first(self._dag, task_id):
            return self._passes.first_of_skipped_and_failed(states)
        return decision

    def decide_expansion(self, mapped_id: str) -> tuple[Decision, list[int]]:
        """Return whether a mapped task or group runs, and for which map indexes."""
        task = self._dag.task_dict.get(mapped_id)
        decision = self._decide_group(mapped_id) if task is None else self.decide(mapped_id)
        if decision == "run":
            decision = self._decide_by_sources(mapped_id)
        if decision != "run":
            return decision, []
        indexes = self._expanded(mapped_id)
        if indexes is None:
            # As Airflow does with a mapped task whose inputs were not pushed.
            return "upstream_failed", []
        return ("run", indexes) if indexes else ("skipped", [])

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

    def _decide_whole(self, task: Any, mapped_id: str) -> Decision:
        """Return what becomes of a mapped task, or of a task in a mapped group, before it is expanded."""
        decision, _ = self.decide_expansion(mapped_id)
        if decision == "run" or task.is_mapped:
            return decision
        if self._decide_by_sources(mapped_id) == "upstream_failed":
            # Airflow sees that in all of the group's tasks at once, before their own upstream has ended.
            return "upstream_failed"
        # The group never ran: each of its tasks has what its own rule says.
        own = self.decide(task.task_id)
        return decision if own == "run" else own

    def _decide_by_sources(self, mapped_id: str) -> Decision:
        """Return what the tasks that make the list say, whatever the rule and whatever they pushed.

        After `MappedTaskUpstreamDep` of Airflow 3.3: instances of mapped sources do not count, but whole ones.
        """
        sources = source_ids(mapped_node(self._dag, mapped_id))
        whole = (self.instances(each).get(-1) for each in sources)
        return decide("all_success", [state for state in whole if state is not None])

    def _decide_group(self, group_id: str) -> Decision:
        group = self._dag.task_group_dict[group_id]
        states = [state for each in source_ids(group) for state in self.instances(each).values()]
        if any(self._dag.task_dict[each].is_mapped for each in source_ids(group)):
            # Those of a mapped source that did not push only make the list shorter.
            return "run" if "success" in states else decide("all_success", states)
        return decide("all_success", states)

    def _relevant(self, task: Any, map_index: int, upstream_ids: list[str]) -> dict[tuple[str, int], str]:
        """Return the states of the upstream task instances that count: in one mapped group those of one index."""
        own_group = task.get_closest_mapped_task_group()
        found: dict[tuple[str, int], str] = {}
        for each in upstream_ids:
            group = self._dag.task_dict[each].get_closest_mapped_task_group()
            if own_group is not None and group is own_group:
                is_expanded = map_index >= 0
                found[each, map_index] = (
                    self.state(each, map_index) if is_expanded else self._decide_in_unexpanded(each)
                )
            else:
                found |= {(each, index): state for index, state in self.instances(each).items()}
        return found

    def _decide_in_unexpanded(self, task_id: str) -> str:
        """Return the state of a task in a mapped group that was not expanded."""
        decision = self.decide(task_id)
        return "skipped" if decision == "run" else decision

    def _skipped_by_another(self, task: Any, map_index: int) -> bool:
        for each in skippers(self._dag, task.task_id):
            record = self._record(each, map_index if self._dag.task_dict[each].is_mapped else -1)
            if record is not None and record.state == "success" and record.has_skipped(task.task_id, map_index):
                return True
        return False
