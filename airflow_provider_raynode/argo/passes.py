"""Which of two task instances ended first, as Airflow's scheduler sees it.

Time is counted in passes of the scheduler, as `dag.test()` makes them: it looks what may run, all of that runs, it
looks again (`DAG.test` and `DagRun.update_state` of Airflow 3.3). So an outcome that depends on what came first is the
same in each run, however long the tasks take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from airflow_provider_raynode.argo.rules import Decision, settled_in
from airflow_provider_raynode.argo.shape import rule_of
from airflow_provider_raynode.argo.skips import skippers

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import TaskRecord


class Passes:
    """The passes in which the task instances of a run ended.

    :param instances: returns the states of a task's instances by map index.
    :param record: returns the record of a task instance, None where no pod of it ran.
    """

    def __init__(
        self,
        dag: DAG,
        instances: Callable[[str], Mapping[int, str]],
        record: Callable[[str, int], TaskRecord | None],
    ) -> None:
        self._dag = dag
        self._instances = instances
        self._record = record
        self._begun: dict[str, int] = {}

    def first_of_skipped_and_failed(self, upstream: Mapping[tuple[str, int], str]) -> Decision:
        """Return what an all_success task becomes that has both before it: Airflow decides by the first that it sees.

        :param upstream: the states of the upstream task instances, by task id and map index.
        """
        ended = [(state, self.ended_in(*each)) for each, state in upstream.items()]
        skipped = settled_in("all_success", "skipped", ended)
        return "skipped" if skipped < settled_in("all_success", "upstream_failed", ended) else "upstream_failed"

    def ended_in(self, task_id: str, map_index: int) -> int:
        """Return the pass in which a task instance ended, 1 first; each try of it took one."""
        if task_id not in self._begun:
            # From the top: a chain may be longer than Python's stack is deep.
            above = self._dag.task_dict[task_id].get_flat_relative_ids(upstream=True) | {task_id}
            graph = {each: sorted(self._dag.task_dict[each].upstream_task_ids) for each in sorted(above)}
            for each in TopologicalSorter(graph).static_order():
                if each not in self._begun:
                    self._begun[each] = self._begins_in(each)
        record = self._record(task_id, map_index)
        return self._begun[task_id] + (0 if record is None else max(record.try_number - record.first_try, 0))

    def _begins_in(self, task_id: str) -> int:
        """Return the pass in which the instances of a task began, or in which it was decided that they do not run."""
        states = self._instances(task_id)
        for each in skippers(self._dag, task_id):
            record = self._record(each, -1)
            if record is not None and any(record.has_skipped(task_id, index) for index in states):
                return self.ended_in(each, -1)
        rule = rule_of(self._dag.task_dict[task_id])
        if rule == "always":
            return 1
        ended = [
            (state, self.ended_in(each, index))
            for each in self._dag.task_dict[task_id].upstream_task_ids
            for index, state in self._instances(each).items()
        ]
        return 1 + settled_in(rule, self._decision(task_id, states), ended)

    def _decision(self, task_id: str, states: Mapping[int, str]) -> str:
        # Of a mapped task all instances are decided at once, but by index in a mapped group: any of them will do.
        index, state = next(iter(states.items()), (-1, "skipped"))
        record = self._record(task_id, index)
        ran = state in ("success", "failed") or (record is not None and record.try_number > 0)
        return "run" if ran else state
