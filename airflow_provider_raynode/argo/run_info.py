"""What a pod is told of its run: the dates, and the params, from a person's file or as Argo hands them on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.run_source import LOGICAL_DATE, WrongCallError, read_run_file
from airflow_provider_raynode.argo.shape import has_default
from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.task_sdk import DagRunInfo


def run_info(dag: DAG, call: Any) -> DagRunInfo:
    """Return the run that a call is about: its dates and params."""
    from airflow_provider_raynode.argo.task_sdk import DagRunInfo, run_dates

    given = read_run_file(call.run_file) if call.run_file else {}
    logical_date = given.pop(LOGICAL_DATE, "")
    run_after = _date(call.run_after, "--run-after") or datetime.now(UTC)
    dates = run_dates(
        dag,
        run_after=run_after,
        scheduled=_date(call.scheduled_time, "--scheduled-time"),
        logical=_date(call.logical_date, "--logical-date") or _date(logical_date, f"the parameter {LOGICAL_DATE}"),
    )
    params = _params_of_argo(dag, given)
    if call.parameters_file:
        params |= _params_of_file(call.parameters_file)
    return DagRunInfo(call.run_id, run_after, dates, params, are_recorded=call.record_runs)


def _date(text: str, name: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise WrongCallError(
            f"{name}: {text!r} is not an ISO date, such as 2026-01-31 or 2026-01-31T06:00:00Z"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _params_of_file(path: str) -> dict[str, Any]:
    from airflow_provider_raynode.config import read_yaml

    found = read_yaml(Path(path).expanduser(), may_be_empty=True)
    if not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{path}: --parameters-file must hold a mapping of names to values")
    return dict(found)


def _params_of_argo(dag: DAG, pairs: Mapping[str, str]) -> dict[str, Any]:
    """Return Argo's parameters as the DAG's params: each value is JSON, or text that the param's schema takes."""
    found = {name: param_value(dag, name, text) for name, text in pairs.items()}
    # Argo names every parameter. One that was left as it is is no value of this run: a task's own params go before it.
    return {name: value for name, value in found.items() if not _is_default(dag, name, value)}


def _is_default(dag: DAG, name: str, value: Any) -> bool:
    if name not in dag.params or not has_default(dag.params.get_param(name)):
        return False
    default = dag.params.get_param(name).value
    # As the export writes it; not ==, for which 1 is True.
    return json.dumps(value, default=str) == json.dumps(default, default=str)


def param_value(dag: DAG, name: str, text: str) -> Any:
    """Return what the text of one of Argo's parameters is: JSON, or text that the param's schema takes."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if name in dag.params and not isinstance(value, str) and not _fits(dag, name, value) and _fits(dag, name, text):
        return text
    return value


def _fits(dag: DAG, name: str, value: Any) -> bool:
    # A copy: what a param resolves to, it keeps.
    param = copy.copy(dag.params.get_param(name))
    try:
        param.resolve(value=value, suppress_exception=False)
    except Exception:
        return False
    return True
