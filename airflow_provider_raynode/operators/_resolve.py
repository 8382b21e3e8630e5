"""What a node's arguments mean: the function, the config file's place, early checks at parse time, returns by name."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import CatalogRef
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.returns import Return, declared_as
from airflow_provider_raynode.runtime.binding import check_binding, with_parameters

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.config.ray_config import WorkKind


def function_name(function: Callable[..., Any] | str) -> str:
    """Return the name that messages use: the qualified name, or the import path as given."""
    if isinstance(function, str):
        return function
    if isinstance(function, functools.partial):
        return function_name(function.func)
    return getattr(function, "__qualname__", type(function).__qualname__)


def check_callable(function: Any) -> None:
    """Refuse what can never be a node's function, at parse time.

    :raises ConfigError: not callable, a decorated Airflow task, a class, a coroutine or generator function, or an
        import path that is not `pkg.mod:fn`.
    """
    if isinstance(function, str):
        module, _, name = function.partition(":")
        parts = [*module.split("."), *name.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise ConfigError(
                f"python_callable: {function!r} is not an import path of the form 'pkg.mod:fn' "
                "(a colon between the module and the function)"
            )
        return
    if not callable(function):
        raise ConfigError(
            f"python_callable: expected a function or an import path 'pkg.mod:fn', got {type(function).__name__}"
        )
    if type(function).__module__.startswith("airflow.") and hasattr(function, "operator_class"):
        raise ConfigError(
            f"python_callable: {function_name(function)} is decorated with @task; pass the plain function, "
            "the node makes its own tasks"
        )
    if problem := _never_returns_a_dict(function):
        raise ConfigError(f"python_callable: {function_name(function)} {problem}")


def _never_returns_a_dict(function: Callable[..., Any]) -> str | None:
    """Return what a call gives instead of the function's values, None where it may give them."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return (
            "is a class, and a call of it gives an object: pass a function, or an object with __call__ that returns "
            "the metrics"
        )
    called = [function, inspect.getattr_static(type(function), "__call__", None)]
    if any(inspect.iscoroutinefunction(each) for each in called):
        return (
            "is async, and a call of it gives a coroutine: make it a plain `def` (asyncio.run runs what is async in it)"
        )
    if any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in called):
        return (
            "has a `yield`, and a call of it gives a generator: report each step with "
            "airflow_provider_raynode.report and return the last values"
        )
    return None


def as_returns(returns: Iterable[Return | str]) -> tuple[Return, ...]:
    """Return the declared outputs; a bare name is kept as its value asks for.

    :raises ConfigError: not a list of Return or str, or a name twice.
    """
    if isinstance(returns, str | Return):
        returns = [returns]
    if not isinstance(returns, Iterable):
        raise ConfigError(f"returns: expected a list such as [pickled('model')], got {returns!r:.80}")
    found: dict[str, Return] = {}
    for item in returns:
        if not isinstance(item, Return | str):
            raise ConfigError(
                f"returns: expected pickled('name'), json('name'), metric('name') or a name, got {item!r}"
            )
        declared = declared_as(item.name, item.kind) if isinstance(item, Return) else declared_as(item, "auto")
        if declared.name in found:
            raise ConfigError(f"returns: {declared.name!r} is declared twice")
        found[declared.name] = declared
    return tuple(found.values())


def config_path(path: str | Path, dag: DAG | None, *, name: str = "ray_config") -> Path:
    """Return a file's absolute path: a relative one is sought beside the DAG file, then on
    `template_searchpath`, then in the working directory.

    :raises ConfigError: not found; the message lists the places.
    """
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    folders = [*dag_folders(dag), Path.cwd()]
    for folder in folders:
        if (folder / given).exists():
            return folder / given
    places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise ConfigError(f"{name}: {path} does not exist; looked in {places}")


def dag_folders(dag: DAG | None) -> list[Path]:
    """Return where a path that a DAG names is sought: beside the DAG file, then on `template_searchpath`."""
    folders: list[Path] = []
    if dag is not None and dag.fileloc:
        folders.append(Path(dag.fileloc).absolute().parent)
    if dag is not None and dag.template_searchpath:
        search = dag.template_searchpath
        folders += [Path(folder).absolute() for folder in ([search] if isinstance(search, str) else search)]
    return folders


def load_config(ray_config: Any, dag: DAG | None) -> RayConfig:
    """Return the node's RayConfig from a path, a dict or a RayConfig.

    Relative paths in a dict are sought as `ray_config` itself is, but not in the working directory.

    :raises ConfigError: see `RayConfig.load`.
    """
    if isinstance(ray_config, str | Path):
        ray_config = config_path(ray_config, dag)
    return RayConfig.load(ray_config, source="ray_config", folders=dag_folders(dag))


def is_static(ray_config: Any) -> bool:
    """Whether the config is known when the DAG file is parsed: no template, no XComArg in it."""
    if isinstance(ray_config, str):
        return "{{" not in ray_config and "{%" not in ray_config
    if isinstance(ray_config, Mapping):
        return all(is_static(value) for value in ray_config.values())
    if isinstance(ray_config, list | tuple):
        return all(is_static(value) for value in ray_config)
    return not hasattr(ray_config, "resolve") or isinstance(ray_config, Path | RayConfig)


def work_of(ray_config: Any) -> WorkKind | None:
    """Return what a config runs whose values are not known yet, by its sections; None where these are not known."""
    if not isinstance(ray_config, Mapping):
        return None
    sections: dict[str, WorkKind] = {"ray_tune": "search", "ray_train": "training", "ray_map": "map"}
    return next((work for key, work in sections.items() if ray_config.get(key) is not None), "function")


def load_parameters(path: str | None, dag: DAG | None) -> dict[str, Any]:
    """Return what a parameters file holds, found as the config file is; empty without one.

    :raises ConfigError: not found, not YAML, not a mapping by name, or with values that JSON does not have.
    """
    if path is None:
        return {}
    from airflow_provider_raynode.config import read_yaml

    found = config_path(path, dag, name="parameters_file")
    parameters = read_yaml(found, may_be_empty=True)
    if not all(isinstance(name, str) for name in parameters):
        raise ConfigError(f"{found}: parameters_file must hold a mapping of names to values")
    try:
        return dict(json.loads(json.dumps(parameters, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{found}: parameters_file may hold what JSON has, and no more: {error}") from error


def check_limits(**limits: float | None) -> None:
    """Refuse a time limit that is none, at parse time.

    :raises ConfigError: not a positive number of seconds or None.
    """
    for name, value in limits.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ConfigError(f"{name}: {value!r} is not allowed: a positive number of seconds, or None for no limit")


def check_secrets(secrets: Iterable[str]) -> None:
    """Refuse what names no secret, at parse time.

    :raises ConfigError: an entry is not of the form `conn:ID`, `var:KEY`, with or without ` as ENV_NAME`.
    """
    if isinstance(secrets, str):
        raise ConfigError(f"secrets: expected a list such as ['conn:my_db', 'var:api_key'], got {secrets!r}")
    if secrets:
        from airflow_provider_raynode.operators._secrets import parse_secrets

        parse_secrets(secrets)


def check_early(
    function: Callable[..., Any] | str,
    ray_config: Any,
    op_kwargs: Mapping[str, Any],
    dag: DAG,
    parameters_file: str | None = None,
    returns: Iterable[Return] = (),
) -> RayConfig:
    """Check at parse time what is known then, so that a mistake is an import error of the DAG file.

    :param ray_config: a config that `is_static`.
    :return: the config.
    :raises ConfigError: the config is wrong, or `returns` contradicts it.
    :raises BindingError: the function's arguments do not fit the search space and op_kwargs.
    """
    config = load_config(ray_config, dag)
    check_metric(config, returns)
    if parameters_file is None or is_static(parameters_file):
        parameters = load_parameters(parameters_file, dag)
        check_named_arguments(config, {**parameters, **op_kwargs})
        if callable(function):
            check_arguments(function, config, op_kwargs, parameters)
    return config


def check_attach_timeout(attach_timeout_s: float | None, address: str | None, default: float) -> None:
    """Refuse a time limit for what cannot happen where the node runs.

    :param address: where it runs; None where that is not known yet.
    :raises ConfigError: the job is this task's child, or Kubernetes' own, and its limit is not the default.
    """
    if address in ("local", "rayjob") and attach_timeout_s not in (None, default):
        whose = (
            "the embedded Ray is started by the execution task" if address == "local" else "a RayJob runs unattended"
        )
        raise ConfigError(f"attach_timeout_s: {attach_timeout_s:g} has no effect here: {whose}. Leave it out")


def check_on_kill(on_kill: str, address: str | None) -> None:
    """Refuse to leave a job running that ends with its task.

    :param address: where the node runs; None where that is not known yet.
    :raises ConfigError: it runs on the embedded Ray.
    """
    if on_kill == "detach" and address == "local":
        raise ConfigError(
            "on_kill: 'detach' has no effect here: the embedded Ray ends with its task. Leave it out, or name a "
            "cluster in ray_cluster.address or the connection"
        )


def check_metric(config: RayConfig, returns: Iterable[Return]) -> None:
    """Refuse the metric of the work that is declared as an output, a name that is counted, and outputs of a map.

    :raises ConfigError: see above.
    """
    from airflow_provider_raynode.config import train, tune

    if config.work == "map" and (names := [each.name for each in returns]):
        raise ConfigError(
            f"returns: {', '.join(map(repr, names))} has no effect on a map (ray_map): what the call of an item "
            "returns is its result, and all of them are the output 'results'. Leave it out"
        )
    search = config.ray_tune
    counted = tune.COUNTED if search is not None else train.COUNTED if config.ray_train is not None else ()
    metrics = ([config.metric] if config.metric else []) if search is None else search.objectives
    for declared in returns:
        name = declared.name
        if name in metrics and declared.kind not in ("auto", "metric"):
            raise ConfigError(
                f"returns: {name!r} is the metric of the {config.work} "
                f"({'ray_train' if search is None else 'ray_tune'}.metric), a number, and is declared as "
                f"{declared.kind}: write metric({name!r}), or leave it out"
            )
        if declared.name in counted:
            by = "Tune" if search is not None else "the node"
            raise ConfigError(
                f"returns: {declared.name!r} is counted by {by} itself and always among the metrics: leave it out, or "
                "give the function's own value another name"
            )


def check_arguments(
    function: Callable[..., Any],
    config: RayConfig,
    op_kwargs: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Check that every argument of `function` gets exactly one value; what has no signature is left to the call."""
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        return
    given = with_parameters(function, config.search_space, op_kwargs, parameters or {})
    replayed = config.ray_tune is not None and config.ray_tune.is_replay
    check_binding(function, config.search_space, given, replayed=replayed, searched=config.ray_tune is not None)


def check_named_arguments(config: RayConfig, given: Mapping[str, Any]) -> None:
    """Refuse a section of the config that names an argument which nobody gives.

    :param given: what op_kwargs and the parameters file give; of an XCom or a template nothing is known.
    :raises ConfigError: see above; the message has the nearest name.
    """
    over = config.ray_map.over if config.ray_map is not None else None
    if over is not None and (problem := _not_items(given.get(over, []))):
        raise ConfigError(f"ray_map.over: op_kwargs[{over!r}] is {given[over]!r:.80}, {problem}")
    for key, name in _named_arguments(config):
        if name not in given:
            near = difflib.get_close_matches(name, sorted(given), n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; there is {', '.join(sorted(given)) or 'nothing'}"
            raise ConfigError(f"{key}: op_kwargs has no {name!r}{hint}")


def _not_items(value: Any) -> str | None:
    """Return why a value is nothing that a map can run over, None where it may be."""
    if isinstance(value, str):
        what = "a text" if is_static(value) else None
    elif isinstance(value, Mapping):
        what = "a dict, whose entries have no order" if not CatalogRef.is_ref(value) else None
    elif isinstance(value, set | frozenset):
        what = "a set, whose items have no order"
    else:
        what = "no list" if value is None or isinstance(value, bool | int | float | complex | bytes) else None
    return None if what is None else f"{what}: give a list, or a CatalogRef of a list or a table"


def _named_arguments(config: RayConfig) -> Iterator[tuple[str, str]]:
    """Yield each key of the config that names an op_kwarg, and the name."""
    if config.ray_map is not None:
        yield "ray_map.over", config.ray_map.over
    for name, dataset in ({} if config.ray_train is None else config.ray_train.data).items():
        if dataset.op_kwarg is not None:
            yield f"ray_train.data.{name}", dataset.op_kwarg
