"""The arguments of a node that belong to its tasks, and what default_args may hold."""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar

from airflow.sdk import BaseOperator, TaskGroup
from airflow.sdk.exceptions import AirflowException

from airflow_provider_raynode.exceptions import ArgumentError, NodeWarning, RayNodeError
from airflow_provider_raynode.operators._place import author_line, placed

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from airflow.sdk import DAG

_Parameters = ParamSpec("_Parameters")
_Returned = TypeVar("_Returned")


class TaskArguments(TypedDict, total=False):
    """Airflow's arguments of a task, on the node; each goes to the tasks that `TASK_ARGUMENTS` names."""

    depends_on_past: bool
    email: str | Iterable[str]
    email_on_failure: bool
    email_on_retry: bool
    end_date: datetime
    execution_timeout: timedelta | None
    executor: str | None
    executor_config: dict[str, Any] | None
    ignore_first_depends_on_past: bool
    inlets: Any
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    max_retry_delay: timedelta | float | None
    on_execute_callback: Any
    on_failure_callback: Any
    on_retry_callback: Any
    on_success_callback: Any
    outlets: Any
    owner: str
    params: Mapping[str, Any]
    pool: str | None
    pool_slots: int
    priority_weight: int
    queue: str
    render_template_as_native_obj: bool | None
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    retry_policy: Any
    run_as_user: str | None
    start_date: datetime
    trigger_rule: str
    wait_for_downstream: bool
    wait_for_past_depends_before_skipping: bool
    weight_rule: Any


_TASKS = ("fan_out", "execution", "fan_in")
# Each argument: the tasks that get it, and what it means for the node.
TASK_ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "depends_on_past": (_TASKS, "wait until the node of the run before has succeeded, and submit nothing until then"),
    "email": (_TASKS, "addresses for Airflow's mails"),
    "email_on_failure": (_TASKS, "mail when one of the tasks fails"),
    "email_on_retry": (_TASKS, "mail when one of the tasks is tried again"),
    "end_date": (_TASKS, "no run after it"),
    "execution_timeout": (
        ("execution",),
        "longest time for the work, with the wait for the cluster; in `default_args` it is that of each task",
    ),
    "executor": (_TASKS, "Airflow's executor of the tasks"),
    "executor_config": (_TASKS, "settings for the executor"),
    "ignore_first_depends_on_past": (_TASKS, "with `depends_on_past`: the first run waits for nothing"),
    "inlets": (("fan_out",), "assets that the node reads"),
    "map_index_template": (_TASKS, "name of a map index in Airflow's UI"),
    "max_active_tis_per_dag": (_TASKS, "how many of each task run at a time, over all runs"),
    "max_active_tis_per_dagrun": (_TASKS, "how many of each task run at a time in one run, where the node is mapped"),
    "max_retry_delay": (_TASKS, "longest wait between two tries"),
    "on_execute_callback": (("fan_out",), "called when the node begins"),
    "on_failure_callback": (_TASKS, "called when a task of the node fails, which fails the node"),
    "on_retry_callback": (_TASKS, "called when a task of the node is tried again"),
    "on_success_callback": (("fan_in",), "called when the node has succeeded"),
    "outlets": (("fan_in",), "assets that the node updates when it has succeeded"),
    "owner": (_TASKS, "owner in Airflow's UI"),
    "params": (_TASKS, "further params of the tasks; the function sees them in `context().params`"),
    "pool": (_TASKS, "Airflow's pool"),
    "pool_slots": (_TASKS, "slots of the pool that each task takes"),
    "priority_weight": (_TASKS, "priority among tasks that wait for a slot"),
    "queue": (_TASKS, "queue of the workers"),
    "render_template_as_native_obj": (("fan_out",), "templates in the node's arguments render to Python values"),
    "retries": (_TASKS, "further tries of each task; a new try of the execution task goes on with its work"),
    "retry_delay": (_TASKS, "wait between two tries"),
    "retry_exponential_backoff": (_TASKS, "factor by which the wait grows"),
    "retry_policy": (_TASKS, "Airflow's policy that decides on another try"),
    "run_as_user": (_TASKS, "user of the worker's process"),
    "start_date": (_TASKS, "no run before it"),
    "trigger_rule": (
        ("fan_out",),
        "when the node begins, from the states of the tasks before it; within the node it is always all_success",
    ),
    "wait_for_downstream": (("fan_out",), "with `depends_on_past`, which it implies for `fan_out`"),
    "wait_for_past_depends_before_skipping": (_TASKS, "with `depends_on_past`: skip only when the run before is done"),
    "weight_rule": (_TASKS, "how the priority counts the tasks downstream"),
}
# What a task has under another name than a node.
_ELSEWHERE = {
    "task_id": "the node's id is its first argument, group_id",
    "task_display_name": "a group has group_display_name",
    "task_group": "a group stands in parent_group",
    "doc": "a group has doc_md",
    "name": "the node's id is its first argument, group_id",
    "function": "the function is python_callable",
    "config": "the config is ray_config",
    "conn_id": "the connection is ray_conn_id",
    "do_xcom_push": "a node's tasks hand on what they know by XCom",
    "multiple_outputs": "node.outputs and node.best_config take the output apart",
    "timeout": "the job's is run_timeout_s, Airflow's execution_timeout",
}


class _AsDefaultArgs:
    """The default of a task argument in the signature."""

    def __repr__(self) -> str:
        return "<default_args>"


AS_DEFAULT_ARGS: Any = _AsDefaultArgs()


def task_arguments(given: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of each of the node's tasks.

    What the node is given wins over `default_args`. What must hold within a node does so whatever they say: its tasks
    wait for each other's success, and hand on by XCom.

    :param given: the task arguments of the node.
    :param inherited: the default_args that apply: the DAG's, the groups' and the node's own.
    """
    found: dict[str, dict[str, Any]] = {task: {"do_xcom_push": True} for task in _TASKS}
    for task in ("execution", "fan_in"):
        found[task]["trigger_rule"] = "all_success"
    for name, value in given.items():
        for task in TASK_ARGUMENTS[name][0]:
            found[task][name] = value
    if {**inherited, **given}.get("depends_on_past"):
        # Else the job of this run would be submitted as soon as the one before was.
        found["fan_out"].setdefault("wait_for_downstream", True)
    return found


def completed(function: Callable[_Parameters, _Returned]) -> Callable[_Parameters, _Returned]:
    """Make a node's constructor take its defaults from default_args, and say what does not fit its signature.

    Airflow does so for operators; a node is a group of them.

    :raises ArgumentError: an argument is missing or unknown; the message has the nearest name.
    """
    signature = inspect.signature(function)
    own = [each.name for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    required = [name for name in own if signature.parameters[name].default is inspect.Parameter.empty]
    required = [name for name in required if name != "self"]
    # Airflow's default_args are the tasks': what a task and a group both have (doc_md) is not the group's there.
    of_group = {*inspect.signature(TaskGroup).parameters, "default_args"}
    by_default = [name for name in own if name not in of_group and name != "self"]
    front = 2 if own[0] == "self" else 1

    def call(*args: Any, **kwargs: Any) -> Any:
        named = dict(zip(own[:front], args, strict=False))
        node_id, dag = str(kwargs.get("group_id", named.get("group_id", "?"))), _dag_of(kwargs)
        with placed("node", node_id, dag.dag_id if dag else None):
            if len(args) > front:
                raise ArgumentError(
                    f"{args[front]!r:.60} has no name: a node has one argument without a name, its group_id"
                )
            if dag is None:
                raise ArgumentError("stands outside a DAG: call it within `with DAG(…):` or a function with @dag")
            defaults = _defaults(dag, kwargs)
            kwargs |= {name: defaults[name] for name in by_default if name in defaults and name not in kwargs}
            _check_names(kwargs, [name for name in required if name not in named], [*own, *TASK_ARGUMENTS])
            if own[0] == "self":
                _warn_of_unknown(kwargs.get("default_args"), own, f"DAG {dag.dag_id!r}, node {node_id!r}")
            try:
                return function(*args, **kwargs)
            except (RayNodeError, KeyboardInterrupt):
                raise
            except (AirflowException, TypeError, ValueError) as error:
                # Airflow's own words on an argument, with the place that they lack.
                raise ArgumentError(f"{error}") from error

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except RayNodeError as error:
            # The message says where; what lies below the author's line is ours.
            raise error.with_traceback(None) from error.__cause__

    told.__signature__ = _flattened(signature)  # type: ignore[attr-defined]
    return told


def _dag_of(kwargs: Mapping[str, Any]) -> DAG | None:
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    group = kwargs.get("parent_group")
    return kwargs.get("dag") or (group.dag if group is not None else None) or DagContext.get_current()


def inherited_defaults(dag: DAG, parent_group: TaskGroup | None, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the default_args that apply to a node: the DAG's, those of the groups around it, its own."""
    from airflow.sdk.definitions._internal.contextmanager import TaskGroupContext

    group = parent_group if parent_group is not None else TaskGroupContext.get_current(dag)
    return {**(dag.default_args or {}), **((group.default_args if group is not None else None) or {}), **(own or {})}


def _defaults(dag: DAG, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    own = kwargs.get("default_args")
    if own is not None and not isinstance(own, Mapping):
        raise ArgumentError(f"default_args: expected a dict of arguments by name, got {own!r:.80}")
    return inherited_defaults(dag, kwargs.get("parent_group"), own)


def _check_names(given: Mapping[str, Any], required: Collection[str], known: Collection[str]) -> None:
    problems = []
    for name in given:
        if name not in known:
            hint = _ELSEWHERE.get(name) or _nearest(name, known)
            problems.append(f"{name} is no argument of a node{f': {hint}' if name in _ELSEWHERE else hint}")
    problems += [f"{name} is missing" for name in required if name not in given]
    if problems:
        raise ArgumentError("\n".join(problems))


def _nearest(name: str, known: Collection[str]) -> str:
    names = sorted(each for each in known if each != "self")
    near = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {near[0]!r}?" if near else f"; it has: {', '.join(names)}"


def _warn_of_unknown(default_args: Mapping[str, Any] | None, own: Collection[str], whose: str) -> None:
    """Warn of what Airflow ignores without a word: a key of the node's default_args that no task has."""
    if not default_args:
        return
    known = {*_of_every_task(), *own, *TASK_ARGUMENTS} - {"self", "kwargs"}
    for name in default_args:
        if name not in known:
            hint = _nearest(str(name), known) if _is_near(str(name), known) else ""
            file, line = author_line() or ("", 0)
            warnings.warn_explicit(
                f"{whose}: default_args: no task of a node has {name!r}: it has no effect{hint}",
                NodeWarning,
                file,
                line,
            )


@functools.cache
def _of_every_task() -> frozenset[str]:
    return frozenset(inspect.signature(BaseOperator.__init__).parameters)


def _is_near(name: str, known: Collection[str]) -> bool:
    return bool(difflib.get_close_matches(name, known, n=1))


def _flattened(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with every task argument by name in the place of the rest."""
    kinds = TaskArguments.__annotations__
    parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=AS_DEFAULT_ARGS, annotation=_text(kinds[name]))
        for name in TASK_ARGUMENTS
    ]
    return signature.replace(parameters=parameters)


def _text(annotation: Any) -> str:
    """Return an annotation as it is written; a TypedDict keeps it as a forward reference."""
    return str(getattr(annotation, "__forward_arg__", annotation))
