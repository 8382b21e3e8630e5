"""`raynode argo run-task`: one task of a DAG, in a pod, with the catalog in the place of Airflow's services."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.airflow_options import configured
from airflow_provider_raynode.argo.outcome import (
    EXIT_FAILED,
    EXIT_FAILED_FOR_GOOD,
    EXIT_SUCCESS,
    EXIT_TERMINATED,
    EXIT_UPSTREAM_FAILED,
    EXIT_WRONG_CALL,
    tell,
)
from airflow_provider_raynode.argo.run_info import run_info
from airflow_provider_raynode.argo.run_source import WrongCallError
from airflow_provider_raynode.argo.shape import expanded_by
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore, TaskState
    from airflow_provider_raynode.argo.task_sdk import DagRunInfo, TaskResult, TaskRun

log = logging.getLogger(__name__)

# As Airflow's own `[scheduler] allowed_run_id_pattern`.
_RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")
_INDEX = "map_index"
# Seconds that threads which a task left behind may hold up the end of the process.
_THREADS_END_S = 5.0


@dataclass(frozen=True)
class TaskCall:
    """The arguments of one call, as they come: see `raynode argo run-task --help`."""

    pipeline_file: str
    step_name: str
    run_id: str
    dag_id: str | None = None
    dags_folder: str | None = None
    configuration_file: str = ""
    ray_config_file: str = ""
    map_variable: str = "{}"
    map_index: str = ""
    tag: str = ""
    parameters_file: str = ""
    run_file: str = ""
    logical_date: str = ""
    scheduled_time: str = ""
    run_after: str = ""
    retries: str = "0"
    max_retries: int | None = None
    structure: str = ""
    outputs: str = ""
    decide: str = "controller"
    plan: bool = False
    ray: str = "submit"
    record_runs: bool = False


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task instance: its state, the exit code for Argo, the try that it was."""

    state: TaskState
    exit_code: int
    try_number: int = 0
    map_index: int = -1


def run_task_command(args: argparse.Namespace) -> int:
    """Run one task and return the exit code for Argo."""
    call = TaskCall(**{name: getattr(args, name) for name in TaskCall.__dataclass_fields__})
    try:
        code = run_task(call, own_process=True).exit_code
    except CatalogError as error:
        # A storage that does not answer now may do so at the next try.
        print(f"raynode: {error}", file=sys.stderr)
        code = EXIT_FAILED
    except RayNodeError as error:
        print(f"raynode: {error}", file=sys.stderr)
        code = EXIT_WRONG_CALL
    _end_in_time(code)
    return code


def _end_in_time(code: int) -> None:
    """See to it that the process ends soon after its main thread, as an Airflow worker's does.

    Python would wait for ever for a thread that the task started and left.
    """

    def end() -> None:
        threading.main_thread().join()
        time.sleep(_THREADS_END_S)
        os._exit(code)

    threading.Thread(target=end, name="raynode-end", daemon=True).start()


def execute_ray_node(
    configuration_file: str,
    pipeline_file: str,
    step_name: str,
    ray_config_file: str,
    run_id: str,
    map_variable: str = "{}",
    tag: str = "",
    parameters_file: str = "",
) -> TaskOutcome:
    """Run one task of a DAG, a Ray node's or any other, without Airflow's services.

    :param configuration_file: settings of the runner (YAML); empty for none.
    :param pipeline_file: the DAG file.
    :param step_name: id of the task.
    :param ray_config_file: Ray config in the place of the node's, where the task is a fan-out; empty: the node's own.
    :param run_id: id of the run: tasks of one run find each other's results by it.
    :param map_variable: JSON: `{"map_index": 2}`, or the map variables of one instance by name.
    :param tag: a label for the task's record.
    :param parameters_file: the run's params (YAML or JSON); empty for the DAG's defaults.
    :return: state and exit code; a task that fails raises nothing.
    :raises RayNodeError: a wrong call: a missing file, an unknown task, a map index that there is not.
    """
    return run_task(
        TaskCall(
            pipeline_file=pipeline_file,
            step_name=step_name,
            run_id=run_id,
            configuration_file=configuration_file,
            ray_config_file=ray_config_file,
            map_variable=map_variable or "{}",
            tag=tag,
            parameters_file=parameters_file,
        )
    )


def run_task(call: TaskCall, *, own_process: bool = False) -> TaskOutcome:
    """Run what a call asks for.

    :param own_process: this process does nothing else.
    :raises RayNodeError: a wrong call.
    """
    if not _RUN_ID.fullmatch(call.run_id):
        raise WrongCallError(f"--run-id: {call.run_id!r} is none: letters, digits and _.~:+-, at most 250")
    with configured(call.configuration_file):
        from airflow_provider_raynode.argo.task_sdk import container_logs, import_task_runner

        import_task_runner(own_process=own_process)
        from airflow_provider_raynode.argo.dag_file import load_dag
        from airflow_provider_raynode.argo.records import RunStore
        from airflow_provider_raynode.hooks.catalog import catalog_for

        with container_logs():
            dag = load_dag(call.pipeline_file, call.dag_id, dags_folder=call.dags_folder)
            _check_structure(dag, call)
            store = RunStore(catalog_for(), dag.dag_id, call.run_id)
            if call.plan:
                return _plan(dag, store, call)
            if call.step_name not in dag.task_dict:
                raise WrongCallError(_unknown_step(dag, call.step_name))
            return _Runner(dag, store, call).run()


class _Runner:
    """One call for a task."""

    def __init__(self, dag: DAG, store: RunStore, call: TaskCall) -> None:
        self._dag = dag
        self._store = store
        self._call = call
        self._task = dag.task_dict[call.step_name]
        self._index = self._map_index()
        self._started = datetime.now(UTC)

    @cached_property
    def _info(self) -> DagRunInfo:
        # A pod that only decides does without, and without what runs a task.
        return run_info(self._dag, self._call)

    def run(self) -> TaskOutcome:
        if self._call.decide == "pod":
            decision = self.decide()
            if decision != "run":
                return self._not_run(decision)
        before = self._store.record(self._task.task_id, self._index)
        earlier = _retries(self._call)
        try_number = max(before.try_number if before else 0, earlier) + 1
        # A pod that was lost before it wrote its record counts as well.
        first_try = before.first_try if before and before.first_try and earlier else try_number - earlier
        retries = self._task.retries if self._call.max_retries is None else self._call.max_retries
        run = self._task_run(try_number, first_try - 1 + (retries or 0))
        self._write("running", try_number, first_try)
        if before is not None:
            # A try leaves its record before its first XCom.
            self._store.clear_xcoms(self._task.task_id, self._index)
        result = run.execute()
        self._write(result.state, try_number, first_try, result)
        self._write_outputs(result.state, result.skipped)
        log.info("raynode: %s: %s", self._task.task_id, result.state)
        return TaskOutcome(result.state, _exit_code(result), try_number, self._index)

    def _task_run(self, try_number: int, max_tries: int) -> TaskRun:
        from airflow_provider_raynode.argo.task_sdk import TaskRun

        index = "" if self._index < 0 else f" [{self._index}]"
        log.info(
            "raynode: %s.%s%s, try %d of %d, run %s%s",
            *(self._dag.dag_id, self._task.task_id, index, try_number, max_tries + 1, self._call.run_id),
            f", tag {self._call.tag}" if self._call.tag else "",
        )
        self._adjust()
        run = TaskRun(
            self._dag,
            self._task.task_id,
            self._index,
            self._store,
            self._info,
            try_number=try_number,
            max_tries=max_tries,
        )
        run.check()
        return run

    def _adjust(self) -> None:
        """Change a Ray node's fan-out as the call asks for."""
        if not self._call.ray_config_file and self._call.ray != "rayjob":
            return
        from airflow_provider_raynode.argo.node_tasks import is_fan_out

        if not is_fan_out(self._task):
            return
        task: Any = self._task
        target = task.partial_kwargs if task.is_mapped else vars(task)
        if self._call.ray_config_file:
            path = Path(self._call.ray_config_file).expanduser()
            if not path.is_file():
                raise WrongCallError(f"--ray-config-file: {path}: no such file")
            target["ray_config"] = str(path.absolute())
        if self._call.ray == "rayjob":
            task.address = "rayjob"

    # -- the trigger rule ------------------------------------------------------------------------------------------

    def decide(self) -> str:
        from airflow_provider_raynode.argo.states import RunStates

        return RunStates(self._dag, self._store).decide(self._task.task_id, self._index)

    def _not_run(self, state: str) -> TaskOutcome:
        log.info("raynode: %s is %s by its trigger rule", self._task.task_id, state)
        self._write("skipped" if state == "skipped" else "upstream_failed", 0, 0)
        self._write_outputs(state, ())
        if state == "skipped":
            return TaskOutcome("skipped", EXIT_SUCCESS, 0, self._index)
        tell("upstream_failed: something before it has failed, so by its trigger rule it does not run")
        return TaskOutcome("upstream_failed", EXIT_UPSTREAM_FAILED, 0, self._index)

    # -- what is left behind ---------------------------------------------------------------------------------------

    def _write(self, state: TaskState, try_number: int, first_try: int, result: TaskResult | None = None) -> None:
        from airflow_provider_raynode.argo.records import TaskRecord

        now = datetime.now(UTC)
        if result is None:
            self._started = now
        self._store.write_record(
            TaskRecord(
                dag_id=self._dag.dag_id,
                run_id=self._call.run_id,
                task_id=self._task.task_id,
                map_index=self._index,
                state=state,
                try_number=try_number,
                first_try=first_try,
                started=self._started,
                ended=None if state == "running" else now,
                skipped=result.skipped if result else (),
                error=result.error if result else "",
                tag=self._call.tag,
                structure=self._call.structure,
                rendered_map_index=result.rendered_map_index if result else None,
            )
        )

    def _write_outputs(self, state: str, skipped: tuple[tuple[str, int], ...]) -> None:
        if not self._call.outputs:
            return
        from airflow_provider_raynode.argo.expansion import index_outputs, map_indexes
        from airflow_provider_raynode.argo.names import argo_names

        names = argo_names(self._dag)
        listed = "".join(f"{names[task_id]}," for task_id, _ in skipped)
        values = {"state": state, "skip": f",{listed}"}
        for name, mapped_id in index_outputs(self._dag, self._task.task_id).items():
            indexes = map_indexes(self._dag, mapped_id, self._store) if state == "success" else []
            values[name] = json.dumps(indexes or [])
        if self._call.ray == "rayjob" and state == "success":
            from airflow_provider_raynode.argo.ray_job import job_outputs

            _, job = self._store.xcom(self._task.task_id, self._index, "return_value")
            if isinstance(job, Mapping) and "spec_uri" in job:
                values |= job_outputs(job)
        write_outputs(self._call.outputs, values)

    # -- which instance --------------------------------------------------------------------------------------------

    def _map_index(self) -> int:
        values = _json_object(self._call.map_variable, "--map-variable") | _numbered(self._call.map_index)
        mapped = expanded_by(self._task)
        if mapped is None:
            if values:
                raise WrongCallError(f"--map-variable: {self._task.task_id} is not mapped: leave it out, or give {{}}")
            return -1
        from airflow_provider_raynode.argo.expansion import map_indexes

        indexes = map_indexes(self._dag, mapped, self._store)
        if indexes is None:
            raise WrongCallError(
                f"{self._task.task_id} is mapped over results that run {self._call.run_id} does not have: run the "
                "tasks before it first, with the same --run-id and catalog"
            )
        if not values:
            raise WrongCallError(
                f'--map-variable: {self._task.task_id} is mapped: give {{"map_index": N}} with N from 0 to '
                f"{len(indexes) - 1}"
            )
        if _INDEX not in values:
            return self._index_of(values, len(indexes))
        index = values[_INDEX]
        if isinstance(index, bool) or not isinstance(index, int) or index not in indexes:
            raise WrongCallError(
                f"--map-variable: map_index {index!r} is none of {self._task.task_id}, which has {len(indexes)} of "
                "them, counted from 0"
            )
        return index

    def _index_of(self, values: dict[str, Any], count: int) -> int:
        """Return the map index whose map variables have the given values."""
        from airflow_provider_raynode.argo.task_sdk import TaskRun

        run = TaskRun(self._dag, self._task.task_id, -1, self._store, self._info)
        variables = run.map_variables(count)
        found = [index for index, each in enumerate(variables) if values.items() <= each.items()]
        if len(found) == 1:
            return found[0]
        listed = "; ".join(f"{index}: {json.dumps(each)[:100]}" for index, each in enumerate(variables[:10]))
        raise WrongCallError(
            f"--map-variable: {json.dumps(values)} fits {len(found)} instances of {self._task.task_id}, not one; "
            f"they are {listed}"
        )


def write_outputs(folder: str, values: Mapping[str, str]) -> None:
    """Write Argo's output parameters, a file each."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (target / name).write_text(value, encoding="utf-8")
    except OSError as error:
        raise WrongCallError(f"--outputs: {folder}: cannot be written ({error.strerror})") from error


def _plan(dag: DAG, store: RunStore, call: TaskCall) -> TaskOutcome:
    from airflow_provider_raynode.argo.names import mapped_group_ids
    from airflow_provider_raynode.argo.states import RunStates

    known = {*dag.task_ids, *mapped_group_ids(dag)}
    if call.step_name not in known:
        raise WrongCallError(f"--plan: {call.step_name!r} is no task or mapped group; there are: {_listed(known)}")
    decision, indexes = "", list[int]()
    if call.step_name in dag.task_dict and not dag.task_dict[call.step_name].is_mapped:
        decision = _Runner(dag, store, call).decide()
    else:
        decision, indexes = RunStates(dag, store).decide_expansion(call.step_name)
    state: TaskState = "success" if decision == "run" else "skipped" if decision == "skipped" else "upstream_failed"
    log.info("raynode: %s: %s, %d map indexes", call.step_name, state, len(indexes))
    if call.outputs:
        write_outputs(call.outputs, {"state": state, "skip": ",", "indexes": json.dumps(indexes)})
    return TaskOutcome(state, EXIT_UPSTREAM_FAILED if decision == "upstream_failed" else EXIT_SUCCESS)


def _exit_code(result: TaskResult) -> int:
    if result.unsupported:
        return EXIT_WRONG_CALL
    if result.terminated:
        return EXIT_TERMINATED
    if result.state in ("success", "skipped"):
        return EXIT_SUCCESS
    return EXIT_FAILED_FOR_GOOD if result.final else EXIT_FAILED


def _check_structure(dag: DAG, call: TaskCall) -> None:
    from airflow_provider_raynode.argo.structure import structure_hash

    if call.structure and (found := structure_hash(dag)) != call.structure:
        raise WrongCallError(
            f"{call.pipeline_file}: the DAG {dag.dag_id} in this image has another structure ({found}) than the one "
            f"that was exported ({call.structure}): build the image from the same DAG file, or export it again"
        )


def _unknown_step(dag: DAG, name: str) -> str:
    from airflow_provider_raynode.config._section import did_you_mean

    near = did_you_mean(name, dag.task_ids)
    hint = near if near != ";" else f"; it has: {_listed(dag.task_ids)}"
    return f"--step-name: the DAG {dag.dag_id} has no task {name!r}{hint}"


def _listed(names: Any) -> str:
    found = sorted(names)
    return ", ".join(found[:20]) + (", …" if len(found) > 20 else "") if found else "none"


def _retries(call: TaskCall) -> int:
    # Where a template has no retryStrategy, Argo leaves the tag as it is.
    return int(call.retries) if call.retries.isdigit() else 0


def _numbered(text: str) -> dict[str, int]:
    """Return the map variables for a map index; empty where there is none."""
    if not text:
        return {}
    if not text.isdecimal():
        raise WrongCallError(f"--map-index: {text!r} is not a number from 0 on")
    return {_INDEX: int(text)}


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise WrongCallError(f"{name}: {text!r} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise WrongCallError(f"{name}: {text!r} is not a JSON object")
    return value
