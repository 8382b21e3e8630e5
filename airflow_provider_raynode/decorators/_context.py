"""What of Airflow's context a function on Ray may have as an argument: what is data, and the same at each try."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._inputs import as_exact_json

# Texts, dates and dicts, which every function with `**kwargs` gets as well.
_DATA = (
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "logical_date",
    "params",
    "run_id",
    "task_instance_key_str",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
)
_WHEN_ASKED = (
    "expanded_ti_count",
    "map_index_template",
    "partition_date",
    "partition_key",
    "prev_data_interval_end_success",
    "prev_data_interval_start_success",
    "prev_end_date_success",
    "prev_start_date_success",
    "test_mode",
)
_REMEDIES = {
    "ti": "context() of this package has dag_id, run_id, map_index and try_number",
    "task_instance": "context() of this package has dag_id, run_id, map_index and try_number",
    "dag_run": "context() of this package has dag_id, run_id, logical_date and params",
    "try_number": "it differs from try to try, and a job outlives a try: context().try_number",
    "task_reschedule_count": "it differs from try to try, and a job outlives a try",
    "conn": "declare secrets=['conn:my_db'] and read context().connection('my_db')",
    "var": "declare secrets=['var:api_key'] and read context().variable('api_key'), or pass '{{ var.value.key }}'",
}


def check_context_arguments(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse an argument that Airflow would fill with what exists in its own process only.

    :raises ConfigError: see above; the message says what to use in its place.
    """
    for name in _asked(function, args, kwargs):
        if name not in (*_DATA, *_WHEN_ASKED):
            remedy = _REMEDIES.get(name, "pass what the function needs of it as an argument, e.g. as a template")
            raise ConfigError(
                f"argument {name!r} is Airflow's {name}, which does not leave the Airflow worker, and the function "
                f"runs on Ray: {remedy}"
            )


def context_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the context gives to the function's arguments that nobody else fills.

    A date goes as Python's own `datetime`: the cluster needs no library of Airflow's.

    :raises ConfigError: an argument is none that the context can give to a function on Ray, or holds no JSON.
    """
    check_context_arguments(function, args, kwargs)
    asked = _asked(function, args, kwargs)
    if _takes_rest(function):
        # Where nothing else of that name is there: with a date of Airflow's a run by hand may have none.
        taken = {*kwargs, *inspect.signature(function).parameters}
        asked = [*asked, *(name for name in _DATA if name not in taken and name in context)]
    return {name: _as_data(name, context.get(name)) for name in asked}


def _asked(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(function).parameters
    by_position = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ][: len(args)]
    return [
        name for name in parameters if name in KNOWN_CONTEXT_KEYS and name not in kwargs and name not in by_position
    ]


def _takes_rest(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _as_data(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return datetime.fromisoformat(value.isoformat())
    if hasattr(value, "dump"):  # the run's params
        value = value.dump()
    if as_exact_json(value) is None:
        raise ConfigError(
            f"argument {name!r} is Airflow's {name}, and holds what JSON does not have ({type(value).__name__}): pass "
            "what the function needs of it as an argument"
        )
    return value
