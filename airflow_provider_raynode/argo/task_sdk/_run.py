"""One try of a task: the SDK's own runner, over deferrals and reschedules, in this process."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.task_sdk._comms import CatalogComms, UnsupportedMessageError
from airflow_provider_raynode.argo.task_sdk._dates import RunDates
from airflow_provider_raynode.argo.task_sdk._logs import masked
from airflow_provider_raynode.argo.task_sdk._signals import TerminatedError, Termination, listener
from airflow_provider_raynode.argo.task_sdk._subprocess import subprocess_channel
from airflow_provider_raynode.argo.task_sdk._triggers import Resumption, run_trigger
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.records import RunStore, TaskRecord, TaskState

log = logging.getLogger(__name__)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "airflow-provider-raynode/argo")
_SKIP_KEY = "skipmixin_key"


@dataclass(frozen=True)
class DagRunInfo:
    """The run that a task belongs to.

    :param params: values of the DAG's params, over their defaults.
    :param are_recorded: whether the DAG's runs are recorded when they have succeeded.
    """

    run_id: str
    run_after: datetime
    dates: RunDates
    params: dict[str, Any] = field(default_factory=dict)
    are_recorded: bool = False


class TaskCallError(RayNodeError):
    """The task cannot be run as it was called: its params, or the thread."""


@dataclass(frozen=True)
class TaskResult:
    """What became of one try.

    :param skipped: downstream task instances that it skipped.
    :param final: failed for good, though tries were left.
    :param unsupported: it failed since it needs what only Airflow's services have.
    """

    state: TaskState
    skipped: tuple[tuple[str, int], ...] = ()
    error: str = ""
    final: bool = False
    rendered_map_index: str | None = None
    terminated: bool = False
    unsupported: bool = False


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
        self._comms = CatalogComms(dag, store, self._dag_run, task_id, map_index, runs_are_recorded=run.are_recorded)
        self._comms.first_started = self._started
        self._store = store
        self._termination = Termination()

    def check(self) -> None:
        """Find out, before anything is on record, whether the task can be run at all.

        :raises TaskCallError: the run's params do not fit those of the DAG or the task; or this is not the main thread.
        """
        from airflow.sdk.exceptions import ParamValidationError

        if threading.current_thread() is not threading.main_thread():
            # The SDK handles signals.
            raise TaskCallError(f"{self._task_id}: a task runs in the main thread of its process only")
        with self.connected():
            try:
                self._instance(None).get_template_context()
            except ParamValidationError as error:
                text = " ".join(str(error).split())
                raise TaskCallError(f"the params of this run do not fit {self._dag.dag_id}: {text}") from error

    def execute(self) -> TaskResult:
        """Run the task to an end: success, skipped, failed or up_for_retry."""
        from airflow.sdk.execution_time.task_runner import _register_deserialization_allowed_classes as allow_classes

        with (
            self.connected(),
            subprocess_channel(self._comms),
            _listening(listener(self._termination)),
            self._termination.handled(),
        ):
            # So that this task can read the models that others return.
            allow_classes(self._dag, _logger())
            state, message, error, task = self._until_it_ends()
        skipped = tuple(self._skipped(task)) if state == "success" else ()
        if state == "success" and _clears_state_on_success():
            self._store.store_clear(self._task_id, self._map_index)
        return TaskResult(
            state=state,
            skipped=skipped,
            error="" if error is None else masked(f"{type(error).__name__}: {error}"),
            final=state == "failed" and self._try_number <= self._max_tries,
            rendered_map_index=self._comms.rendered_map_index or getattr(message, "rendered_map_index", None),
            terminated=self._termination.asked and state not in ("success", "skipped"),
            unsupported=state == "failed" and isinstance(error, UnsupportedMessageError),
        )

    def map_variables(self, count: int) -> list[dict[str, Any]]:
        """Return the map variables of each index of a mapped task, as JSON, to choose one by its values."""
        from airflow_provider_raynode.operators._map_variables import map_variables

        found: list[dict[str, Any]] = []
        with self.connected():
            for index in range(count):
                self._map_index = index
                instance = self._instance(None)
                found.append(map_variables(self._task(), instance.get_template_context()))
        return found

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Be the supervisor of what runs while the context lasts."""
        from airflow.sdk.execution_time.supervisor import set_supervisor_comms

        with set_supervisor_comms(self._comms):
            yield

    def callback_context(self, record: TaskRecord | None) -> dict[str, Any]:
        """Return the context for a DAG's callbacks, with a task instance that has ended as its record says."""
        if record is None:
            context: dict[str, Any] = dict(self._instance(None).get_template_context())
            kept = ("dag", "run_id", "dag_run", "params", "conn", "var", "macros", "logical_date", "ds", "ts")
            return {key: context[key] for key in kept if key in context}
        self._try_number, self._started = max(record.try_number, 1), record.started
        instance = self._instance(None)
        instance.state, instance.end_date = _ended_state(record), record.ended
        instance.max_tries = self._max_tries = record.first_try - 1 + (instance.task.retries or 0)
        return dict(instance.get_template_context())

    # -- below the surface -----------------------------------------------------------------------------------------

    def _until_it_ends(self) -> tuple[TaskState, Any, BaseException | None, Any]:
        instance = self._instance(None)
        message: Any = _start_trigger(instance)
        state: Any = None
        error: BaseException | None = None
        reschedules = 0
        if message is None:
            state, message, error = self._once(instance)
        while True:
            kind = type(message).__name__
            if kind in ("DeferTask", "SimpleNamespace"):
                resumption = self._wait_for_event(message, instance)
                if (ended := _ended_by(resumption.event)) is not None:
                    return self._end_with(resumption.event, ended, instance), message, None, instance.task
                instance = self._instance(resumption, reschedules)
            elif kind == "RescheduleTask":
                try:
                    self._sleep_until(message.reschedule_date, instance)
                except TerminatedError as terminated:
                    return self._end_terminated(instance, terminated), message, terminated, instance.task
                reschedules += 1
                instance = self._instance(None, reschedules)
            else:
                return _as_state(state), message, error, instance.task
            state, message, error = self._once(instance)

    def _once(self, instance: Any) -> tuple[Any, Any, BaseException | None]:
        from airflow.sdk.execution_time import task_runner

        context = instance.get_template_context()
        state, message, error = task_runner.run(instance, context, _logger())
        # What follows is short, and belongs to the state that the task has now.
        self._termination.only_note()
        context["exception"] = error
        task_runner.finalize(instance, state, context, _logger(), error)
        return state, message, error

    def _end_with(self, event: Any, state: TaskState, instance: Any) -> TaskState:
        """End the task with the state that its trigger's event names, with the callbacks that go with it."""
        from airflow.sdk.api.datamodels._generated import TaskInstanceState
        from airflow.sdk.execution_time import task_runner

        for key, value in (event.xcoms or {}).items():
            instance.xcom_push(key, value)
        context = instance.get_template_context()
        task_runner.finalize(instance, TaskInstanceState(state), context, _logger())
        return state

    def _end_terminated(self, instance: Any, error: BaseException) -> TaskState:
        """End a task that SIGTERM met between two pokes: it runs no code of its own but its callbacks."""
        from airflow.sdk.api.datamodels._generated import TaskInstanceState
        from airflow.sdk.execution_time import task_runner

        state: TaskState = "up_for_retry" if self._try_number <= self._max_tries else "failed"
        context = instance.get_template_context()
        context["exception"] = error
        task_runner.finalize(instance, TaskInstanceState(state), context, _logger(), error)
        return state

    def _instance(self, resume: Resumption | None, reschedules: int = 0) -> Any:
        from airflow.sdk.api.datamodels._generated import TaskInstanceState, TIRunContext
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        no_bundle: Any = None
        key = f"{self._dag.dag_id}\n{self._run.run_id}\n{self._task_id}\n{self._map_index}"
        context = TIRunContext(
            dag_run=self._dag_run,
            max_tries=self._max_tries,
            should_retry=self._try_number <= self._max_tries,
            task_reschedule_count=reschedules,
            next_method=None if resume is None else resume.method,
            next_kwargs=None if resume is None else resume.arguments,
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

    def _wait_for_event(self, message: Any, instance: Any) -> Resumption:
        log.info("Deferred: the trigger %s runs in this pod", message.classpath)
        resumption = run_trigger(message, instance, self._termination)
        if self._termination.asked:
            _on_kill(instance.task)
        return resumption

    def _sleep_until(self, moment: datetime, instance: Any) -> None:
        """Sleep between two pokes.

        :raises TerminatedError: SIGTERM came.
        """
        self._termination.install(
            lambda: _on_kill(instance.task), lambda: TerminatedError("stopped by SIGTERM between two pokes")
        )
        if self._termination.asked:
            raise TerminatedError("stopped by SIGTERM")
        while (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
            time.sleep(min(left, 60.0))
        self._termination.only_note()

    def _skipped(self, task: Any) -> Iterator[tuple[str, int]]:
        """Yield the task instances that this one skipped, as Airflow's API server or scheduler would set them."""
        if self._comms.skipped:
            for each in self._comms.skipped:
                task_id, index = (each, -1) if isinstance(each, str) else each
                yield task_id, int(index)
            return
        # With a map index the SDK sends no message. The scheduler looks at the XCom of a mapped parent, at the index of
        # the child (NotPreviouslySkippedDep), so that only mapped children are skipped.
        own = self._dag.task_dict[self._task_id]
        if not own.is_mapped or not own.downstream_task_ids:
            return
        found, value = self._store.xcom(self._task_id, self._map_index, _SKIP_KEY)
        if not found or not isinstance(value, dict):
            return
        for task_id in sorted(own.downstream_task_ids):
            followed = value.get("followed")
            listed = task_id in value.get("skipped", ()) or (followed is not None and task_id not in followed)
            if listed and self._dag.task_dict[task_id].is_mapped:
                yield task_id, self._map_index


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


def _ended_state(record: TaskRecord) -> Any:
    from airflow.sdk.api.datamodels._generated import TaskInstanceState

    return TaskInstanceState.SUCCESS if record.state == "success" else TaskInstanceState.FAILED


def _on_kill(task: Any) -> None:
    try:
        if not task.is_mapped:
            task.on_kill()
    except Exception:
        log.exception("on_kill failed")


def _start_trigger(instance: Any) -> Any:
    """Return the deferral that an operator with `start_from_trigger` begins with, None for any other."""
    task = instance.task
    if not task.start_from_trigger or task.start_trigger_args is None:
        return None
    from airflow.sdk.serde import serialize

    start = task.expand_start_trigger_args(context=instance.get_template_context())
    limits = [each for each in (start.timeout, task.execution_timeout) if each is not None]
    return SimpleNamespace(
        classpath=start.trigger_cls,
        trigger_kwargs=serialize(start.trigger_kwargs or {}),
        trigger_timeout=min(limits, default=None),
        next_method=start.next_method,
        next_kwargs=serialize(start.next_kwargs or {}),
    )


def _clears_state_on_success() -> bool:
    from airflow.sdk.configuration import conf

    return bool(conf.getboolean("state_store", "clear_on_success", fallback=False))


def _logger() -> Any:
    import structlog

    return structlog.get_logger(logger_name="task")
