"""The pod templates of a workflow: one for each kind of pod, shared by the tasks that need the same."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo import ray_job
from airflow_provider_raynode.argo.expansion import index_outputs
from airflow_provider_raynode.argo.names import argo_name, unique_names
from airflow_provider_raynode.argo.needs import needs_of
from airflow_provider_raynode.argo.outcome import NO_RETRY_CODES
from airflow_provider_raynode.argo.pod_override import as_patch, pod_override
from airflow_provider_raynode.argo.ray_job import is_execution, is_fan_out
from airflow_provider_raynode.argo.run_source import run_source
from airflow_provider_raynode.argo.shape import groups_of, operator_class
from airflow_provider_raynode.argo.slots import waits_elsewhere
from airflow_provider_raynode.argo.yaml_writer import Commented
from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.settings import ArgoSettings, PodSettings

OUTPUTS = "/tmp/raynode-outputs"
MAX_ACTIVE_RUNS = "max-active-runs"
# Seconds over a task's execution_timeout after which Argo ends its pod: room for the start and for on_kill.
_GRACE_S = 300
# A pod that only counts has nothing to fail by: it is started again where it was lost.
_RETRY_LOST = {"limit": "3", "retryPolicy": "OnError"}
_ROLES = {"RayFanOutOperator": "fan-out", "RayTuneOperator": "tune", "RayFanInOperator": "fan-in"}
_HASH = 6
# What the settings say of where and as whom a pod runs, which holds for Argo's own container as well.
_PLACED = (
    *("metadata", "serviceAccountName", "schedulerName", "priorityClassName"),
    *("nodeSelector", "tolerations", "affinity", "securityContext"),
)


@dataclass
class Templates:
    """Collects the pod templates while the nodes are made.

    :param command: arguments of every pod of a task: the DAG, the run.
    """

    dag: DAG
    settings: ArgoSettings
    command: list[str]
    pools_config_map: str
    taken: set[str]
    ray_jobs: bool = False
    _found: dict[str, _Found] = field(default_factory=dict)

    def of_task(self, task: Any, *, plan: bool = False) -> str:
        """Return the key of the template for a task's pod, or for the pod that plans its expansion."""
        return self._keep(task, "plan" if plan else _role(task), self._task_body(task, plan=plan))

    def of_plan(self, group: Any) -> str:
        """Return the key of the template for the pod that plans a mapped task group."""
        return self._keep(
            group, "plan", self._plan_body(self.settings.pod_for(group.group_id, groups_of(group), runs=False))
        )

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
        limits = {key: value for key, value in self._limits(task).items() if key != "activeDeadlineSeconds"}
        anywhere = self.settings.pod_for("", ()).template_fields()
        placed = {key: value for key, value in anywhere.items() if key in _PLACED}
        return {**({"retryStrategy": retry} if retry else {}), **limits, **placed}, timeout_s

    def named(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return for each key the template's name and body.

        A role's only template has the role's name; one that a single task uses has the task's; others get a hash of
        what they are, so that a new task renames none.
        """
        roles: dict[str, list[str]] = {}
        for key, found in self._found.items():
            roles.setdefault(found.role, []).append(key)
        names: dict[str, str] = {}
        taken = set(self.taken)
        for role, keys in roles.items():
            plain = max(keys, key=lambda key: (len(self._found[key].users), key))
            for key in sorted(keys, key=lambda key: key != plain):
                users = self._found[key].users
                wanted = role if key == plain else argo_name(f"{role}-{users[0]}".lower()) if len(users) == 1 else ""
                if not wanted or wanted in taken:
                    wanted = f"{role}-{key[:_HASH]}"
                taken.add(wanted)
                names[key] = wanted
        return {key: (names[key], found.body) for key, found in self._found.items()}

    def users(self, key: str) -> list[str]:
        """Return the ids of the tasks that use a template."""
        return self._found[key].users

    def _keep(self, node: Any, role: str, body: dict[str, Any]) -> str:
        text = json.dumps([role, body], sort_keys=True, default=_uncommented)
        key = hashlib.sha256(text.encode()).hexdigest()
        found = self._found.setdefault(key, _Found(role, body))
        found.users.append(node.task_id if hasattr(node, "task_id") else node.group_id)
        return key

    def _task_body(self, task: Any, *, plan: bool) -> dict[str, Any]:
        if plan:
            return self._plan_body(self.settings.pod_for(task.task_id, groups_of(task), runs=False))
        pod = self.settings.pod_for(task.task_id, groups_of(task), needs=needs_of(self.dag, task))
        on_ray_job = self.ray_jobs and (is_fan_out(task) or is_execution(task))
        command = [*self.command, "--decide={{inputs.parameters.decide}}", *(["--ray=rayjob"] if on_ray_job else [])]
        fields = pod.template_fields()
        retry = _retry(task, fields.pop("retryStrategy", {}))
        if on_ray_job and is_execution(task):
            # A RayJob is tried again by its own template; the execution task only reads what it left.
            retry = {}
        if retry:
            command.append("--retries={{retries}}")
            if retry["limit"].isdigit() and int(retry["limit"]) != (task.retries or 0):
                command.append(f"--max-retries={retry['limit']}")
        # What the settings say of time limits wins over the DAG.
        body = {**({"retryStrategy": retry} if retry else {}), **self._limits(task), **fields}
        _patch(body, task)
        body["script"] = self._script(pod, command)
        outputs = ray_job.OUTPUTS if on_ray_job and is_fan_out(task) else ()
        body["outputs"] = _outputs(index_outputs(self.dag, task.task_id), outputs)
        return body

    def _plan_body(self, pod: PodSettings) -> dict[str, Any]:
        fields = {key: value for key, value in pod.template_fields().items() if key != "retryStrategy"}
        return {
            "retryStrategy": dict(_RETRY_LOST),
            **fields,
            "script": self._script(pod, [*self.command, "--plan"]),
            "outputs": _outputs(["indexes"]),
        }

    def _script(self, pod: PodSettings, arguments: list[str]) -> dict[str, Any]:
        container = pod.container_fields()
        program = container.pop("command", None) or ["raynode"]
        script = {"command": [*program, "argo", "run-task"], "args": arguments, **container}
        return {**script, "source": run_source(self.dag)}

    @cached_property
    def semaphore_keys(self) -> dict[str, str]:
        """The keys of the semaphores of pools and of tasks, by what they are called in Airflow: one each."""
        tasks = [semaphore_of(task) for task in self.dag.tasks if task.max_active_tis_per_dag is not None]
        return unique_names(dict.fromkeys([*sorted(self.settings.pools), *tasks]), taken=(MAX_ACTIVE_RUNS,))

    def _limits(self, task: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if task.execution_timeout is not None and not waits_elsewhere(task):
            found["activeDeadlineSeconds"] = _seconds(task.execution_timeout) + _GRACE_S
        names = [task.pool] if task.pool in self.settings.pools else []
        if task.max_active_tis_per_dag is not None:
            names.append(semaphore_of(task))
        if names:
            keys = [self.semaphore_keys[name] for name in names]
            semaphores = [{"configMapKeyRef": {"name": self.pools_config_map, "key": key}} for key in keys]
            found["synchronization"] = {"semaphores": semaphores}
        return found


@dataclass
class _Found:
    role: str
    body: dict[str, Any]
    users: list[str] = field(default_factory=list)


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


def _role(task: Any) -> str:
    names = [each.__name__ for each in operator_class(task).__mro__]
    return next((_ROLES[name] for name in names if name in _ROLES), "task")


def _outputs(lists: Iterable[str], texts: Iterable[str] = ()) -> dict[str, Any]:
    defaults = {"state": "skipped", "skip": ",", **dict.fromkeys(lists, "[]"), **dict.fromkeys(texts, "none")}
    parameters = [
        {"name": name, "valueFrom": {"path": f"{OUTPUTS}/{name}", "default": default}}
        for name, default in defaults.items()
    ]
    return {"parameters": parameters}


def _patch(body: dict[str, Any], task: Any) -> None:
    patch, metadata = pod_override(task.executor_config)
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


def _uncommented(value: Any) -> Any:
    if isinstance(value, Commented):
        return value.value
    raise TypeError(f"{type(value).__name__} in a template")
