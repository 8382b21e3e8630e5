"""A Ray cluster of the node's own on Kubernetes: the section `ray_cluster.kuberay`."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import NonNegativeInteger, PositiveInteger, PositiveNumber, Text

GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]


class RayPods(Section):
    """What the pods of one kind in the cluster ask for; requests and limits are the same, as KubeRay advises."""

    num_cpus: PositiveNumber = Field(default=1.0, description="CPUs of a pod")
    num_gpus: NonNegativeInteger = Field(default=0, description="GPUs of a pod")
    gpu_resource: Text = Field(default="nvidia.com/gpu", description="Kubernetes' name of the GPUs")
    memory: PositiveInteger = Field(default=4_000_000_000, description="memory of a pod, in bytes")
    image: Text | None = Field(default=None, description="image of these pods, where it is another than the cluster's")
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes to run on")
    tolerations: list[dict[str, Any]] = Field(default_factory=list, description="Kubernetes' tolerations")
    ray_start_params: dict[str, str] = Field(default_factory=dict, description="options of `ray start`")


class WorkerGroup(RayPods):
    """A group of like worker pods."""

    name: GroupName = Field(description="name of the group")
    replicas: NonNegativeInteger = Field(default=1, description="pods at the start")
    min_replicas: NonNegativeInteger | None = Field(default=None, description="least pods; default: replicas")
    max_replicas: PositiveInteger | None = Field(default=None, description="most pods; default: replicas")

    def problems(self) -> Iterator[Problem]:
        """Yield counts that contradict each other."""
        least, most = self.min_replicas, self.max_replicas
        if least is not None and least > self.replicas:
            yield ("min_replicas",), f"{least} is above replicas ({self.replicas})"
        if most is not None and most < self.replicas:
            yield ("max_replicas",), f"{most} is below replicas ({self.replicas})"


class KubeRay(Section):
    """A RayJob with a cluster that lives as long as the job: `raynode argo export --ray rayjob` makes it."""

    image: Text = Field(description="image of the cluster's pods: Ray, this package, and what the function imports")
    image_pull_policy: Text | None = Field(default=None, description="Always, IfNotPresent or Never")
    image_pull_secrets: list[Text] = Field(default_factory=list, description="names of Secrets for the image")
    ray_version: Text = Field(default="2.60.0", description="version of Ray in the image")
    service_account: Text | None = Field(default=None, description="service account of the pods")
    head: RayPods = Field(default=RayPods(), description="the head's pod")
    worker_groups: list[WorkerGroup] = Field(default_factory=list, description="the groups of worker pods")
    env: dict[str, str] = Field(default_factory=dict, description="environment variables of every pod; no secrets")
    env_from: list[dict[str, Any]] = Field(default_factory=list, description="Kubernetes' envFrom of every pod")
    volumes: list[dict[str, Any]] = Field(default_factory=list, description="Kubernetes' volumes of every pod")
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list, description="Kubernetes' volumeMounts of every pod: the catalog's, for one"
    )
    active_deadline_seconds: PositiveInteger = Field(
        default=86_400,
        description="the RayJob ends by itself after so long: a workflow that is stopped leaves it running",
    )
    ttl_seconds_after_finished: NonNegativeInteger = Field(
        default=300, description="how long the cluster stays after the job's end"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield two groups of one name."""
        seen: set[str] = set()
        for index, group in enumerate(self.worker_groups):
            if group.name in seen:
                yield ("worker_groups", index, "name"), f"{group.name!r} is there twice"
            seen.add(group.name)
