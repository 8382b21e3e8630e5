"""What keeps a Ray node from being a RayJob, and what of the settings does not reach one: told at export."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from airflow_provider_raynode.argo.checks import Refusal
from airflow_provider_raynode.argo.node_tasks import fan_out_of, is_execution, is_one_task
from airflow_provider_raynode.argo.ray_job import ray_job_config, ray_job_of
from airflow_provider_raynode.argo.ray_job_sizes import size_problems
from airflow_provider_raynode.argo.settings._connections import storage_prefixes
from airflow_provider_raynode.argo.settings._literal import literal
from airflow_provider_raynode.argo.settings._words import Annotations, Labels, ObjectName, environment_name
from airflow_provider_raynode.argo.settings.pod import CATALOG_VARIABLE
from airflow_provider_raynode.config._section import Problem, path_of, problems_of
from airflow_provider_raynode.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.settings import ArgoSettings, PodSettings
    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.config.kuberay import KubeRay

_KUBERAY = "ray_cluster.kuberay"
_SEE = f"see {_KUBERAY} in docs/configuration.md"
# Volumes that are a pod's own, or that nothing can be written to.
_OWN = {"emptyDir": "an emptyDir is each pod's own", "ephemeral": "an ephemeral volume is each pod's own"}
_READ_ONLY = ("configMap", "secret", "downwardAPI", "projected", "image")
# Pod settings of the execution task that are meant for the pods which do the work, and are another pod's here.
_ELSEWHERE = {
    "resources": "head, worker_groups",
    "image": "image",
    "image_pull_policy": "image_pull_policy",
    "env": "env",
    "secrets": "env_from",
    "env_from": "env_from",
    "volumes": "volumes",
    "volume_mounts": "volume_mounts",
    "node_selector": "node_selector of head and worker_groups",
    "tolerations": "tolerations of head and worker_groups",
    "service_account": "service_account",
    "priority_class_name": "priority_class_name",
    "security_context": "security_context",
    "container_security_context": "container_security_context",
    "labels": "pod_labels",
    "annotations": "pod_annotations",
    "affinity": "",
    "scheduler_name": "",
    "init_containers": "",
    "sidecars": "",
    "command": "",
    "pod_spec_patch": "",
}
_REMEDY_CATALOG = (
    "name storage that all pods reach: an object store (catalog: s3://bucket/prefix), or the path of a volume that "
    f"settings and {_KUBERAY} (volumes, volume_mounts) both mount there"
)


def ray_job_refusals(dag: DAG, settings: ArgoSettings) -> Iterator[Refusal]:
    """Yield what keeps the Ray nodes of a DAG from being RayJobs."""
    for task in filter(is_execution, dag.tasks):
        yield from _refusals(dag, task, settings)
    for task in filter(is_one_task, dag.tasks):
        if _describes_a_cluster(dag, task):
            reason = "ray_cluster.kuberay has no effect on it: a task that is a node by itself gets no RayJob"
            remedy = (
                "make it a ray_node(...), or leave the section out: the task runs in its pod, or on the cluster of "
            )
            yield Refusal("rayjob-one-task", reason, f"{remedy}its connection", task.task_id)


def _describes_a_cluster(dag: DAG, task: Any) -> bool:
    from airflow_provider_raynode.operators._resolve import is_static, load_config

    given = (task.partial_kwargs if task.is_mapped else vars(task)).get("ray_config")
    if given is None or not is_static(given):
        return False
    try:
        return load_config(given, dag).ray_cluster.kuberay is not None
    except ConfigError:  # the task itself says what is wrong with it
        return False


def _refusals(dag: DAG, task: Any, settings: ArgoSettings) -> Iterator[Refusal]:
    fan_out = fan_out_of(task)
    if fan_out is None or task.is_mapped or fan_out.is_mapped or _group_of(task) != _group_of(fan_out):
        reason = "its fan-out cannot be told from the DAG"
        yield Refusal("rayjob", reason, "pass job=fan_out.output, unmapped; map the task group around it", task.task_id)
        return
    if fan_out.secrets:
        reason = "secrets=… travels through Ray's Jobs API, which a RayJob does not use"
        remedy = f"give them to the cluster's pods by env_from in {_KUBERAY}"
        yield Refusal("rayjob-secrets", reason, remedy, fan_out.task_id)
    if task.kill_policy == "detach":
        reason = "on_kill='detach' has no effect: the RayJob is the workflow's, and ends with it"
        yield Refusal("rayjob-on-kill", reason, "leave on_kill out", task.task_id)
    try:
        ray_job_of(dag, fan_out)
        config, _ = ray_job_config(dag, fan_out)
    except ConfigError as error:
        yield Refusal("rayjob-config", str(error), _SEE, fan_out.task_id)
        return
    for problem in config_problems(config):
        yield Refusal("rayjob-config", problem, _SEE, fan_out.task_id)
    yield from catalog_refusals(config, fan_out, settings)


def config_problems(config: RayConfig) -> Iterator[str]:
    """Yield what of a config Kubernetes, KubeRay or the way there would refuse or change.

    :param config: one with a section `ray_cluster.kuberay`.
    """
    from airflow_provider_raynode.hooks._cluster import version_problem

    cluster = config.ray_cluster.kuberay
    assert cluster is not None
    if problem := version_problem(cluster.ray_version):
        yield f"{_KUBERAY}.ray_version: {problem.replace('the cluster runs', 'it is')}"
    for loc, message in _kubernetes_problems(cluster):
        yield f"{_KUBERAY}.{path_of(loc)}: {message}"
    yield from size_problems(config)


def _kubernetes_problems(cluster: KubeRay) -> Iterator[Problem]:
    """Yield fields that are none of Kubernetes', in what it gets as it stands."""
    parts: list[tuple[tuple[str | int, ...], str, Any]] = [
        (("security_context",), "PodSecurityContext", cluster.security_context),
        (("container_security_context",), "SecurityContext", cluster.container_security_context),
    ]
    for key, model in (("volumes", "Volume"), ("volume_mounts", "VolumeMount"), ("env_from", "EnvFromSource")):
        parts += [((key, index), model, each) for index, each in enumerate(getattr(cluster, key))]
    groups: list[tuple[tuple[str | int, ...], Any]] = [(("head",), cluster.head), (("submitter",), cluster.submitter)]
    groups += [(("worker_groups", index), each) for index, each in enumerate(cluster.worker_groups)]
    for loc, pods in groups:
        parts += [((*loc, "tolerations", at), "Toleration", each) for at, each in enumerate(pods.tolerations or ())]
    for loc, model, value in parts:
        yield from _problems(loc, literal, model, value)
    words: list[tuple[tuple[str | int, ...], Any, Any]] = [
        (("service_account",), ObjectName, cluster.service_account),
        (("priority_class_name",), ObjectName, cluster.priority_class_name),
        (("pod_labels",), Labels, cluster.pod_labels),
        (("pod_annotations",), Annotations, cluster.pod_annotations),
    ]
    words += [(("image_pull_secrets", at), ObjectName, each) for at, each in enumerate(cluster.image_pull_secrets)]
    words += [((*loc, "node_selector"), Labels, pods.node_selector) for loc, pods in groups]
    for loc, kind, value in words:
        if value is not None:
            yield from _problems(loc, TypeAdapter(kind).validate_python, value)
    for name in cluster.env:
        try:
            environment_name(name)
        except ValueError as error:
            yield ("env", name), str(error)


def _problems(loc: tuple[str | int, ...], check: Callable[..., Any], *values: Any) -> Iterator[Problem]:
    try:
        check(*values)
    except ValidationError as error:
        yield from (((*loc, *inner), message) for inner, message in problems_of(error))


def catalog_refusals(config: RayConfig, fan_out: Any, settings: ArgoSettings) -> Iterator[Refusal]:
    """Yield why a RayJob would not find the catalog that its fan-out writes to."""
    cluster = config.ray_cluster.kuberay
    assert cluster is not None
    uri = catalog_of(config, fan_out, settings)
    if uri is None:
        if settings.claims_catalog:
            reason = "each run claims a volume of its own for the catalog, which no RayJob can mount"
            yield Refusal("rayjob-catalog", reason, _REMEDY_CATALOG, fan_out.task_id)
        return
    path = _folder(uri)
    for reason, remedy in _uri_problems(uri, path):
        yield Refusal("rayjob-catalog", reason, remedy, fan_out.task_id)
    if path is not None and path.startswith("/") and (problem := _mount_problem(cluster, path)):
        remedy = f"mount there what the settings mount: {_KUBERAY}.volumes and {_KUBERAY}.volume_mounts"
        yield Refusal("rayjob-catalog", f"the catalog is {uri}: {problem}", remedy, fan_out.task_id)


def catalog_of(config: RayConfig, fan_out: Any, settings: ArgoSettings) -> str | None:
    """Return the catalog of a node, None where the settings do not tell it in clear text."""
    if config.catalog.uri is not None:
        return config.catalog.uri
    entry = _pod(settings, fan_out).plain_env().get(CATALOG_VARIABLE) or {}
    value = entry.get("value")
    if settings.claims_catalog or not isinstance(value, str) or "{{" in value:
        return None
    return value


def _uri_problems(uri: str, path: str | None) -> Iterator[tuple[str, str]]:
    if uri.startswith("memory:"):
        yield f"the catalog is {uri}: memory is each pod's own", _REMEDY_CATALOG
    elif path is not None and not path.startswith("/"):
        yield f"the catalog is {uri!r}, a relative path: each pod starts in another folder", _REMEDY_CATALOG
    if bad := sorted({each for each in uri if each in "'\"\\$`" or each.isspace() or not each.isprintable()}):
        yield (
            f"the catalog is {uri!r}: {' '.join(map(repr, bad))} would not reach the RayJob's command as it is",
            "choose a path without it",
        )


def _mount_problem(cluster: KubeRay, path: str) -> str | None:
    found = cluster.mount_at(path)
    if found is None:
        mounted = ", ".join(str(each.get("mountPath")) for each in cluster.volume_mounts) or "nothing"
        return f"{_KUBERAY}.volume_mounts mounts no volume there (it mounts: {mounted})"
    mount, volume = found
    kind = _kind(volume)
    if why := _OWN.get(kind):
        return f"{_KUBERAY}.volumes: {why}, and the RayJob would find nothing in it"
    if kind in _READ_ONLY or mount.get("readOnly") or (volume.get(kind) or {}).get("readOnly"):
        return f"{_KUBERAY} mounts {mount.get('name')!r} there, which cannot be written to"
    return None


def ray_job_warnings(dag: DAG, settings: ArgoSettings) -> list[str]:
    """Return what is allowed and seldom meant of a DAG whose Ray nodes can become RayJobs."""
    found: list[str] = []
    for task in filter(is_execution, dag.tasks):
        fan_out = fan_out_of(task)
        config, cluster = ray_job_config(dag, fan_out)
        found += [f"{task.task_id}: {each}" for each in _settings_warnings(task, settings)]
        found += [f"{fan_out.task_id}: {each}" for each in _storage_warnings(config, cluster, fan_out, settings)]
    return found


def _settings_warnings(task: Any, settings: ArgoSettings) -> Iterator[str]:
    parts = [settings.tasks.get(task.task_id), *(settings.groups.get(each) for each in _groups_of(task))]
    said = [
        name for name in _ELSEWHERE if any(getattr(part, name, None) not in (None, {}, []) for part in parts if part)
    ]
    if said:
        where = ", ".join(dict.fromkeys(_ELSEWHERE[name] for name in said if _ELSEWHERE[name]))
        remedy = f": for the job's pods say {_KUBERAY}: {where}" if where else ""
        yield f"{', '.join(said)} of the settings: of the pod that collects, not of the RayJob's{remedy}"
    told = [name for name in ("on_retry_callback", "email_on_retry") if _is_called(task, name)]
    if told and task.retries:
        yield f"{', '.join(told)}: nothing is called between the tries of a RayJob, which are Argo's"
    if task.executor_config:
        yield f"executor_config: of the pod that collects, not of the RayJob's: say it in {_KUBERAY}"


def _is_called(task: Any, name: str) -> bool:
    return bool(getattr(task, name, None)) and (name != "email_on_retry" or bool(task.email))


def _storage_warnings(config: RayConfig, cluster: KubeRay, fan_out: Any, settings: ArgoSettings) -> Iterator[str]:
    uri, pod = catalog_of(config, fan_out, settings), _pod(settings, fan_out)
    if uri is None:
        if not settings.claims_catalog:
            yield "the settings do not say the catalog in clear text: whether the RayJob reaches it was not checked"
        return
    path = _folder(uri)
    if path is not None:
        yield from _volume_warnings(cluster, pod, path)
        return
    prefixes = storage_prefixes(uri)
    given = [name for name in pod.plain_env() if prefixes and name.startswith(prefixes)]
    lacking = [name for name in given if name not in cluster.env]
    if lacking and not cluster.env_from:
        yield (
            f"the catalog is {uri}: the settings give {', '.join(lacking)} to the tasks' pods, and nothing gives it to "
            f"the RayJob's: say it in {_KUBERAY}: env, or env_from for a Secret"
        )
    sources = [_source(each) for each in pod.container_fields().get("envFrom", [])]
    if sources and not given and not cluster.env_from and not cluster.env:
        yield (
            f"the catalog is {uri}: the settings take variables from {', '.join(sources)}, and the RayJob's pods get "
            f"none: if the storage needs them, say {_KUBERAY}: env_from"
        )


def _volume_warnings(cluster: KubeRay, pod: PodSettings, path: str) -> Iterator[str]:
    found, theirs = cluster.mount_at(path), pod.mount_at(path)
    if found is None:
        return
    if theirs is None:
        yield f"the catalog is {path}: the settings mount no volume there: each of Argo's pods has a folder of its own"
        return
    ours, others = _place(*found, path), _place(*theirs, path)
    if ours != others:
        yield (
            f"the catalog is {path}: the settings mount {_said(others)} there, {_KUBERAY}.volume_mounts {_said(ours)}: "
            "the RayJob finds what the tasks write only if both are the same storage"
        )
    if _kind(found[1]) == "hostPath":
        yield f"the catalog is {path}: a hostPath is one folder only where all pods run on one node"


def _place(mount: Mapping[str, Any], volume: Mapping[str, Any], path: str) -> tuple[str, str, str]:
    """Return what a path of a pod is: the kind of volume, which one, the path in it."""
    kind = _kind(volume)
    source = volume.get(kind) or {}
    name = source.get("claimName") or source.get("path") or "" if isinstance(source, Mapping) else ""
    if kind not in ("persistentVolumeClaim", "hostPath"):
        name = repr(source)
    base = str(mount.get("mountPath", "")).rstrip("/")
    return kind, str(name), posixpath.normpath(f"/{mount.get('subPath') or ''}/{path[len(base) :]}")


def _said(place: tuple[str, str, str]) -> str:
    kind, name, inside = place
    return f"{kind} {name}" + (f", {inside} in it" if inside != "/" else "")


def _kind(volume: Mapping[str, Any]) -> str:
    return next((str(key) for key in volume if key != "name"), "")


def _source(entry: Mapping[str, Any]) -> str:
    reference = entry.get("secretRef") or entry.get("configMapRef") or {}
    return str(reference.get("name", "?"))


def _folder(uri: str) -> str | None:
    """Return the path of a catalog that is a folder, without a slash at its end; None for other storage."""
    for scheme in ("file://", "local://"):
        if uri.startswith(scheme):
            return uri.removeprefix(scheme).rstrip("/")
    return uri.rstrip("/") if "://" not in uri and not uri.startswith("memory:") else None


def _pod(settings: ArgoSettings, task: Any) -> PodSettings:
    return settings.pod_for(task.task_id, _groups_of(task))


def _group_of(task: Any) -> str | None:
    """Return the id of the mapped task group around a task."""
    return next((group.group_id for group in task.iter_mapped_task_groups()), None)


def _groups_of(task: Any) -> list[str]:
    groups, group = [], task.task_group
    while group is not None and group.group_id is not None:
        groups.append(group.group_id)
        group = group.parent_group
    return groups[::-1]
