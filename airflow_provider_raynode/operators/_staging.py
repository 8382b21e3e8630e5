"""What a task stages before anything is submitted: the spec of its next attempt, where it is kept, who runs it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_raynode import __version__
from airflow_provider_raynode.hooks.catalog import catalog_for
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.operators._code import code_identity
from airflow_provider_raynode.operators._function import stage_function
from airflow_provider_raynode.operators._inputs import stage_inputs
from airflow_provider_raynode.operators._map_variables import as_json_object, map_variables
from airflow_provider_raynode.operators._target import check_place, check_target
from airflow_provider_raynode.spec import (
    Entrypoint,
    FunctionRef,
    Limits,
    NodeSpec,
    RunContext,
    Versions,
    submission_id,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_raynode.catalog import Catalog
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.returns import Return


@dataclass(frozen=True)
class Staged:
    """A spec that has no attempt yet.

    :param node: the catalog at the folder of the node.
    """

    spec: NodeSpec
    node: Catalog
    hook: RayHook


class Staging:
    """Stages the work of one task in one run.

    :param source: what messages call the config.
    :param address: where the job runs, over the config and the connection.
    """

    def __init__(
        self,
        task: BaseOperator,
        context: Context,
        config: RayConfig,
        *,
        ray_conn_id: str,
        node_id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        source: str = "ray_config",
        address: str | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._fileloc = context["dag"].fileloc
        self._hook = RayHook(ray_conn_id=ray_conn_id, address=address or config.cluster_address)
        settings = self._hook.resolve()
        self.address = settings.address
        self._catalog = catalog_for(config.catalog.uri or settings.catalog)
        self._run = run_context(task, context, node_id or task.task_id, parameters or {})
        run = self._run
        self._where = (run.dag_id, run.run_id, run.node_id, run.map_index)
        self.node = self._catalog.at(self._catalog.node_prefix(*self._where))

    def function(
        self,
        function: Callable[..., Any] | str,
        op_kwargs: Mapping[str, Any],
        *,
        op_args: Sequence[Any] = (),
        returns: tuple[Return, ...] = (),
        returned: Literal["named", "value", "values"] = "named",
        secrets: tuple[str, ...] = (),
        limits: Limits,
        on_change: Literal["refuse", "restart"] = "refuse",
    ) -> Staged:
        """Check the place where the function will run, and stage it with its inputs.

        :raises ConfigError: the config asks for what is not there, or the function cannot be sent.
        :raises ClusterError: the cluster cannot be reached, or its Ray or Python does not fit.
        """
        ray_version = check_target(function, self._config, self._hook, self._catalog, source=self._source)
        inputs = self.node.child("inputs")
        by_position = stage_inputs({f"argument_{index}": value for index, value in enumerate(op_args)}, inputs)
        return self._staged(
            ray_version,
            function=stage_function(function, self.node),
            op_kwargs=stage_inputs(op_kwargs, inputs),
            op_args=tuple(by_position.values()),
            returns=returns,
            returned=returned,
            code=code_identity(function, self._fileloc),
            secrets=secrets,
            limits=limits,
            on_change=on_change,
        )

    def entrypoint(self, command: Entrypoint, *, secrets: tuple[str, ...] = (), limits: Limits) -> Staged:
        """Check the place where a command will run, and stage it.

        :raises ConfigError: the config asks for what is not there.
        :raises ClusterError: the cluster cannot be reached, or cannot run our driver where the command needs it.
        """
        if command.by_driver:
            ray_version = check_target(command.command, self._config, self._hook, self._catalog, source=self._source)
        else:
            check_place(self._config, self._hook, self._source)
            ray_version = None
        function = FunctionRef(name="entrypoint", python=platform.python_version())
        return self._staged(ray_version, function=function, entrypoint=command, secrets=secrets, limits=limits)

    def _staged(self, ray_version: str | None, **fields: Any) -> Staged:
        spec = NodeSpec(
            submission_id=submission_id(*self._where, 1, self._catalog.uri),
            attempt=1,
            context=self._run,
            config=self._config,
            catalog_uri=self._catalog.uri,
            node_prefix=self.node.prefix_uri,
            staged_by=Versions(python=platform.python_version(), package=__version__, ray=ray_version),
            **fields,
        )
        return Staged(spec, self.node, self._hook)


def run_context(task: BaseOperator, context: Context, node_id: str, parameters: Mapping[str, Any]) -> RunContext:
    """Return the Airflow run of a task instance, as the function sees it on a worker."""
    task_instance = context["ti"]
    map_index = task_instance.map_index
    return RunContext(
        dag_id=task_instance.dag_id,
        run_id=task_instance.run_id,
        node_id=node_id,
        map_index=-1 if map_index is None else map_index,
        try_number=task_instance.try_number,
        logical_date=context["dag_run"].logical_date,
        params=as_json_object(context["params"]),
        map_variables=map_variables(task, context),
        parameters=dict(parameters),
    )
