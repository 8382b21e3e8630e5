"""`@task.ray`: a TaskFlow task whose function is called on Ray."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, is_decorated_task, task_decorator_factory

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.decorators._context import check_context_arguments, context_arguments
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._one_task import RayOneTaskOperator, config_with
from airflow_provider_raynode.operators._place import placed
from airflow_provider_raynode.operators._resolve import (
    as_returns,
    check_callable,
    check_limits,
    check_on_kill,
    check_secrets,
    is_static,
)
from airflow_provider_raynode.operators._secrets import asks_for_secrets, check_clear
from airflow_provider_raynode.operators.fan_out import DEFAULT_ATTACH_TIMEOUT_S, DEFAULT_CONN_ID
from airflow_provider_raynode.returns import Return

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from airflow_provider_raynode.operators._job_run import JobRun
    from airflow_provider_raynode.operators._staging import Staged
    from airflow_provider_raynode.spec import NodeResult

# Keys of `default_resources` that are arguments as well.
_RESERVES = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "label_selector")
# The name of a returned value among the outputs of a result.
_VALUE = "value"


class RayDecoratedOperator(DecoratedOperator, RayOneTaskOperator):
    """Call a plain function on Ray: stage it with its arguments, run it as a job, return what it returned.

    What is small JSON goes by value; what is large or no JSON by reference: an argument lies in the catalog until the
    function is called, a return value is pushed as a CatalogRef, which `catalog.load` reads and a further task on Ray
    has loaded already.

    :param python_callable: the function.
    :param op_args: its arguments by position. (templated)
    :param op_kwargs: those by name. (templated)
    :param ray_config: path of a YAML file, a dict or a RayConfig, without ray_tune and ray_train; with `ray_map` the
        function is called for each item. (templated)
    :param ray_conn_id: the Airflow connection of type `ray`; without a cluster the function is called on an embedded
        Ray on the Airflow worker. (templated)
    :param address: the cluster's address, over that of the connection.
    :param num_cpus: CPUs that a call reserves; default: 1.
    :param num_gpus: GPUs, fractions below 1 allowed.
    :param memory: memory in bytes.
    :param resources: custom resources by name.
    :param custom_resources: the same, for a task that is mapped after `.override(...)`, where Airflow takes `resources`
        for its own.
    :param accelerator_type: the accelerator that the machine must have, e.g. `A100`.
    :param label_selector: labels that the machine must have.
    :param runtime_env: Ray's runtime environment. (templated)
    :param secrets: what the function may read by name, as in `ray_node`.
    :param returns: names of a returned dict that go by reference, as in `ray_node`: `pickled("model")`; the pushed dict
        has their references.
    :param startup_timeout_s: longest time in seconds until the function is called; None for no limit.
    :param run_timeout_s: longest time in seconds for the whole job; None for no limit.
    """

    custom_operator_name: str = "@task.ray"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", "ray_config", "ray_conn_id", "runtime_env")
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py", "runtime_env": "json"}  # noqa: RUF012
    # The function is no copy, as with every decorated task.
    shallow_copy_attrs: Sequence[str] = ("python_callable",)

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        ray_config: str | Path | Mapping[str, Any] | RayConfig | None = None,
        ray_conn_id: str = DEFAULT_CONN_ID,
        address: str | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        custom_resources: Mapping[str, float] | None = None,
        accelerator_type: str | None = None,
        label_selector: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        secrets: Sequence[str] = (),
        returns: Iterable[Return | str] = (),
        startup_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)
        if isinstance(ray_config, RayConfig):
            ray_config = ray_config.model_dump(mode="json", exclude_unset=True)
        elif isinstance(ray_config, Path):
            ray_config = str(ray_config)
        self.ray_config = ray_config
        self.ray_conn_id = ray_conn_id
        self.address = address
        self.runtime_env = runtime_env
        self.reserves = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "memory": memory,
            "resources": custom_resources if resources is None else resources,
            "accelerator_type": accelerator_type,
            "label_selector": label_selector,
        }
        self.secrets = secrets if isinstance(secrets, str) else tuple(secrets)
        self._asks_for_secrets = asks_for_secrets(ray_config) or asks_for_secrets(runtime_env)
        self.startup_timeout_s = startup_timeout_s
        self.run_timeout_s = run_timeout_s
        parsed = self.get_dag()
        with placed("task", self.task_id, parsed.dag_id if parsed is not None else None):
            check_callable(python_callable)
            _check_globals(python_callable)
            check_context_arguments(python_callable, list(self.op_args), self.op_kwargs)
            check_secrets(self.secrets)
            check_limits(startup_timeout_s=startup_timeout_s, run_timeout_s=run_timeout_s)
            self.returns = as_returns(returns)
            if parsed is not None and all(is_static(each) for each in (ray_config, runtime_env)):
                config = self._config(parsed)
                check_on_kill(self.kill_policy, config.cluster_address)

    def _stage(self, context: Context) -> Staged:
        from airflow_provider_raynode.operators._staging import Staging
        from airflow_provider_raynode.spec import Limits

        config = self._config(context["dag"])
        for text in config.warnings:
            self.log.warning("%s", text)
        environment = config.ray_cluster.runtime_env
        if self._asks_for_secrets and environment is not None:
            check_clear({f"runtime_env.env_vars.{name}": text for name, text in (environment.env_vars or {}).items()})
        op_args, op_kwargs = self._arguments(context)
        staging = Staging(
            self,
            context,
            config,
            ray_conn_id=self.ray_conn_id,
            source=self.ray_config if isinstance(self.ray_config, str) else "ray_config",
        )
        return staging.function(
            self.python_callable,
            op_kwargs,
            op_args=op_args,
            returns=self.returns,
            returned=self._returned(),
            secrets=tuple(self.secrets),
            limits=Limits(
                startup_timeout_s=self.startup_timeout_s,
                run_timeout_s=self.run_timeout_s,
                attach_timeout_s=None if staging.address == "local" else DEFAULT_ATTACH_TIMEOUT_S,
            ),
            on_change="restart",
        )

    def _arguments(self, context: Context) -> tuple[list[Any], dict[str, Any]]:
        """Return the function's arguments by position and by name; by name all that can have one."""
        args, kwargs = list(self.op_args), dict(self.op_kwargs)
        kwargs |= context_arguments(self.python_callable, args, kwargs, context)
        signature = inspect.signature(self.python_callable)
        bound = signature.bind(*args, **kwargs)
        unnamed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        if any(signature.parameters[name].kind in unnamed for name in bound.arguments):
            return args, kwargs
        named = {}
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            else:
                named[name] = value
        return [], named

    def _returned(self) -> Literal["named", "value", "values"]:
        if any(declared.name != _VALUE for declared in self.returns):
            return "named"
        return "values" if self.multiple_outputs else "value"

    def _output(self, run: JobRun, result: NodeResult | None) -> Any:
        """Return what the function returned, by reference what is large or no JSON; of a map, what fan-in pushes."""
        from airflow_provider_raynode.operators._collected import collected, told

        assert result is not None
        record = self._record(run, result)
        for warning in result.warnings:
            self.log.warning("%s", warning)
        for line in told(run.work, result):
            self.log.info("%s", line)
        if run.work == "map":
            return collected("map", result, record)
        if self._returned() == "named":
            return {**(result.metrics or {}), **result.outputs}
        if self._returned() == "values" and result.value is not None:
            return {**result.value, **result.outputs}
        return result.outputs.get(_VALUE, result.value)

    def _config(self, dag: DAG | None) -> RayConfig:
        """Return the config with the arguments that are said beside it.

        :raises ConfigError: it is wrong, is that of a search or a training, or says again what an argument says.
        """
        return _config_of(self.ray_config, dag, self.address, self.runtime_env, self.reserves)


def ray_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a TaskFlow task of a function that is called on Ray: `@task.ray`, or `@task.ray(num_cpus=2)`.

    Example::

        @task.ray(num_cpus=2, secrets=["conn:warehouse"])
        def score(day, model):
            ...
            return {"rows": len(rows), "mean": mean}

        score.partial(model=train()).expand(day=days())

    :param python_callable: the function.
    :param multiple_outputs: push a value for each key of the returned dict.
    :param kwargs: arguments of `RayDecoratedOperator`, and of every operator.
    """
    if isinstance(kwargs.get("resources"), Mapping):
        # Of a mapped task Airflow takes it for its own, which has no names but `cpus`, `ram`, `disk`, `gpus`.
        kwargs["custom_resources"] = kwargs.pop("resources")

    def decorate(function: Callable[..., Any]) -> TaskDecorator:
        _check_early(function, kwargs)
        return task_decorator_factory(
            python_callable=function,
            multiple_outputs=multiple_outputs,
            decorated_operator_class=RayDecoratedOperator,
            **kwargs,
        )

    if python_callable is None:
        return decorate  # type: ignore[return-value]  # as Airflow's own factory does
    return decorate(python_callable)


def _check_early(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check what the decorator says itself: Airflow makes the operator of a mapped task not before it runs.

    :raises ConfigError: it is wrong.
    """
    name = options.get("task_id") or getattr(function, "__name__", type(function).__name__)
    with placed("task", str(name), None):
        check_callable(function)
        _check_globals(function)
        check_secrets(options.get("secrets", ()))
        check_limits(**{each: options.get(each) for each in ("startup_timeout_s", "run_timeout_s")})
        as_returns(options.get("returns", ()))
        given, environment = options.get("ray_config"), options.get("runtime_env")
        if not isinstance(given, str | Path) and is_static(given) and is_static(environment):
            reserves = {each: options.get(each) for each in _RESERVES}
            reserves["resources"] = options.get("custom_resources")
            _config_of(given, None, options.get("address"), environment, reserves)


def _config_of(
    given: Any, dag: DAG | None, address: str | None, runtime_env: Any, reserves: Mapping[str, Any]
) -> RayConfig:
    config = config_with(
        given, dag, ray_cluster={"address": address, "runtime_env": runtime_env}, default_resources=reserves
    )
    if config.work not in ("function", "map"):
        section = "ray_tune" if config.work == "search" else "ray_train"
        raise ConfigError(
            f"ray_config: {section} is no work of @task.ray, which calls a plain function: use ray_node(...)"
        )
    return config


def _check_globals(function: Callable[..., Any]) -> None:
    """Refuse a function that calls another task: what stands under that name makes tasks, and calls nothing.

    :raises ConfigError: see above.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return
    names = {name: function.__globals__.get(name) for name in _names(code)}
    for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name, value in names.items():
        if callable(value) and is_decorated_task(value):
            raise ConfigError(
                f"python_callable: {function.__qualname__} uses {name}, which is decorated with @task and makes a task "
                f"of each call: keep the plain function under a name of its own (def plain_{name}(...): ...; {name} = "
                f"task.ray(plain_{name})) and call that"
            )


def _names(code: Any) -> set[str]:
    """Return the names of globals in a function's code and in the functions in it."""
    found = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if inspect.iscode(constant):
            found |= _names(constant)
    return found
