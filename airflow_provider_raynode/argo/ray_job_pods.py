"""The pods of a RayJob, in Kubernetes' shape: head, workers, and the one that submits the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode.config.kuberay import KubeRay, RayPods, WorkerGroup

# KubeRay's name of the submitter's container.
_SUBMITTER = "ray-job-submitter"
_SUBMITTER_MAY_USE = 1_000_000_000
# KubeRay sets it with tokens only; without it a token file in the image's home would make Ray ask for tokens.
_NO_TOKENS = {"RAY_AUTH_MODE": "disabled"}


def ray_cluster(cluster: KubeRay) -> dict[str, Any]:
    """Return the spec of a RayJob's cluster."""
    return {
        "rayVersion": cluster.ray_version,
        "authOptions": {"mode": "token" if cluster.token_authentication else "disabled"},
        **({"enableInTreeAutoscaling": True} if cluster.autoscales else {}),
        "headGroupSpec": {
            "rayStartParams": cluster.head.ray_start_params,
            "template": _ray_pod(cluster, cluster.head, "ray-head"),
        },
        "workerGroupSpecs": [_worker_group(cluster, group) for group in cluster.worker_groups],
    }


def submitter_pod(cluster: KubeRay, *, deadline_s: int) -> dict[str, Any]:
    """Return the template of the pod that submits the job: KubeRay adds the command, the address and the token.

    :param deadline_s: when Kubernetes ends it: KubeRay replaces one that is lost, and after the cluster's end that one
        would wait for the cluster for ever.
    """
    own, head = cluster.submitter, cluster.head
    container = {
        "name": _SUBMITTER,
        "image": head.image or cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "env": _env({} if cluster.token_authentication else _NO_TOKENS),
        "resources": {
            "requests": {"cpu": f"{own.num_cpus:g}", "memory": str(own.memory)},
            "limits": {"cpu": f"{max(own.num_cpus, 1):g}", "memory": str(max(own.memory, _SUBMITTER_MAY_USE))},
        },
        "securityContext": cluster.container_security_context,
    }
    node_selector = head.node_selector if own.node_selector is None else own.node_selector
    tolerations = head.tolerations if own.tolerations is None else own.tolerations
    # A Job's pod has to say that it is not restarted.
    fields = {"restartPolicy": "Never", "activeDeadlineSeconds": deadline_s}
    return _pod(cluster, container, node_selector, tolerations, fields)


def _worker_group(cluster: KubeRay, group: WorkerGroup) -> dict[str, Any]:
    least, most = group.bounds
    return {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": group.ray_start_params,
        "template": _ray_pod(cluster, group, "ray-worker"),
    }


def _ray_pod(cluster: KubeRay, pods: RayPods, container_name: str) -> dict[str, Any]:
    amounts = {"cpu": f"{pods.num_cpus:g}", "memory": str(pods.memory)}
    if pods.num_gpus:
        amounts[pods.gpu_resource] = str(pods.num_gpus)
    container = {
        "name": container_name,
        "image": pods.image or cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "env": _env({**cluster.env, **({} if cluster.token_authentication else _NO_TOKENS)}),
        "envFrom": cluster.env_from,
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": cluster.volume_mounts,
        "securityContext": cluster.container_security_context,
    }
    return _pod(cluster, container, pods.node_selector, pods.tolerations, {"volumes": cluster.volumes})


def _pod(
    cluster: KubeRay,
    container: Mapping[str, Any],
    node_selector: Mapping[str, str],
    tolerations: list[dict[str, Any]],
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    spec = {
        "serviceAccountName": cluster.service_account,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": node_selector,
        "tolerations": tolerations,
        "priorityClassName": cluster.priority_class_name,
        "securityContext": cluster.security_context,
        **fields,
        "containers": [_given(container)],
    }
    metadata = _given({"labels": cluster.pod_labels, "annotations": cluster.pod_annotations})
    return {**({"metadata": metadata} if metadata else {}), "spec": _given(spec)}


def _env(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Return Kubernetes' entries, whose values reach the process as they are: the kubelet reads `$$` and `$(NAME)`."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()]


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, [], {})}
