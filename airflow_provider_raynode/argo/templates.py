"""The pod templates of a workflow: one for each kind of pod, shared by the tasks that need the same.

A template's name says what it is for and comes from nothing but that: its role, the settings of a group or a task, the
pool, retries, a timeout. So a new task renames none. How often and how long is in parameters, which each task gives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo import ray_job
from airflow_provider_raynode.argo.expansion import INDEXES, index_outputs
from airflow_provider_raynode.argo.names import (
    PLAN_SUFFIX,
    argo_names,
    label_value,
    own_name,
    shared_part,
    template_names,
    unique_names,
)
from airflow_provider_raynode.argo.needs import needs_of
from airflow_provider_raynode.argo.node_tasks import is_execution, is_fan_out
from airflow_provider_raynode.argo.outcome import NO_RETRY_CODES
from airflow_provider_raynode.argo.pod_override import as_patch, pod_override
from airflow_provider_raynode.argo.run_source import run_source
from airflow_provider_raynode.argo.shape import groups_of, operator_class
from airflow_provider_raynode.argo.slots import waits_elsewhere
from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.settings import ArgoSettings, PodSettings

OUTPUTS = "/tmp/raynode-outputs"
MAX_ACTIVE_RUNS = "max-active-runs"
TASK_LABEL, INDEX_LABEL = "raynode/task-id", "raynode/map-index"
# Seconds over a task's execution_timeout after which Argo ends its pod: room for the start and for on_kill.
_GRACE_S = 300
# A pod that only counts has nothing to fail by: it is started again where it was lost.
_RETRY_LOST = {"limit": "3", "retryPolicy": "OnError"}
ROLES = ("task", "branch", "fan-out", "tune", "train", "run", "fan-in", "plan")
_SHOWN = {
    "task": "A task.",
    "branch": "A task that may skip others: those that its output `skip` lists.",
    "fan-out": "A Ray node: resolves its config, stages its inputs, submits its job.",
    "tune": "A Ray node: waits for its search.",
    "train": "A Ray node: waits for its training.",
    "run": "A Ray node: waits for its function, or for a map of it.",
    "fan-in": "A Ray node: proves the result, hands it on.",
    "plan": "Runs nothing: counts the map indexes of what is mapped, or decides what becomes of a task.",
}
_ROLES = {
    "RayFanOutOperator": "fan-out",
    "RayTuneOperator": "tune",
    "RayTrainOperator": "train",
    "RayTaskOperator": "run",
    # A node that is one task.
    "RayOneTaskOperator": "task",
    # Of a node whose config is known when it runs.
    "RayExecutionOperator": "tune",
    "RayFanInOperator": "fan-in",
}
# What the settings say of where and as whom a pod runs, which holds for Argo's own container as well.
_PLACED = (
    *("metadata", "serviceAccountName", "schedulerName", "priorityClassName"),
    *("nodeSelector", "tolerations", "affinity", "securityContext"),
)
_RETRIES, _DELAY, _FACTOR, _CAP, _TIMEOUT = "retries", "retry-delay", "retry-factor", "retry-cap", "timeout"
# Airflow's own defaults, which a task need not repeat.
_RETRY_INPUTS = {_RETRIES: None, _DELAY: "300s", _FACTOR: "1", _CAP: ""}


@dataclass(frozen=True)
class Use:
    """How a task uses a template: by its name, with arguments beside those that every pod gets."""

    template: str
    arguments: dict[str, str] = field(default_factory=dict)


@dataclass
class Templates:
    """Collects the pod templates while the nodes are made.

    :param command: arguments of every pod of a task: the DAG, the run.
    """

    dag: DAG
    settings: ArgoSettings
    command: list[str]
    pools_config_map: str
    ray_jobs: bool = False
    _found: dict[str, _Found] = field(default_factory=dict)

    def of_task(self, task: Any, *, plan: bool = False) -> Use:
        """Return the template for a task's pod, or for the pod that plans its expansion."""
        own = _Parts()
        if plan:
            body = self._plan_body(task, own)
            return self._keep(task, "plan", body, own, f"{self._name(task)}{PLAN_SUFFIX}")
        body = self._task_body(task, own)
        return self._keep(task, _role(task), body, own, self._name(task))

    def of_plan(self, group: Any) -> Use:
        """Return the template for the pod that plans a mapped task group."""
        own = _Parts()
        body = self._plan_body(group, own)
        return self._keep(group, "plan", body, own, f"{self._name(group)}{PLAN_SUFFIX}")

    def of_ray_job(self, task: Any) -> tuple[dict[str, Any], int | None]:
        """Return the fields of the template that makes the RayJob of an execution task and waits for it, and its time.

        The slots and the tries of the task are the RayJob's. The pod that waits runs where all pods do: what the
        settings give a task is for its own work.

        :return: the fields; the longest time in seconds that the settings say instead of the DAG.
        """
        fields = self.settings.pod_for(task.task_id, groups_of(task)).template_fields()
        timeout_s, asked = fields.get("activeDeadlineSeconds"), fields.get("retryStrategy", {})
        retry = _retry(task, asked)
        if retry and "expression" not in asked:
            # Exit codes are those of the tasks' pods.
            retry = {key: value for key, value in retry.items() if key != "expression"}
        limits = self._limits(task, _Parts())
        anywhere = self.settings.pod_for("", ()).template_fields()
        placed = {key: value for key, value in anywhere.items() if key in _PLACED}
        return {**({"retryStrategy": retry} if retry else {}), **limits, **placed}, timeout_s

    def found(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Return each template's body and what it is for, by name: those that are shared first."""
        shared = {name: found for name, found in self._found.items() if not found.is_own}
        ordered = sorted(shared, key=lambda name: (ROLES.index(shared[name].role), name))
        names = [*ordered, *(name for name in self._found if name not in shared)]
        return {name: (self._found[name].body, self._found[name].shown) for name in names}

    def default_script(self) -> dict[str, Any]:
        """Return the script of a pod of which nothing of its own is said, but for its source.

        Argo writes an empty source into each template that has none, before it looks at the defaults.
        """
        script = self._script(self.settings.pod_for("", ()))
        return {key: value for key, value in script.items() if key != "source"}

    def _name(self, node: Any) -> str:
        return template_names(self.dag)[argo_names(self.dag)[_id_of(node)]]

    def _keep(self, node: Any, role: str, body: dict[str, Any], parts: _Parts, node_name: str) -> Use:
        node_id = _id_of(node)
        name, shown = parts.name(role), _SHOWN[role]
        if parts.is_own or (name in self._found and self._found[name].body != body):
            # The second is not seen: what is shared comes from the parts of the name alone.
            name, shown, parts.is_own = own_name(node_id, node_name, ROLES), f"The pod of {node_id}.", True
        self._found.setdefault(name, _Found(role, body, shown, parts.is_own))
        return Use(name, parts.arguments)

    def _task_body(self, task: Any, parts: _Parts) -> dict[str, Any]:
        pod = self._pod(task, parts)
        on_ray_job = self.ray_jobs and (is_fan_out(task) or is_execution(task))
        options = ["--ray=rayjob"] if on_ray_job else []
        fields = pod.template_fields()
        asked = fields.pop("retryStrategy", {})
        # A RayJob is tried again by its own template; the execution task only reads what it left.
        retry = {} if on_ray_job and is_execution(task) else _retry(task, asked)
        if retry:
            retry = _with_inputs(retry, asked, parts)
            options.append("--retries={{retries}}")
            if asked.get("limit") is not None:
                options.append(f"--max-retries={asked['limit']}")
        body = {"retryStrategy": retry} if retry else {}
        if "activeDeadlineSeconds" not in fields:
            # What the settings say of time limits wins over the DAG.
            body |= _deadline(task, parts)
        body |= {**self._limits(task, parts), **fields}
        _patch(body, task, parts)
        _label(body, task.task_id, parts)
        body["script"] = self._script(pod, options)
        lists = index_outputs(self.dag, task.task_id)
        parts.is_own = parts.is_own or bool(set(lists) - {INDEXES})
        role = _role(task)
        usual = ["skip"] * (role == "branch") + [INDEXES] * (role in ("task", "branch"))
        body["outputs"] = _outputs(usual, lists, ray_job.OUTPUTS if on_ray_job and is_fan_out(task) else ())
        if INDEXES in lists and INDEXES not in usual:
            parts.is_own = True
        return body

    def _plan_body(self, node: Any, parts: _Parts) -> dict[str, Any]:
        pod = self._pod(node, parts, runs=False)
        body = {
            "retryStrategy": dict(_RETRY_LOST),
            **{key: value for key, value in pod.template_fields().items() if key != "retryStrategy"},
        }
        _label(body, _id_of(node), parts)
        return {**body, "script": self._script(pod, ["--plan"]), "outputs": _outputs([INDEXES], ())}

    def _pod(self, node: Any, parts: _Parts, *, runs: bool = True) -> PodSettings:
        """Return what the settings say of a node's pods, and note whose settings they are."""
        groups, node_id = groups_of(node), _id_of(node)
        said = [each for each in groups if each in self.settings.groups]
        parts.group = said[-1] if said else ""
        parts.is_own = node_id in self.settings.tasks
        needs = sorted(needs_of(self.dag, node)) if runs else []
        pod = self.settings.pod_for(node_id, groups, needs=needs, runs=runs)
        usual = self.settings.pod_for("", ()).plain_env()
        parts.needs = [each for each in needs if each in pod.plain_env() and each not in usual]
        return pod

    def _script(self, pod: PodSettings, options: Iterable[str] = ()) -> dict[str, Any]:
        container = pod.container_fields()
        program = container.pop("command", None) or ["raynode"]
        script = {"command": [*program, "argo", "run-task", *options], "args": self.command, **container}
        return {**script, "source": run_source(self.dag)}

    @cached_property
    def semaphore_keys(self) -> dict[str, str]:
        """The keys of the semaphores of pools and of tasks, by what they are called in Airflow: one each."""
        tasks = [semaphore_of(task) for task in self.dag.tasks if task.max_active_tis_per_dag is not None]
        return unique_names(dict.fromkeys([*sorted(self.settings.pools), *tasks]), taken=(MAX_ACTIVE_RUNS,))

    def _limits(self, task: Any, parts: _Parts) -> dict[str, Any]:
        names = []
        if task.pool in self.settings.pools:
            names.append(task.pool)
            parts.pool = task.pool
        if task.max_active_tis_per_dag is not None:
            names.append(semaphore_of(task))
            parts.is_own = True
        keys = [self.semaphore_keys[name] for name in names]
        semaphores = [{"configMapKeyRef": {"name": self.pools_config_map, "key": key}} for key in keys]
        return {"synchronization": {"semaphores": semaphores}} if keys else {}


@dataclass
class _Found:
    role: str
    body: dict[str, Any]
    shown: str
    is_own: bool


@dataclass
class _Parts:
    """What a template's name is made of, and what a task gives to it."""

    is_own: bool = False
    """Whether something is said of this task alone."""
    group: str = ""
    pool: str = ""
    needs: list[str] = field(default_factory=list)
    """Variables from Secrets that not every pod has."""
    arguments: dict[str, str] = field(default_factory=dict)
    retries: bool = False
    timeout: bool = False

    def name(self, role: str) -> str:
        """Return the name of a template that others may share."""
        with_ = [word for word, has in (("retries", self.retries), ("timeout", self.timeout)) if has]
        found = role
        needs = "_and_".join(each.removeprefix("AIRFLOW_").lower() for each in self.needs)
        found += f"-for-{shared_part(needs)}" if needs else ""
        found += f"-of-{shared_part(self.group)}" if self.group else ""
        found += f"-in-{shared_part(self.pool)}" if self.pool else ""
        return found + (f"-with-{'-and-'.join(with_)}" if with_ else "")


def semaphore_of(task: Any) -> str:
    """Return the key of the semaphore that holds a task's max_active_tis_per_dag."""
    return f"max-active-{task.task_id}"


def _retry(task: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the retryStrategy: the DAG's, with what the settings say laid over it key by key; empty for no retries.

    Airflow's exponential backoff adds a jitter to retry_delay * factor ** (try - 1); Argo's has none.
    """
    if not task.retries and not asked:
        return {}
    backoff: dict[str, str] = {}
    if task.retries and (delay := _seconds(task.retry_delay)):
        backoff["duration"] = f"{delay}s"
        if factor := round(float(task.retry_exponential_backoff or 0)):
            # True counts as Airflow's own factor of 2.
            backoff["factor"] = str(max(factor, 2))
            if task.max_retry_delay:
                backoff["cap"] = f"{_seconds(task.max_retry_delay)}s"
    backoff |= asked.get("backoff", {})
    strategy = {
        "limit": str(task.retries or 0),
        "retryPolicy": "Always",
        "expression": f"!(lastRetry.exitCode in {list(map(str, NO_RETRY_CODES))})",
        **{key: value for key, value in asked.items() if key != "backoff"},
        **({"backoff": backoff} if backoff else {}),
    }
    return {**strategy, "limit": str(strategy["limit"])}


def _with_inputs(strategy: dict[str, Any], asked: dict[str, Any], parts: _Parts) -> dict[str, Any]:
    """Return a retryStrategy with inputs in the place of what differs between tasks; what the settings say stays."""
    parts.retries = True
    backoff, said = strategy.get("backoff", {}), asked.get("backoff", {})
    of = {"duration": _DELAY, "factor": _FACTOR, "cap": _CAP}
    none = {_DELAY: "0s", _FACTOR: "1", _CAP: ""}
    given = {name: str(backoff.get(key, none[name])) for key, name in of.items() if key not in said}
    given[_RETRIES] = strategy["limit"]
    parts.arguments |= {name: given[name] for name, usual in _RETRY_INPUTS.items() if given.get(name, usual) != usual}
    inputs = {key: _input(name) for key, name in of.items()}
    return {**strategy, "limit": _input(_RETRIES), "backoff": {**inputs, **said}}


def _deadline(task: Any, parts: _Parts) -> dict[str, Any]:
    if task.execution_timeout is None or waits_elsewhere(task):
        return {}
    parts.timeout = True
    parts.arguments[_TIMEOUT] = str(_seconds(task.execution_timeout) + _GRACE_S)
    return {"activeDeadlineSeconds": _input(_TIMEOUT)}


def inputs_of(body: dict[str, Any]) -> list[dict[str, str]]:
    """Return the input parameters of a pod's template: those of every pod, and those that its body names."""
    wanted: dict[str, str | None] = {"step": None, "index": "", "decide": "controller"}
    text = json.dumps({key: value for key, value in body.items() if key != "script"})
    wanted |= {name: value for name, value in _RETRY_INPUTS.items() if _input(name) in text}
    wanted |= {_TIMEOUT: None} if _input(_TIMEOUT) in text else {}
    return [{"name": name, **({} if value is None else {"value": value})} for name, value in wanted.items()]


def _input(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _id_of(node: Any) -> str:
    return str(node.task_id if hasattr(node, "task_id") else node.group_id)


def _label(body: dict[str, Any], node_id: str, parts: _Parts) -> None:
    """Give the pods of an id that is no value of a label one that is near to it."""
    if label_value(node_id) != node_id:
        parts.is_own = True
        metadata = body.setdefault("metadata", {})
        metadata["labels"] = {**metadata.get("labels", {}), TASK_LABEL: label_value(node_id)}


def _role(task: Any) -> str:
    names = [each.__name__ for each in operator_class(task).__mro__]
    other = "branch" if task.inherits_from_skipmixin else "task"
    return next((_ROLES[name] for name in names if name in _ROLES), other)


def _outputs(usual: Iterable[str], lists: Iterable[str], texts: Iterable[str] = ()) -> dict[str, Any]:
    defaults = {"skip": ",", INDEXES: "[]"}
    found = {"state": "skipped", **{name: defaults[name] for name in usual}}
    found |= {**dict.fromkeys(lists, "[]"), **dict.fromkeys(texts, "none")}
    parameters = [
        {"name": name, "valueFrom": {"path": f"{OUTPUTS}/{name}", "default": default}}
        for name, default in found.items()
    ]
    return {"parameters": parameters}


def _patch(body: dict[str, Any], task: Any, parts: _Parts) -> None:
    patch, metadata = pod_override(task.executor_config)
    parts.is_own = parts.is_own or bool(patch or metadata)
    if patch and "podSpecPatch" in body:
        # Argo takes one: the settings' is laid over the DAG's, key by key at the top.
        theirs = {key: json.dumps(value, sort_keys=True) for key, value in _parsed(body["podSpecPatch"]).items()}
        whole = {key: as_patch(value) for key, value in json.loads(patch).items()} | theirs
        patch = f"{{{', '.join(f'{json.dumps(key)}: {value}' for key, value in sorted(whole.items()))}}}"
    if patch:
        body["podSpecPatch"] = patch
    for key, values in metadata.items():
        own = body.setdefault("metadata", {})
        own[key] = {**values, **own.get(key, {})}


def _parsed(patch: str) -> dict[str, Any]:
    import yaml

    try:
        return dict(yaml.safe_load(patch))
    except (yaml.YAMLError, TypeError, ValueError):
        raise ConfigError(
            "pod_spec_patch: with a template tag in it, it cannot be laid over a task's pod_override: leave one of the "
            "two out"
        ) from None


def _seconds(value: timedelta | float) -> int:
    return math.ceil(value.total_seconds() if isinstance(value, timedelta) else value)
