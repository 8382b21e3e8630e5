"""`--ray rayjob`: the job of a Ray node as a RayJob of KubeRay, which Argo creates between fan-out and execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.checks import Refusal
from airflow_provider_raynode.argo.names import LONGEST_LABEL, argo_name
from airflow_provider_raynode.argo.shape import operator_class
from airflow_provider_raynode.argo.yaml_writer import write_yaml
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime.workflow_watch import VARIABLE as WORKFLOW_VARIABLE
from airflow_provider_raynode.spec import ray_job_name

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.config.kuberay import KubeRay, RayPods, WorkerGroup

SPEC_URI, SPEC_SHA256, JOB_NAME, JOB_ID = "spec-uri", "spec-sha256", "job-name", "job-id"
# What fan-out gives to the RayJob: outputs of its pod.
OUTPUTS = (SPEC_URI, SPEC_SHA256, JOB_NAME, JOB_ID)
# The map index of the group around a Ray node: an input of its RayJob's template.
INDEX = "index"


def is_execution(task: Any) -> bool:
    """Whether a task is the execution task of a Ray node."""
    return any(each.__name__ == "RayExecutionOperator" for each in operator_class(task).__mro__)


def is_fan_out(task: Any) -> bool:
    """Whether a task is the fan-out of a Ray node."""
    return any(each.__name__ == "RayFanOutOperator" for each in operator_class(task).__mro__)


def fan_out_of(task: Any) -> Any:
    """Return the fan-out whose job an execution task runs, None where its `job` is no XCom of one."""
    return getattr(getattr(task, "job", None), "operator", None)


def job_outputs(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of `OUTPUTS` for the JobRef that fan-out returned.

    The RayJob's name and its job's id are pure functions of the attempt: whoever tries it again finds what there is.
    """
    submission_id = str(job["submission_id"])
    return {
        SPEC_URI: str(job["spec_uri"]),
        SPEC_SHA256: str(job["spec_sha256"]),
        JOB_NAME: ray_job_name(submission_id),
        JOB_ID: submission_id,
    }


def ray_job_refusals(dag: DAG) -> Iterator[Refusal]:
    """Yield what keeps a Ray node from being a RayJob."""
    for task in dag.tasks:
        if is_execution(task):
            yield from _refusals(dag, task)


def _refusals(dag: DAG, task: Any) -> Iterator[Refusal]:
    fan_out = fan_out_of(task)
    if fan_out is None or task.is_mapped or fan_out.is_mapped:
        reason = "its fan-out cannot be told from the DAG"
        yield Refusal("rayjob", reason, "pass job=fan_out.output, unmapped; map the task group around it", task.task_id)
        return
    if fan_out.secrets:
        reason = "secrets=… travels through Ray's Jobs API, which a RayJob does not use"
        remedy = "give them to the cluster's pods by env_from in ray_cluster.kuberay"
        yield Refusal("rayjob-secrets", reason, remedy, fan_out.task_id)
    if task.kill_policy == "detach":
        reason = "on_kill='detach' has no effect: the RayJob is the workflow's, and ends with it"
        yield Refusal("rayjob-on-kill", reason, "leave on_kill out", task.task_id)
    try:
        cluster_of(dag, fan_out)
    except ConfigError as error:
        yield Refusal("rayjob-config", str(error), "see ray_cluster.kuberay in docs/configuration.md", fan_out.task_id)


def cluster_of(dag: DAG, fan_out: Any) -> KubeRay:
    """Return the cluster that a node's config describes.

    :raises ConfigError: it is known only at run time, it is wrong, or it describes none.
    """
    return ray_job_of(dag, fan_out)[0]


def ray_job_of(dag: DAG, fan_out: Any) -> tuple[KubeRay, dict[str, Any]]:
    """Return the cluster that a node's config describes, and the runtime environment of its job.

    :raises ConfigError: see `cluster_of`; or the environment has what no RayJob can be given.
    """
    from airflow_provider_raynode.hooks._runtime_env import for_ray_job
    from airflow_provider_raynode.operators._resolve import is_static, load_config

    if not is_static(fan_out.ray_config):
        raise ConfigError("ray_config is a template or an XCom: --ray rayjob needs it at export")
    section = load_config(fan_out.ray_config, dag).ray_cluster
    if section.kuberay is None:
        raise ConfigError("ray_config has no section ray_cluster.kuberay: --ray rayjob makes its cluster from it")
    given = {} if section.runtime_env is None else section.runtime_env.model_dump(mode="json", exclude_unset=True)
    return section.kuberay, for_ray_job(given)


def resource_template(
    name: str,
    task: Any,
    cluster: KubeRay,
    runtime_env: Mapping[str, Any],
    container: Mapping[str, Any],
    *,
    in_group: bool = False,
) -> dict[str, Any]:
    """Return the template that makes the RayJob of an execution task, or finds it there, and waits for its end.

    A try is lost more easily than the RayJob that it waits for. So the RayJob has a name of its own, which each try
    applies: one that runs is adopted as it is. Before that, what failed is cleared away in an init container.

    :param container: image and other fields of a container of ours.
    :param in_group: whether a mapped task group is around the node: then the template takes its map index.
    """
    retry = {"retryStrategy": {"limit": str(task.retries), "retryPolicy": "Always"}} if task.retries else {}
    inputs = (*OUTPUTS, *((INDEX,) if in_group else ()))
    return {
        "name": name,
        "inputs": {"parameters": [{"name": each} for each in inputs]},
        **retry,
        "initContainers": [_make_way(container)],
        "resource": {
            "action": "apply",
            # With the workflow, the RayJob goes as well.
            "setOwnerReference": True,
            # Argo takes a comma here as AND …
            "successCondition": "status.jobStatus == SUCCEEDED, status.jobDeploymentStatus == Complete",
            # … and here as OR.
            "failureCondition": (
                "status.jobDeploymentStatus in (Failed,ValidationFailed), status.jobStatus in (FAILED,STOPPED)"
            ),
            "manifest": write_yaml(_manifest(task, cluster, runtime_env, in_group)),
        },
    }


def _make_way(container: Mapping[str, Any]) -> dict[str, Any]:
    program = container.get("command") or ["raynode"]
    kept = ("image", "imagePullPolicy", "resources", "securityContext")
    return {
        "name": "make-way",
        "command": [*program, "argo", "make-way"],
        "args": [
            f"--name={{{{inputs.parameters.{JOB_NAME}}}}}",
            f"--spec-sha256={{{{inputs.parameters.{SPEC_SHA256}}}}}",
        ],
        **{key: container[key] for key in kept if key in container},
        # What it says is then the node's message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _manifest(task: Any, cluster: KubeRay, runtime_env: Mapping[str, Any], in_group: bool) -> dict[str, Any]:
    entrypoint = (
        "python -m airflow_provider_raynode.runtime "
        f"--spec '{{{{inputs.parameters.{SPEC_URI}}}}}' --sha256 {{{{inputs.parameters.{SPEC_SHA256}}}}}"
    )
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(task, in_group),
        "spec": {
            "entrypoint": entrypoint,
            "jobId": f"{{{{inputs.parameters.{JOB_ID}}}}}",
            **({"runtimeEnvYAML": write_yaml(dict(runtime_env))} if runtime_env else {}),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": cluster.ttl_seconds_after_finished,
            "activeDeadlineSeconds": cluster.active_deadline_seconds,
            "backoffLimit": 0,
            "rayClusterSpec": _cluster(cluster),
        },
    }


def _metadata(task: Any, in_group: bool) -> dict[str, Any]:
    """Return name, labels and annotations of a RayJob: by its labels it is found and deleted with its run."""
    labels = {
        "workflows.argoproj.io/workflow": "{{workflow.name}}",
        "raynode/workflow-uid": "{{workflow.uid}}",
        "raynode/dag-id": argo_name(task.dag.dag_id, longest=LONGEST_LABEL),
        "raynode/task": argo_name(task.task_id, longest=LONGEST_LABEL),
    }
    if in_group:
        labels["raynode/map-index"] = f"{{{{inputs.parameters.{INDEX}}}}}"
    return {
        "name": f"{{{{inputs.parameters.{JOB_NAME}}}}}",
        "labels": labels,
        # A label has no room for every id.
        "annotations": {"raynode/dag-id": task.dag.dag_id, "raynode/task-id": task.task_id},
    }


def _cluster(cluster: KubeRay) -> dict[str, Any]:
    scaling = any(_bounds(group) != (group.replicas, group.replicas) for group in cluster.worker_groups)
    return {
        "rayVersion": cluster.ray_version,
        **({"enableInTreeAutoscaling": True} if scaling else {}),
        "headGroupSpec": {
            "rayStartParams": cluster.head.ray_start_params,
            "template": _with_workflow(_pods(cluster, cluster.head, "ray-head")),
        },
        "workerGroupSpecs": [_worker_group(cluster, group) for group in cluster.worker_groups],
    }


def _with_workflow(pods: dict[str, Any]) -> dict[str, Any]:
    """Tell the head's pod, where the driver runs, whose it is: it ends when its workflow does."""
    container = pods["spec"]["containers"][0]
    workflow = {"name": WORKFLOW_VARIABLE, "value": "{{workflow.namespace}}/{{workflow.name}}/{{workflow.uid}}"}
    container["env"] = [*container.get("env", []), workflow]
    return pods


def _worker_group(cluster: KubeRay, group: WorkerGroup) -> dict[str, Any]:
    least, most = _bounds(group)
    return {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": group.ray_start_params,
        "template": _pods(cluster, group, "ray-worker"),
    }


def _bounds(group: WorkerGroup) -> tuple[int, int]:
    least = group.replicas if group.min_replicas is None else group.min_replicas
    return least, max(group.replicas, 1) if group.max_replicas is None else group.max_replicas


def _pods(cluster: KubeRay, pods: RayPods, container_name: str) -> dict[str, Any]:
    amounts = {"cpu": f"{pods.num_cpus:g}", "memory": str(pods.memory)}
    if pods.num_gpus:
        amounts[pods.gpu_resource] = str(pods.num_gpus)
    container = {
        "name": container_name,
        "image": pods.image or cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "env": [{"name": name, "value": value} for name, value in cluster.env.items()],
        "envFrom": cluster.env_from,
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": cluster.volume_mounts,
    }
    spec = {
        "serviceAccountName": cluster.service_account,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": pods.node_selector,
        "tolerations": pods.tolerations,
        "volumes": cluster.volumes,
        "containers": [_given(container)],
    }
    return {"spec": _given(spec)}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, [], {})}
