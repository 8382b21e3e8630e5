"""The supervisor's side of the Task SDK, over the catalog: an answer to each message that a task can send."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.earlier_runs import SucceededRun
    from airflow_provider_raynode.argo.records import RunStore

_VARIABLE_PREFIX = "AIRFLOW_VAR_"
_REMEDIES = {
    "AwaitInputTask": "a person's answer comes through Airflow's UI: keep this task in Airflow",
    "CreateHITLDetailPayload": "a person's answer comes through Airflow's UI: keep this task in Airflow",
    "GetHITLDetailResponse": "a person's answer comes through Airflow's UI: keep this task in Airflow",
    "UpdateHITLDetail": "a person's answer comes through Airflow's UI: keep this task in Airflow",
    "PutVariable": "variables come from the environment or a secrets backend: write what changes to the catalog",
    "DeleteVariable": "variables come from the environment or a secrets backend",
    "TriggerDagRun": "submit the other DAG's WorkflowTemplate instead",
    "GetAssetEventByAsset": "events of assets lie in Airflow's database: read what the asset is instead",
    "GetAssetEventByAssetAlias": "events of assets lie in Airflow's database: read what the asset is instead",
    "GetPreviousTI": "of earlier runs a pod knows that they succeeded: prev_…_success",
    "GetDag": "what Airflow knows of a DAG lies in its database",
    "ResendLoggingFD": "run_as_user is sudo on an Airflow worker: use securityContext of the pod",
}
_DEFAULT_REMEDY = "it needs Airflow's metadata database"


log = logging.getLogger(__name__)


class UnsupportedMessageError(RayNodeError, AirflowFailException):
    """The task asked for something that only Airflow's services have; another try would ask the same."""


class CatalogComms:
    """What stands where the SDK has the connection to its supervisor.

    :param store: records and XComs of the run.
    :param dag_run: the run, as the SDK's model.
    :param task_id: the task that runs.
    :param runs_are_recorded: whether the DAG's exit handlers record the runs that have succeeded.
    """

    has_database = False

    def __init__(
        self,
        dag: DAG,
        store: RunStore,
        dag_run: Any,
        task_id: str,
        map_index: int,
        *,
        runs_are_recorded: bool = False,
    ) -> None:
        self._dag = dag
        self._store = store
        self._dag_run = dag_run
        self._task_id = task_id
        self._map_index = map_index
        self._runs_are_recorded = runs_are_recorded
        # Entered again by an on_kill that interrupts an answer.
        self._lock = threading.RLock()
        self.outcome: Any = None
        """The last message that ends or pauses the task."""
        self.skipped: list[Any] = []
        self.rendered_map_index: str | None = None
        self.first_started: Any = None
        """When the first run of this try began, over its reschedules."""

    def send(self, msg: Any) -> Any:
        """Answer a message.

        :raises UnsupportedMessageError: it needs Airflow's services, or is of a kind that this version does not know.
        """
        name = type(msg).__name__
        handler: Callable[[Any], Any] | None = getattr(self, f"_on_{name}", None)
        if handler is None:
            remedy = _REMEDIES.get(name, _DEFAULT_REMEDY)
            raise UnsupportedMessageError(
                f"{self._task_id} asked Airflow for {name}, and a pod of Argo has no Airflow services: {remedy}"
            )
        with self._lock:
            return handler(msg)

    async def asend(self, msg: Any) -> Any:
        """Answer a message from a coroutine; the catalog is read at once."""
        return self.send(msg)

    # -- what ends or pauses the task ------------------------------------------------------------------------------

    def _on_outcome(self, msg: Any) -> None:
        self.outcome = msg

    _on_TaskState = _on_RetryTask = _on_DeferTask = _on_RescheduleTask = _on_outcome

    def _on_SucceedTask(self, msg: Any) -> None:
        self.outcome = msg
        for asset in msg.task_outlets or ():
            log.info("The asset %s was updated; no scheduler hears of it here", asset.name or asset.uri)
        for event in msg.outlet_events or ():
            log.info("Event of an asset: %s", event)

    def _on_SkipDownstreamTasks(self, msg: Any) -> None:
        self.skipped = list(msg.tasks)

    # -- XComs -----------------------------------------------------------------------------------------------------

    def _on_GetXCom(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        _, value = self._store_of(msg).xcom(msg.task_id, _index(msg.map_index), msg.key)
        return XComResult(key=msg.key, value=value)

    def _on_SetXCom(self, msg: Any) -> None:
        if not msg.key:
            raise _api_error("XCom key must be a non-empty string.")
        if msg.mapped_length is not None and msg.mapped_length > (limit := _max_map_length()):
            raise _api_error(
                f"the pushed value has {msg.mapped_length} entries to map over, [core] max_map_length allows {limit}"
            )
        self._store_of(msg).set_xcom(msg.task_id, _index(msg.map_index), msg.key, msg.value)

    def _on_DeleteXCom(self, msg: Any) -> None:
        self._store_of(msg).delete_xcom(msg.task_id, _index(msg.map_index), msg.key)

    def _on_GetXComCount(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComCountResponse

        return XComCountResponse(len=len(self._store_of(msg).xcom_indexes(msg.task_id, msg.key)))

    def _on_GetXComSequenceItem(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, XComSequenceIndexResult

        store = self._store_of(msg)
        indexes = store.xcom_indexes(msg.task_id, msg.key)
        try:
            _, value = store.xcom(msg.task_id, indexes[msg.offset], msg.key)
        except IndexError:
            return ErrorResponse(error=ErrorType.XCOM_NOT_FOUND, detail={"offset": msg.offset})
        return XComSequenceIndexResult(root=value)

    def _on_GetXComSequenceSlice(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComSequenceSliceResult

        store = self._store_of(msg)
        chosen = store.xcom_indexes(msg.task_id, msg.key)[slice(msg.start, msg.stop, msg.step)]
        return XComSequenceSliceResult(root=[store.xcom(msg.task_id, index, msg.key)[1] for index in chosen])

    # -- the task state store --------------------------------------------------------------------------------------

    def _on_GetTaskStateStore(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, TaskStateStoreResult

        found, value = self._store.store_get(self._task_id, self._map_index, msg.key)
        if not found:
            return ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND, detail={"key": msg.key})
        return TaskStateStoreResult(value=value)

    def _on_SetTaskStateStore(self, msg: Any) -> Any:
        self._store.store_set(self._task_id, self._map_index, msg.key, msg.value)
        return _ok()

    def _on_DeleteTaskStateStore(self, msg: Any) -> Any:
        self._store.store_delete(self._task_id, self._map_index, msg.key)
        return _ok()

    def _on_ClearTaskStateStore(self, msg: Any) -> Any:
        self._store.store_clear(self._task_id, self._map_index)
        return _ok()

    # -- connections and variables: the SDK asks the environment and the secrets backend before --------------------

    def _on_GetConnection(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": msg.conn_id})

    def _on_GetVariable(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": msg.key})

    def _on_GetVariableKeys(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import VariableKeysResult

        names = (name.removeprefix(_VARIABLE_PREFIX) for name in os.environ if name.startswith(_VARIABLE_PREFIX))
        keys = sorted(name.lower() for name in names if name.lower().startswith((msg.prefix or "").lower()))
        return VariableKeysResult(keys=keys[msg.offset : msg.offset + msg.limit], total_entries=len(keys))

    def _on_MaskSecret(self, msg: Any) -> None:
        """The SDK has masked it in this process, which is the one that prints."""

    # -- the run and its tasks -------------------------------------------------------------------------------------

    def _on_GetDagRun(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import DagRunResult

        self._own(msg)
        return DagRunResult.from_api_response(self._dag_run)

    def _on_GetDagRunState(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import DagRunStateResult

        self._own(msg)
        return DagRunStateResult(state=self._dag_run.state)

    def _on_GetDRCount(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import DRCount

        self._own_runs(msg)
        counts = self._is_of_this_run(msg) and (msg.states is None or self._dag_run.state.value in msg.states)
        return DRCount(count=int(counts))

    def _on_GetTICount(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TICount

        states = self._states(msg)
        wanted = None if msg.states is None else set(msg.states)
        return TICount(
            count=sum(wanted is None or state in wanted for each in states.values() for state in each.values())
        )

    def _on_GetTaskStates(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStatesResult

        found = {
            task_id if index < 0 else f"{task_id}_{index}": state
            for task_id, states in self._states(msg).items()
            for index, state in states.items()
        }
        return TaskStatesResult(task_states={self._store.run_id: found})

    def _on_GetTaskBreadcrumbs(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskBreadcrumbsResult

        self._own(msg)
        return TaskBreadcrumbsResult(breadcrumbs=[])

    def _states(self, msg: Any) -> dict[str, dict[int, Any]]:
        """Return the states by task and map index of the instances that a message asks for, of this run only."""
        from airflow_provider_raynode.argo.states import RunStates

        self._own_runs(msg)
        if not self._is_of_this_run(msg):
            return {}
        states = RunStates(self._dag, self._store)
        ids = list(msg.task_ids or self._dag.task_ids)
        if msg.task_group_id is not None:
            ids = [task.task_id for task in self._dag.task_group_dict[msg.task_group_id].iter_tasks()]
        found = {each: states.recorded(each) for each in ids}
        if msg.map_index is None:
            return found
        return {each: {i: state for i, state in by.items() if i == msg.map_index} for each, by in found.items()}

    # -- other runs ------------------------------------------------------------------------------------------------

    def _on_GetPrevSuccessfulDagRun(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import PrevSuccessfulDagRunResult

        run = self._last_success(msg, self._dag_run.logical_date)
        if run is None:
            return PrevSuccessfulDagRunResult()
        kept = {"data_interval_start", "data_interval_end", "start_date", "end_date"}
        return PrevSuccessfulDagRunResult(**run.model_dump(include=kept))

    def _on_GetPreviousDagRun(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import PreviousDagRunResult

        self._own_dag(msg)
        if msg.state != "success":
            raise UnsupportedMessageError(
                f"{self._task_id} asked for a previous run in {msg.state or 'any'} state: of earlier runs a pod knows "
                "those that succeeded, get_previous_dagrun(state='success')"
            )
        run = self._last_success(msg, msg.logical_date)
        return PreviousDagRunResult(dag_run=None if run is None else self._as_dag_run(run))

    def _last_success(self, msg: Any, logical_date: Any) -> SucceededRun | None:
        if not self._runs_are_recorded:
            raise UnsupportedMessageError(
                f"{self._task_id} asked Airflow for {type(msg).__name__} (prev_…_success), and this DAG's runs are not "
                "recorded: set record_runs: true in the settings and export again (--record-runs where "
                "run-task is called by hand)"
            )
        from airflow_provider_raynode.argo.earlier_runs import EarlierRuns

        return EarlierRuns(self._store.catalog, self._store.dag_id).last_before(logical_date)

    def _as_dag_run(self, run: SucceededRun) -> Any:
        from airflow.sdk.api.datamodels._generated import DagRunState, DagRunType

        kept = {"run_id", "logical_date", "data_interval_start", "data_interval_end", "start_date", "end_date"}
        changes = {
            **run.model_dump(include=kept),
            "run_after": run.start_date,
            "run_type": DagRunType.SCHEDULED if run.scheduled else DagRunType.MANUAL,
            "state": DagRunState.SUCCESS,
            # Not recorded.
            "conf": None,
        }
        return self._dag_run.model_copy(update=changes)

    def _on_GetTaskRescheduleStartDate(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskRescheduleStartDate

        return TaskRescheduleStartDate(start_date=self.first_started)

    # -- assets: known by name, and nobody hears of them -----------------------------------------------------------

    def _on_ValidateInletsAndOutlets(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import InactiveAssetsResult

        return InactiveAssetsResult(inactive_assets=[])

    def _on_GetAssetsByAlias(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import AssetsByAliasResult

        return AssetsByAliasResult(assets=[])

    def _on_GetAssetByName(self, msg: Any) -> Any:
        return self._asset(msg, lambda asset: asset.name == msg.name)

    def _on_GetAssetByUri(self, msg: Any) -> Any:
        return self._asset(msg, lambda asset: asset.uri == msg.uri)

    def _asset(self, msg: Any, is_wanted: Callable[[Any], bool]) -> Any:
        """Return an asset that a task of this DAG has as an inlet or outlet."""
        from airflow.sdk import Asset
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import AssetResult, ErrorResponse

        for task in self._dag.tasks:
            for each in (*task.inlets, *task.outlets):
                if isinstance(each, Asset) and is_wanted(each):
                    return AssetResult(name=each.name, uri=each.uri, group=each.group, extra=each.extra)
        return ErrorResponse(error=ErrorType.ASSET_NOT_FOUND, detail=msg.model_dump(exclude={"type"}))

    # -- for Airflow's UI ------------------------------------------------------------------------------------------

    def _on_SetRenderedFields(self, msg: Any) -> Any:
        return _ok()

    def _on_SetRenderedMapIndex(self, msg: Any) -> Any:
        self.rendered_map_index = msg.rendered_map_index
        return _ok()

    # -- below the surface -----------------------------------------------------------------------------------------

    def _is_of_this_run(self, msg: Any) -> bool:
        return (msg.run_ids is None or self._store.run_id in msg.run_ids) and (
            msg.logical_dates is None or self._dag_run.logical_date in msg.logical_dates
        )

    def _own_dag(self, msg: Any) -> None:
        if msg.dag_id != self._store.dag_id:
            raise UnsupportedMessageError(
                f"{self._task_id} asked for {type(msg).__name__} of the DAG {msg.dag_id}: a pod knows its own run only"
            )

    def _own_runs(self, msg: Any) -> None:
        """See to it that a message is about this run, by its id or date.

        :raises UnsupportedMessageError: it is about others, or about all.
        """
        self._own_dag(msg)
        runs, dates = set(msg.run_ids or ()), set(msg.logical_dates or ())
        if not (runs or dates) or runs - {self._store.run_id} or dates - {self._dag_run.logical_date}:
            raise UnsupportedMessageError(
                f"{self._task_id} asked for {type(msg).__name__} over several runs: a pod knows its own run only, "
                "name it with run_ids=[run_id]"
            )

    def _own(self, msg: Any) -> None:
        self._own_dag(msg)
        if msg.run_id != self._store.run_id:
            raise UnsupportedMessageError(
                f"{self._task_id} asked for {type(msg).__name__} of the run {msg.run_id}: a pod knows its own run only"
            )

    def _store_of(self, msg: Any) -> RunStore:
        """Return the store of the run that a message names: XComs of other runs in the same catalog can be read."""
        from airflow_provider_raynode.argo.records import RunStore

        if (msg.dag_id, msg.run_id) == (self._store.dag_id, self._store.run_id):
            return self._store
        return RunStore(self._store.catalog, msg.dag_id, msg.run_id)


def _index(map_index: int | None) -> int:
    return -1 if map_index is None else map_index


def _ok() -> Any:
    from airflow.sdk.execution_time.comms import OKResponse

    return OKResponse(ok=True)


def _max_map_length() -> int:
    from airflow.sdk.configuration import conf

    return int(conf.getint("core", "max_map_length", fallback=1024))


def _api_error(text: str) -> Exception:
    """Return what a task gets when Airflow's API server refuses its message."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"message": text}))
