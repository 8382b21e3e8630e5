"""A node's output as an argument of other tasks: indexing at any depth, the node itself, and mapping over a part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
from airflow.sdk import BaseOperator
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.xcom_arg import ConcatXComArg, MapXComArg, PlainXComArg, XComArg, ZipXComArg

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._place import placed

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_raynode.config.ray_config import WorkKind
    from airflow_provider_raynode.returns import Return

Path = tuple[str | int, ...]
# What fan-in pushes by the kind of the node's work, in this order.
OUTPUT_KEYS: dict[WorkKind, tuple[str, ...]] = {
    "search": (
        "best_trial",
        "best_config",
        "best_metrics",
        "outputs",
        "front",
        "trials",
        "steps",
        "completion",
        "run_record",
    ),
    "training": ("metrics", "best_metrics", "outputs", "steps", "training", "run_record"),
    "function": ("value", "metrics", "outputs", "run_record"),
    "map": ("results", "failed", "items", "outputs", "run_record"),
}
ALL_OUTPUT_KEYS = tuple(dict.fromkeys(key for keys in OUTPUT_KEYS.values() for key in keys))
# The parts of the output that say how the work ended.
END_KEYS: dict[str, tuple[str, ...]] = {
    "completion": ("asked", "finished", "early_stopped", "failed", "cut_off", "ending"),
    "training": ("world_size", "reports", "best_step", "ending", "restarts", "resumed_from"),
    "items": ("items", "succeeded", "failed", "restored", "ending"),
}
# The outputs that are there without being declared.
OWN_OUTPUTS: dict[WorkKind, tuple[str, ...]] = {
    "search": ("checkpoint",),
    "training": ("checkpoint",),
    "map": ("results", "errors"),
}


@dataclass(frozen=True)
class KnownOutput:
    """What is known of a node's output when the DAG file is parsed.

    :param node_id: the node's id, for messages.
    :param returns: the declared outputs; empty where the author left them to what the function returns.
    :param hyperparameters: names in `best_config`, None where the config is not known yet.
    :param work: what the node runs, None where the config is not known yet.
    """

    node_id: str
    returns: tuple[Return, ...] = ()
    hyperparameters: tuple[str, ...] | None = None
    work: WorkKind | None = None

    def check(self, path: Path) -> None:
        """Refuse a path that leads nowhere, as far as that is known.

        :raises ConfigError: a name is none of those that there are; the message has the nearest.
        """
        if not path:
            return
        first, *rest = path
        keys = ALL_OUTPUT_KEYS if self.work is None else OUTPUT_KEYS[self.work]
        if first not in keys:
            others = [kind for kind, its in OUTPUT_KEYS.items() if first in its] if self.work is not None else []
            kind = f" (the node runs a {self.work}; it is of a {' or a '.join(others)})" if others else ""
            raise ConfigError(f"output{shown(path[:1])} {_none_of(first, keys)}{kind}{self._place_of(first)}")
        if rest and first == "best_trial":
            raise ConfigError(f"output{shown(path[:2])}: the best trial is its id, a text: it has no {rest[0]!r}")
        names = self.hyperparameters
        if rest and first == "best_config" and names is not None and rest[0] not in names:
            raise ConfigError(f"output{shown(path[:2])} {_none_of(rest[0], names)}")
        if rest and first == "failed" and not isinstance(rest[0], int):
            raise ConfigError(f"output{shown(path[:2])}: failed is the list of the failed items' indexes")
        if rest and first in END_KEYS and rest[0] not in END_KEYS[str(first)]:
            raise ConfigError(f"output{shown(path[:2])} {_none_of(rest[0], END_KEYS[str(first)])}")
        if rest and first == "outputs":
            self._check_output(path)

    def _check_output(self, path: Path) -> None:
        name = path[1]
        kinds = {declared.name: declared.kind for declared in self.returns}
        if kinds.get(str(name)) == "metric":
            raise ConfigError(
                f"output{shown(path[:2])}: {name!r} is declared as metric({name!r}): take "
                f"output{shown((self._metrics, name))}"
            )
        known = [each for each, kind in kinds.items() if kind != "metric"]
        own = [output for kind, outputs in OWN_OUTPUTS.items() if self.work in (None, kind) for output in outputs]
        own = list(dict.fromkeys(own))
        if not isinstance(name, str) or (kinds and name not in known and name not in own):
            raise ConfigError(
                f"output{shown(path[:2])} {_none_of(name, [*known, *own])}; an output that others take is "
                "declared in returns"
            )

    @property
    def _metrics(self) -> str:
        """Where metrics are in the output."""
        return "best_metrics" if self.work in (None, "search") else "metrics"

    def _place_of(self, name: str | int) -> str:
        """Return where a name is that was looked for one level too high."""
        if any(declared.name == name and declared.kind != "metric" for declared in self.returns):
            return f"; the output {name!r} is output{shown(('outputs', name))}"
        if name in (self.hyperparameters or ()):
            return f"; the hyperparameter {name!r} is output{shown(('best_config', name))}"
        return ""


class NodeArgument(ResolveMixin):
    """What a RayNode is where a task takes it as an argument: its output."""

    fan_in: Any

    @property
    def output(self) -> NodeOutput:
        """What fan-in pushes; a task that takes it runs after the node."""
        return NodeOutput(operator=self.fan_in)

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Yield fan-in: a task that takes the node runs after it."""
        return self.output.iter_references()

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the output when the task that takes the node runs."""
        return self.output.resolve(context)


@attrs.define(repr=False)
class NodeOutput(PlainXComArg):
    """What fan-in pushes, or a part of it: `node.output["outputs"]["model"]`.

    Unlike Airflow's own XComArg, an index is no key of an XCom but a step into the value. The value is read when the
    task that takes it runs; fan-in fails where a part that a task takes is not there. Outside the mapped task group in
    which the node stands it is a list, one entry for each map index.
    """

    path: Path = ()

    def __getitem__(self, item: str | int) -> NodeOutput:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise TypeError(
                f"{self!r}[{item!r:.60}]: an index is a name or a number, not a {type(item).__name__}. {_LATER}"
            )
        path = (*self.path, item)
        ask(self.operator, path)
        return NodeOutput(operator=self.operator, key=self.key, path=path)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or name in ("operator", "key", "path"):
            raise AttributeError(name)
        part = name if name in ALL_OUTPUT_KEYS else "name"
        raise AttributeError(f"{self!r} has no attribute {name!r}; a part is taken by its name: [{part!r}]. {_LATER}")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be iterated over in the DAG file. {_LATER}")

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"{self!r} cannot be searched in the DAG file. {_LATER}")

    def __repr__(self) -> str:
        return f"XComArg({self.operator!r}){shown(self.path)}"

    def __str__(self) -> str:
        """Return a template that renders to the value; as with every XComArg, a text makes no dependency."""
        return f"{{{{ dag.get_task({self.operator.task_id!a}).rendered(ti, {list(self.path)!a}) }}}}"

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value when the task that takes it runs; None where the node pushed nothing."""
        whole = super().resolve(context)
        group = self.operator.get_closest_mapped_task_group()
        if group is not None and group.group_id not in _mapped_groups(context):
            # Airflow gives the one value of a group with one map index, None for an empty one.
            whole = [] if whole is None else whole if isinstance(whole, list) else [whole]
        if isinstance(whole, list):
            return [None if each is None else at(each, self.path) for each in whole]
        return None if whole is None else at(whole, self.path)


_LATER = "Its value is known when a task runs: give it to a task as an argument"


def at(value: Any, path: Path) -> Any:
    """Return the part of a value that a path leads to.

    :raises ConfigError: it leads nowhere; the message has what there is.
    """
    for depth, step in enumerate(path):
        fits = isinstance(value, Mapping) if isinstance(step, str) else _is_list(value)
        try:
            if not fits:
                raise LookupError
            value = value[step]
        except LookupError:
            raise ConfigError(f"output{shown(path[: depth + 1])} {_missing(value, step)}") from None
    return value


def ask(operator: Any, path: Path) -> None:
    """Note at a fan-in that a task takes a part of its output.

    :raises ConfigError: see `KnownOutput.check`.
    """
    known = getattr(operator, "known", None)
    if isinstance(known, KnownOutput):
        with placed("node", known.node_id, operator.dag_id):
            known.check(path)
    asked = getattr(operator, "asked", None)
    if isinstance(asked, dict):
        asked[path] = None


def shown(path: Collection[str | int]) -> str:
    """Return a path as it is written in Python."""
    return "".join(f"[{step!r}]" for step in path)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _missing(value: Any, step: str | int) -> str:
    if isinstance(value, Mapping):
        return _none_of(step, list(value))
    if _is_list(value):
        return f"is not there: there is a list of {len(value)}"
    return f"is not there: there is {value!r:.80}, which has no parts"


def _none_of(name: Any, names: Collection[Any]) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), [str(each) for each in names], n=1)
    listed = ", ".join(repr(each) for each in list(names)[:30]) + (", …" if len(names) > 30 else "")
    return f"is not there{f' (did you mean {near[0]!r}?)' if near else ''}: there is {listed or 'nothing'}"


def _mapped_groups(context: Mapping[str, Any]) -> list[str | None]:
    """Return the ids of the mapped task groups in which the task that runs stands."""
    return [group.group_id for group in context["ti"].task.iter_mapped_task_groups()]


# -- the node itself as an argument ------------------------------------------------------------------------------------


class RayOutputOperator(BaseOperator):
    """Push a part of a node's output as a value of its own, for tasks that are mapped over it.

    Airflow's scheduler counts the entries of what a task returned, so that `.expand(x=node.best_config["layers"])`
    needs a task that returns them. It is made where the DAG asks for it.

    :param value: the part. (templated)
    """

    template_fields: Sequence[str] = ("value",)
    ui_color = "#d8f5d0"

    def __init__(self, *, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value

    def execute(self, context: Context) -> Any:
        """Return the value.

        :raises AirflowFailException: it is neither a list nor a dict.
        """
        from airflow.sdk.exceptions import AirflowFailException

        if not isinstance(self.value, list | dict):
            raise AirflowFailException(
                f"{self.task_id}: a task is mapped over this part of a node's output, which is neither a list nor a "
                f"dict: {self.value!r:.200}"
            )
        return self.value


def settle_arguments(consumer: Any, fan_in: Any) -> None:
    """Put outputs in the place of nodes in a consumer's arguments, and tasks in the place of parts to map over."""
    expand_input = getattr(consumer, "_get_specified_expand_input", None)
    if expand_input is not None:
        _settle_expand_input(consumer, expand_input(), fan_in)
        for name, value in consumer.partial_kwargs.items():
            if name in consumer.template_fields and (changed := _without_nodes(value)) is not value:
                consumer.partial_kwargs[name] = changed
    elif isinstance(consumer, BaseOperator):
        for name in consumer.template_fields:
            value = getattr(consumer, name, None)
            if (changed := _without_nodes(value)) is not value:
                setattr(consumer, name, changed)
    group = consumer.get_closest_mapped_task_group() if hasattr(consumer, "get_closest_mapped_task_group") else None
    if group is not None:
        _settle_expand_input(group, group._expand_input, fan_in)


def _without_nodes(value: Any) -> Any:
    """Return the value with each node's output in the node's place; the same object where there is none."""
    if isinstance(value, NodeArgument):
        return value.output
    if type(value) is dict:
        items = {key: _without_nodes(each) for key, each in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        parts = [_without_nodes(each) for each in value]
        return type(value)(parts) if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    return value


def _settle_expand_input(mapped: Any, source: Any, fan_in: Any) -> None:
    if isinstance(source.value, dict):
        for name, value in source.value.items():
            changed = _mappable(value, mapped, fan_in) if isinstance(value, XComArg) else _without_nodes(value)
            if changed is not value:
                source.value[name] = changed
    elif isinstance(source.value, XComArg):
        source.value = _mappable(source.value, mapped, fan_in)
    else:
        source.value = [_rendered(each) for each in _without_nodes(source.value)]


class _Rendered(ResolveMixin):
    """An output in a literal list for `expand_kwargs`: all but an XComArg is rendered there."""

    def __init__(self, output: NodeOutput) -> None:
        self._output = output

    def __repr__(self) -> str:
        return repr(self._output)

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        return self._output.iter_references()

    def resolve(self, context: Mapping[str, Any]) -> Any:
        return self._output.resolve(context)


def _rendered(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return {name: _Rendered(value) if isinstance(value, NodeOutput) else value for name, value in item.items()}


def _mappable(value: XComArg, mapped: Any, fan_in: Any) -> XComArg:
    """Return what a task or group can be mapped over: a part of the output is the value of a task of its own."""
    if isinstance(value, NodeOutput):
        source: Any = value.operator
        in_group = source.get_closest_mapped_task_group() is not None
        if source is not fan_in or not (value.path or in_group):
            return value
        task = source.task_for_part(value)
        mapped.set_upstream(task)
        return PlainXComArg(operator=task)
    if isinstance(value, MapXComArg):
        inner = _mappable(value.arg, mapped, fan_in)
        return value if inner is value.arg else MapXComArg(inner, value.callables)
    if isinstance(value, ZipXComArg | ConcatXComArg):
        parts = [_mappable(each, mapped, fan_in) for each in value.args]
        if all(new is old for new, old in zip(parts, value.args, strict=True)):
            return value
        return attrs.evolve(value, args=parts)
    return value
