"""`--ray rayjob`: the job of a Ray node as a RayJob of KubeRay, which Argo creates between fan-out and execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.names import LONGEST_LABEL, argo_name
from airflow_provider_raynode.argo.node_tasks import fan_out_of
from airflow_provider_raynode.argo.ray_job_pods import ray_cluster, submitter_pod
from airflow_provider_raynode.argo.ray_job_times import Times, times_of
from airflow_provider_raynode.argo.yaml_writer import write_yaml
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime.workflow_watch import VARIABLE as WORKFLOW_VARIABLE
from airflow_provider_raynode.spec import ray_job_name

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.config.kuberay import KubeRay

SPEC_URI, SPEC_SHA256, JOB_NAME, JOB_ID = "spec-uri", "spec-sha256", "job-name", "job-id"
# What fan-out gives to the RayJob: outputs of its pod.
OUTPUTS = (SPEC_URI, SPEC_SHA256, JOB_NAME, JOB_ID)
# The map index of the group around a Ray node: an input of its RayJob's template.
INDEX = "index"
# No character at all, so nobody's text has it; YAML has to escape it, which leaves something to find.
_BRACES = "\ufdd0"


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


def ray_job_of(dag: DAG, fan_out: Any) -> tuple[KubeRay, dict[str, Any]]:
    """Return the cluster that a node's config describes, and the runtime environment of its job.

    :raises ConfigError: the config is known only at run time, it is wrong, it describes no cluster, or its environment
        has what no RayJob can be given.
    """
    from airflow_provider_raynode.hooks._runtime_env import for_ray_job

    config, cluster = ray_job_config(dag, fan_out)
    environment = config.ray_cluster.runtime_env
    given = {} if environment is None else environment.model_dump(mode="json", exclude_unset=True)
    return cluster, for_ray_job(given)


def ray_job_config(dag: DAG, fan_out: Any) -> tuple[RayConfig, KubeRay]:
    """Return the config of a node, and the cluster that it describes.

    :raises ConfigError: the config is known only at run time, it is wrong, or it describes no cluster.
    """
    from airflow_provider_raynode.operators._resolve import is_static, load_config

    if not is_static(fan_out.ray_config):
        raise ConfigError("ray_config is a template or an XCom: --ray rayjob needs it at export")
    config = load_config(fan_out.ray_config, dag)
    if config.ray_cluster.kuberay is None:
        raise ConfigError("ray_config has no section ray_cluster.kuberay: --ray rayjob makes its cluster from it")
    return config, config.ray_cluster.kuberay


def resource_template(
    name: str,
    task: Any,
    cluster: KubeRay,
    runtime_env: Mapping[str, Any],
    container: Mapping[str, Any],
    *,
    fields: Mapping[str, Any] | None = None,
    timeout_s: int | None = None,
    in_group: bool = False,
) -> dict[str, Any]:
    """Return the template that makes the RayJob of an execution task, or finds it there, and waits for its end.

    A try is lost more easily than the RayJob that it waits for. So the RayJob has a name of its own, which each try
    applies: one that runs is adopted as it is. Before that, what failed is cleared away in an init container.

    :param container: image and other fields of a container of ours.
    :param fields: of the template: how it is tried again, where the pod runs that waits.
    :param timeout_s: what the export's settings say instead of the task's execution_timeout.
    :param in_group: whether a mapped task group is around the node: then the template takes its map index.
    """
    times = times_of(cluster, task, fan_out_of(task), timeout_s=timeout_s)
    inputs = (*OUTPUTS, *((INDEX,) if in_group else ()))
    return {
        "name": name,
        "inputs": {"parameters": [{"name": each} for each in inputs]},
        **(fields or {}),
        "initContainers": [_make_way(container)],
        "resource": {
            "action": "apply",
            # With the workflow, the RayJob goes as well.
            "setOwnerReference": True,
            # Argo takes a comma here as AND …
            "successCondition": "status.jobStatus == SUCCEEDED, status.jobDeploymentStatus == Complete",
            # … and here as OR. FAILED is not the end of it: KubeRay may be about to try again.
            "failureCondition": "status.jobDeploymentStatus in (Failed,ValidationFailed), status.jobStatus == STOPPED",
            "manifest": _shown(write_yaml(_manifest(task, cluster, runtime_env, times, in_group))),
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


def _manifest(
    task: Any, cluster: KubeRay, runtime_env: Mapping[str, Any], times: Times, in_group: bool
) -> dict[str, Any]:
    entrypoint = (
        "python -m airflow_provider_raynode.runtime "
        f"--spec '{{{{inputs.parameters.{SPEC_URI}}}}}' --sha256 {{{{inputs.parameters.{SPEC_SHA256}}}}} "
        f"--deadline {times.active}"
    )
    environment = _hidden(dict(runtime_env))
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(task, in_group),
        "spec": {
            "entrypoint": entrypoint,
            "jobId": f"{{{{inputs.parameters.{JOB_ID}}}}}",
            **({"runtimeEnvYAML": write_yaml(environment)} if environment else {}),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": cluster.ttl_seconds_after_finished,
            "preRunningDeadlineSeconds": times.pre_running,
            "activeDeadlineSeconds": times.active,
            # The node's retries are Argo's.
            "backoffLimit": 0,
            "submitterConfig": {"backoffLimit": cluster.submitter.backoff_limit},
            "submitterPodTemplate": _hidden(submitter_pod(cluster, deadline_s=times.active)),
            "rayClusterSpec": _with_workflow(_hidden(ray_cluster(cluster))),
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


def _with_workflow(cluster: dict[str, Any]) -> dict[str, Any]:
    """Tell the head's pod, where the driver runs, whose it is: it ends when its workflow does."""
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    workflow = {"name": WORKFLOW_VARIABLE, "value": "{{workflow.namespace}}/{{workflow.name}}/{{workflow.uid}}"}
    container["env"] = [*container.get("env", []), workflow]
    return cluster


def _hidden(value: Any) -> Any:
    """Return the config's values with a mark in the place of what Argo would take for the begin of a tag."""
    if isinstance(value, Mapping):
        return {_hidden(key): _hidden(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each) for each in value]
    return value.replace("{{", _BRACES) if isinstance(value, str) else value


def _shown(text: str) -> str:
    """Return a manifest in which the marks are braces to YAML, and to Argo, which reads before, are none."""
    return text.replace(f"\\U{ord(_BRACES):08x}", "\\u007b\\u007b")
