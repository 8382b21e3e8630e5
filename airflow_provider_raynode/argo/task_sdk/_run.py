"""One try of a task: the SDK's own runner, over deferrals and reschedules, in this process."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.task_sdk._comms import CatalogComms
from airflow_provider_raynode.argo.task_sdk._dates import RunDates
from airflow_provider_raynode.argo.task_sdk._signals import Termination, listener
from airflow_provider_raynode.argo.task_sdk._triggers import run_trigger

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore, TaskState

log = logging.getLogger(__name__)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "airflow-provider-raynode/argo")
_SKIP_KEY = "skipmixin_key"


@dataclass(frozen=True)
class DagRunInfo:
    """The run that a task belongs to.

    :param params: values of the DAG's params, over their defaults.
    """

    run_id: str
    run_after: datetime
    dates: RunDates
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """What became of one try.

    :param skipped: downstream task instances that it skipped.
    :param final: failed for good, though tries were left.
    """

    state: TaskState
    skipped: tuple[tuple[str, int], ...] = ()
    error: str = ""
    final: bool = False
    rendered_map_index: str | None = None
    terminated: bool = False


class TaskRun:
    """A task instance of a live DAG, to be run here.

    :param store: records and XComs of the run.
    :param try_number: Airflow's, 1 first.
    :param max_tries: the last try number that may be tried again after.
    """

    def __init__(
        self,
        dag: DAG,
        task_id: str,
        map_index: int,
        store: RunStore,
        run: DagRunInfo,
        *,
        try_number: int = 1,
        max_tries: int = 0,
    ) -> None:
        self._dag = dag
        self._task_id = task_id
        self._map_index = map_index
        self._run = run
        self._try_number = try_number
        self._max_tries = max_tries
        self._started = datetime.now(UTC)
        self._dag_run = _dag_run(dag.dag_id, run)
        self._comms = CatalogComms(dag, store, self._dag_run, task_id, map_index)
        self._comms.first_started = self._started
        self._store = store
        self._termination = Termination()

    def execute(self) -> TaskResult:
        """Run the task to an end: success, skipped, failed or up_for_retry."""
        with self._connected(), _listening(listener(self._termination)):
            state, message, error, task = self._until_it_ends()
        skipped = tuple(self._skipped(task)) if state == "success" else ()
        return TaskResult(
            state=state,
            skipped=skipped,
            error="" if error is None else f"{type(error).__name__}: {error}",
            final=state == "failed" and self._try_number <= self._max_tries,
            rendered_map_index=self._comms.rendered_map_index or getattr(message, "rendered_map_index", None),
            terminated=self._termination.asked,
        )

    def map_variables(self, count: int) -> list[dict[str, Any]]:
        """Return the map variables of each index of a mapped task, as JSON, to choose one by its values."""
        from airflow_provider_raynode.operators._map_variables import map_variables

        found: list[dict[str, Any]] = []
        with self._connected():
            for index in range(count):
                self._map_index = index
                instance = self._instance(None)
                found.append(map_variables(self._task(), instance.get_template_context()))
        return found

    # -- below the surface -----------------------------------------------------------------------------------------

    def _until_it_ends(self) -> tuple[TaskState, Any, BaseException | None, Any]:
        resume: tuple[str, dict[str, Any]] | None = None
        reschedules = 0
        while True:
            instance = self._instance(resume, reschedules)
            state, message, error = self._once(instance)
            kind = type(message).__name__
            if kind == "DeferTask":
                method, arguments, event = self._wait_for_event(message)
                if (ended := _ended_by(event)) is not None:
                    self._push_all(event)
                    return ended, message, None, instance.task
                resume = (method, arguments)
            elif kind == "RescheduleTask":
                reschedules += 1
                resume = None
                self._sleep_until(message.reschedule_date)
            else:
                return _as_state(state), message, error, instance.task

    def _once(self, instance: Any) -> tuple[Any, Any, BaseException | None]:
        import structlog
        from airflow.sdk.execution_time import task_runner

        logger = structlog.get_logger(logger_name="task")
        context = instance.get_template_context()
        state, message, error = task_runner.run(instance, context, logger)
        context["exception"] = error
        task_runner.finalize(instance, state, context, logger, error)
        return state, message, error

    def _instance(self, resume: tuple[str, dict[str, Any]] | None, reschedules: int = 0) -> Any:
        from airflow.sdk.api.datamodels._generated import TaskInstanceState, TIRunContext
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        no_bundle: Any = None
        key = f"{self._dag.dag_id}\n{self._run.run_id}\n{self._task_id}\n{self._map_index}"
        context = TIRunContext(
            dag_run=self._dag_run,
            max_tries=self._max_tries,
            should_retry=self._try_number <= self._max_tries,
            task_reschedule_count=reschedules,
            next_method=None if resume is None else resume[0],
            next_kwargs=None if resume is None else resume[1],
            start_date=self._started,
        )
        return RuntimeTaskInstance.model_construct(
            id=uuid.uuid5(_NAMESPACE, key),
            task_id=self._task_id,
            dag_id=self._dag.dag_id,
            run_id=self._run.run_id,
            try_number=self._try_number,
            map_index=self._map_index,
            dag_version_id=_NAMESPACE,
            task=self._task(),
            bundle_instance=no_bundle,
            _ti_context_from_server=context,
            max_tries=self._max_tries,
            start_date=self._started,
            state=TaskInstanceState.RUNNING,
            sentry_integration="",
        )

    def _task(self) -> Any:
        return self._dag.task_dict[self._task_id]

    def _wait_for_event(self, message: Any) -> tuple[str, dict[str, Any], Any]:
        log.info("Deferred: the trigger %s runs in this pod", message.classpath)
        return run_trigger(message, self._termination)

    def _sleep_until(self, moment: datetime) -> None:
        task = self._dag.task_dict[self._task_id]
        with self._termination.handled(lambda: _on_kill(task)):
            while (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
                time.sleep(min(left, 60.0))

    def _push_all(self, event: Any) -> None:
        for key, value in (event.xcoms or {}).items():
            self._store.set_xcom(self._task_id, self._map_index, key, value)

    def _skipped(self, task: Any) -> Iterator[tuple[str, int]]:
        """Yield the task instances that this one skipped, as Airflow's API server or scheduler would set them."""
        if self._comms.skipped:
            for each in self._comms.skipped:
                task_id, index = (each, -1) if isinstance(each, str) else each
                yield task_id, int(index)
            return
        # With a map index the SDK sends no message. The scheduler looks at the XCom of a mapped parent, at the index of
        # the child (NotPreviouslySkippedDep), so that only mapped children are skipped.
        found, value = self._store.xcom(self._task_id, self._map_index, _SKIP_KEY)
        own = self._dag.task_dict[self._task_id]
        if not found or not own.is_mapped or not isinstance(value, dict):
            return
        for task_id in sorted(own.downstream_task_ids):
            followed = value.get("followed")
            listed = task_id in value.get("skipped", ()) or (followed is not None and task_id not in followed)
            if listed and self._dag.task_dict[task_id].is_mapped:
                yield task_id, self._map_index

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        from airflow.sdk.execution_time.supervisor import set_supervisor_comms

        with set_supervisor_comms(self._comms):
            yield


@contextlib.contextmanager
def _listening(observer: Any) -> Iterator[None]:
    from airflow.sdk.listener import get_listener_manager

    manager = get_listener_manager()
    manager.add_listener(observer)
    try:
        yield
    finally:
        manager.pm.unregister(observer)


def _dag_run(dag_id: str, run: DagRunInfo) -> Any:
    from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType

    return DagRun(
        dag_id=dag_id,
        run_id=run.run_id,
        logical_date=run.dates.logical_date,
        data_interval_start=run.dates.interval_start,
        data_interval_end=run.dates.interval_end,
        run_after=run.run_after,
        start_date=run.run_after,
        end_date=None,
        run_type=DagRunType.SCHEDULED if run.dates.scheduled else DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        conf=run.params,
        consumed_asset_events=[],
        partition_key=None,
    )


def _as_state(state: Any) -> TaskState:
    text = str(getattr(state, "value", state))
    if text in ("success", "skipped", "failed", "up_for_retry"):
        return text  # type: ignore[return-value]
    return "failed"


def _ended_by(event: Any) -> TaskState | None:
    """Return the state that a trigger's event ends its task with, None where the task resumes."""
    state = getattr(event, "task_instance_state", None)
    return None if state is None else _as_state(state)


def _on_kill(task: Any) -> None:
    if not task.is_mapped:
        task.on_kill()
