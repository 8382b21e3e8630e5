"""What the DAG itself says that a task needs: connections and variables, as the environment variables of its pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.node_tasks import fan_out_of, is_execution, is_fan_out, is_one_task
from airflow_provider_raynode.argo.settings._connections import (
    catalog_connection,
    connection_variable,
    variable_variable,
)
from airflow_provider_raynode.argo.shape import groups_of, is_podless, operator_class
from airflow_provider_raynode.argo.task_sdk._dag import expand_input
from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.settings import ArgoSettings

_FIELD = "conn_id"


def needs_of(dag: DAG, task: Any) -> list[str]:
    """Return the variables that a task's pod needs, as far as the DAG shows it.

    These are the connections in its operator's `…conn_id` fields; and for the tasks of a Ray node the connections of
    the cluster and the catalog, and, where the job is submitted, the node's `secrets`.
    """
    found = [connection_variable(each) for each in _connections(task)]
    found += _of_ray_node(dag, task)
    return list(dict.fromkeys(each for each in found if each))


def variables_given(dag: DAG, settings: ArgoSettings) -> set[str]:
    """Return the variables that the pods of the DAG's tasks have, and the one of the exit handler."""
    found = set(settings.pod_for_exit().plain_env())
    for task in dag.tasks:
        if not is_podless(task):
            pod = settings.pod_for(task.task_id, groups_of(task), needs=needs_of(dag, task))
            found.update(pod.plain_env())
    return found


def _connections(task: Any) -> Iterator[str]:
    for name, value in _fields(task):
        # A template is filled in later: what it will name is not known here.
        if name.endswith(_FIELD) and isinstance(value, str) and value and "{{" not in value:
            yield value


def _fields(task: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an operator; of a mapped one those that it will have, with defaults and literal lists."""
    if not task.is_mapped:
        yield from vars(task).items()
        return
    expanded = expand_input(task).value
    given = {**task.partial_kwargs, **(expanded if isinstance(expanded, Mapping) else {})}
    for each in operator_class(task).__mro__[:-1]:
        for name, parameter in signature(each.__init__).parameters.items():  # type: ignore[misc]
            if name.endswith(_FIELD) and name not in given:
                yield name, parameter.default
    for name, value in given.items():
        yield from ((name, each) for each in (value if isinstance(value, list | tuple) else [value]))


def _of_ray_node(dag: DAG, task: Any) -> Iterator[str]:
    if is_one_task(task):
        fields = task.partial_kwargs if task.is_mapped else vars(task)
        yield connection_variable(_catalog_of(dag, fields.get("ray_config")))
        yield from _secrets(fields.get("secrets") or ())
        return
    if not (is_fan_out(task) or is_execution(task) or _is_fan_in(task)):
        return
    fan_out = task if is_fan_out(task) else _fan_out_before(task)
    if fan_out is None or fan_out.is_mapped:
        return
    yield connection_variable(_catalog_of(dag, fan_out.ray_config))
    if _is_fan_in(task):
        return
    # The job is submitted by fan-out, and by the execution task where an attempt follows a failed one.
    yield connection_variable(fan_out.ray_conn_id)
    yield from _secrets(fan_out.secrets)


def _fan_out_before(task: Any) -> Any:
    """Return the fan-out of a node's execution task or fan-in."""
    found = fan_out_of(task)
    return found if found is None or is_fan_out(found) else fan_out_of(found)


def _is_fan_in(task: Any) -> bool:
    return any(each.__name__ == "RayFanInOperator" for each in operator_class(task).__mro__)


def _secrets(entries: Any) -> Iterator[str]:
    from airflow_provider_raynode.operators._secrets import parse_secrets

    for name in parse_secrets(entries):
        yield connection_variable(name.key) if name.kind == "conn" else variable_variable(name.key)


def _catalog_of(dag: DAG, ray_config: Any) -> str:
    from airflow_provider_raynode.operators._resolve import is_static, load_config

    if ray_config is None or not is_static(ray_config):
        return ""
    try:
        return catalog_connection(load_config(ray_config, dag).catalog.uri)
    except ConfigError:
        # The node itself says what is wrong with it.
        return ""
