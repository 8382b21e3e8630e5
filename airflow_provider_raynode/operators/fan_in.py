"""Fan-in: verifies the result manifest, writes the run record, pushes references."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._output import (
    KnownOutput,
    NodeOutput,
    Path,
    RayOutputOperator,
    at,
    settle_arguments,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class RayFanInOperator(BaseOperator):
    """Collect a node: prove its result, write its run record, and push references with small JSON, under 4 KB.

    :param job: the JobRef that the execution task returned. (templated)
    :return: by the kind of the node's work; each has `outputs`, a CatalogRef for each output by name, and `run_record`,
        the CatalogRef of the run record (JSON).

        A search: `best_trial`, `best_config`, `best_metrics`: the best trial's id, hyperparameters and metrics;
        `trials` and `steps`, CatalogRefs of the tables (parquet) of the trials and of the reported steps; `completion`:
        how many of how many trials ended how, and what ended the search. With several metrics also `front`: the
        CatalogRef of the trials that no other beats (JSON).

        A training: `metrics` of the last report, `best_metrics`, `steps` as above; `training`: `ending`, `reports`,
        `best_step`, `world_size`, `restarts`, `resumed_from`.

        A function: `value`, small JSON, and `metrics`.

        A map: `results`, the CatalogRef of the items' results in their order; `failed`, the indexes of failed items;
        `items`: how many of how many succeeded, failed or were restored.
    """

    template_fields: Sequence[str] = ("job",)
    ui_color = "#d8f5d0"
    # What is known of the output when the DAG file is parsed; a node says it.
    known: KnownOutput | None = None

    def __init__(self, *, job: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.asked: dict[Path, None] = {}
        """The parts of the output that other tasks take."""
        self._parts: dict[Path, str] = {}

    @property
    def output(self) -> NodeOutput:
        """What this task pushes, as an argument of others; an index takes a part of it, at any depth."""
        return NodeOutput(operator=self)

    def rendered(self, ti: Any, path: Sequence[str | int]) -> Any:
        """Return a part of the output for a template, within the task that renders it.

        :raises ConfigError: nothing was pushed: a text with an output in it makes no dependency.
        """
        value = NodeOutput(operator=self, path=tuple(path)).resolve({"ti": ti})
        if value is None:
            raise ConfigError(
                f"{self.task_id} has pushed nothing: a template does not make its task wait for the node. Write "
                f"`node >> {ti.task_id}`"
            )
        return value

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """See to what a task downstream takes: the node itself stands for its output."""
        super().update_relative(other, upstream, edge_modifier)
        if not upstream:
            settle_arguments(other, self)

    def task_for_part(self, part: NodeOutput) -> Any:
        """Return the task that pushes a part of the output as a value of its own, for tasks that are mapped over it."""
        path = part.path
        if path not in self._parts:
            mapped = self.get_closest_mapped_task_group()
            group: Any = self.task_group if mapped is None else mapped.parent_group
            name = "_".join(["each", *(re.sub(r"[^A-Za-z0-9_-]+", "-", str(step)) for step in path)])[:100]
            if mapped is not None:
                # It stands beside the mapped group, where other nodes may have a part of the same name.
                name = f"{self.task_id.replace('.', '_')}_{name}"
            labels = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
            free = next(each for each in labels if not self.dag.has_task(group.child_id(each)))
            task = RayOutputOperator(task_id=free, value=part, dag=self.dag, task_group=group)
            self._parts[path] = task.task_id
        found: Any = self.dag.get_task(self._parts[path])
        return found

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify and collect; see the class.

        :raises SpecError: `result.json` is missing, truncated, altered, or of another job.
        :raises CatalogError: an output or a table that the result names is not there.
        """
        # Imported here and not at the top: a DAG file is parsed all the time.
        from airflow_provider_raynode.exceptions import RayNodeError
        from airflow_provider_raynode.hooks.catalog import catalog_for
        from airflow_provider_raynode.launchers import JobState, JobStatus
        from airflow_provider_raynode.operators._attempt import read_spec
        from airflow_provider_raynode.operators._collected import collected, leave_out, told
        from airflow_provider_raynode.operators._job_run import as_job
        from airflow_provider_raynode.operators._record import record_end
        from airflow_provider_raynode.operators._result import proven_result
        from airflow_provider_raynode.record import record_of, write_record

        job = as_job(self.job)
        catalog = catalog_for(job.catalog_uri).at(job.node_prefix)
        try:
            spec = read_spec(job, catalog)
            result = proven_result(job, catalog)
        except RayNodeError as error:
            with suppress(RayNodeError):
                record_end(job, JobStatus(JobState.FAILED, str(error)), catalog)
            raise
        for warning in result.warnings:
            self.log.warning("%s", warning)
        record = write_record(record_of(job, spec, result, catalog, outcome="succeeded"), catalog)
        for line in told(spec.config.work, result):
            self.log.info("%s", line)
        output = collected(spec.config.work, result, record)
        taken = {str(path[1]) for path in self.asked if len(path) > 1}
        for part, names in leave_out(output, {*taken, result.metric or ""}).items():
            self.log.warning(
                "%d of the %s would make the output larger than the 4 KB that go through XCom, and are in the run "
                "record only: %s",
                len(names),
                part,
                ", ".join(names[:20]),
            )
        self._check_parts(output, spec.config.work)
        return output

    def _check_parts(self, output: dict[str, Any], work: str) -> None:
        """Fail here, and not in the tasks that take them, where parts of the output are not there."""
        problems = []
        for path in self.asked:
            try:
                at(output, path)
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise AirflowFailException(
                f"The {work} has succeeded, and the DAG takes from it what it does not have:\n"
                + "\n".join(dict.fromkeys(problems))
            )
