"""Which of two task instances ended first, as Airflow's scheduler sees it.

Time is counted in passes of the scheduler, as `dag.test()` makes them: it looks what may run, all of that runs, it
looks again (`DAG.test` and `DagRun.update_state` of Airflow 3.3). So an outcome that depends on what came first is the
same in each run, however long the tasks take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from airflow_provider_raynode.argo.expansion import is_expanded_at_once
from airflow_provider_raynode.argo.rules import EARLY_RULES, Decision, decide_so_far
from airflow_provider_raynode.argo.shape import rule_of
from airflow_provider_raynode.argo.skips import skippers

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import TaskRecord

Instance = tuple[str, int]


@dataclass(frozen=True)
class Upstream:
    """The states of all that bears on a task instance, by task id and map index."""

    direct: Mapping[Instance, str]
    setups: Mapping[Instance, str]
    """Those among them that belong to setups."""
    setups_further_up: Mapping[Instance, str]
    sources: Mapping[Instance, str]
    """What makes the list of a mapped task or group that is not expanded yet."""


class Passes:
    """The passes in which the task instances of a run ended.

    :param instances: returns the states of a task's instances by map index.
    :param upstream: returns what bears on a task instance.
    :param record: returns the record of a task instance, None where no pod of it ran.
    """

    def __init__(
        self,
        dag: DAG,
        instances: Callable[[str], Mapping[int, str]],
        upstream: Callable[[str, int], Upstream],
        record: Callable[[str, int], TaskRecord | None],
    ) -> None:
        self._dag = dag
        self._instances = instances
        self._upstream = upstream
        self._record = record
        self._begun: dict[Instance, int] = {}

    def decide(self, task_id: str, map_index: int) -> tuple[Decision, int]:
        """Return what becomes of a task instance by what ends first before it, and the pass in which that is seen."""
        upstream = self._upstream(task_id, map_index)
        ended = {key: self.ended_in(*key) for part in (upstream.direct, upstream.setups_further_up) for key in part}
        listed = {key: self._seen_as_source(*key, by=task_id) for key in upstream.sources}
        skipped_in = self._skipped_in(task_id, map_index)
        for at in sorted({*ended.values(), *listed.values()}):
            decision = self._look(
                task_id,
                upstream,
                {key for key, when in ended.items() if when <= at},
                {key for key, when in listed.items() if when <= at},
            )
            if skipped_in is not None and skipped_in <= at and decision != "upstream_failed":
                return "skipped", at + 1
            if decision is not None:
                return decision, at + 1
        return "run", 1 + max(ended.values(), default=0)

    def ended_in(self, task_id: str, map_index: int) -> int:
        """Return the pass in which a task instance ended, 1 first; each try of it took one."""
        if (task_id, map_index) not in self._begun:
            # From the top: a chain may be longer than Python's stack is deep.
            above = self._dag.task_dict[task_id].get_flat_relative_ids(upstream=True) | {task_id}
            graph = {each: sorted(self._dag.task_dict[each].upstream_task_ids) for each in sorted(above)}
            for each in TopologicalSorter(graph).static_order():
                for index in {map_index} if each == task_id else self._instances(each):
                    if (each, index) not in self._begun:
                        self._begun[each, index] = self._begins_in(each, index)
        record = self._record(task_id, map_index)
        return self._begun[task_id, map_index] + (0 if record is None else max(record.try_number - record.first_try, 0))

    def _seen_as_source(self, task_id: str, map_index: int, *, by: str) -> int:
        """Return the pass after which Airflow knows that what the task `by` is mapped over has ended.

        It asks the database for that: what was decided in this very pass is there already, where it was looked at
        before, and `dag.test()` looks at the tasks in the order of their ids. What ran in it is not.
        """
        record = self._record(task_id, map_index)
        ended = self.ended_in(task_id, map_index)
        ran = (record is not None and record.try_number > 0) or self._skipped_in(task_id, map_index) is not None
        return ended if ran or task_id > by else ended - 1

    def _skipped_in(self, task_id: str, map_index: int) -> int | None:
        """Return the pass in which a branch or a short circuit skipped a task instance."""
        for each in skippers(self._dag, task_id):
            index = map_index if self._dag.task_dict[each].is_mapped else -1
            record = self._record(each, index)
            if record is not None and record.has_skipped(task_id, map_index):
                return self.ended_in(each, index)
        return None

    def _begins_in(self, task_id: str, map_index: int) -> int:
        """Return the pass in which a task instance began, or in which it was decided that it does not run."""
        task = self._dag.task_dict[task_id]
        skipped_in = self._skipped_in(task_id, map_index)
        if skipped_in is not None and not is_expanded_at_once(self._dag, task_id):
            return skipped_in
        if rule_of(task) == "always" or not task.upstream_task_ids:
            return 1
        return self.decide(task_id, map_index)[1]

    def _look(self, task_id: str, upstream: Upstream, seen: set[Instance], listed: set[Instance]) -> Decision | None:
        """Return what Airflow makes of a task instance when it looks; None where it waits on.

        After `TriggerRuleDep` and `MappedTaskUpstreamDep` of Airflow 3.3.
        """

        def so_far(rule: str, part: Mapping[Instance, str]) -> Decision | None:
            states = [state for key, state in part.items() if key in seen]
            setups = [state for key, state in upstream.setups.items() if key in seen and key in part]
            return decide_so_far(rule, states, len(part), setups=setups)

        rule = rule_of(self._dag.task_dict[task_id])
        further_up = so_far("all_success", upstream.setups_further_up)
        ended = [state for key, state in upstream.sources.items() if key in listed]
        sources = decide_so_far("all_success", ended, len(upstream.sources))
        own = so_far(rule, upstream.direct)
        found = [each for each in (further_up, own, sources) if each not in ("run", None)]
        if found:
            # What the sources say does not wait for the rule, and turns a skip of the same look into a failure.
            return "upstream_failed" if sources == "upstream_failed" else found[0]
        if own is None or further_up is None:
            return None
        if sources is None:
            # It runs by its rule, and there is no list to expand over yet.
            return "upstream_failed" if rule in EARLY_RULES else None
        return "run"
