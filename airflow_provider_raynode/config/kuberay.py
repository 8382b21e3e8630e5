"""A Ray cluster of the node's own on Kubernetes: the section `ray_cluster.kuberay`."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from airflow_provider_raynode.config._section import Loc, Problem, Section, did_you_mean
from airflow_provider_raynode.config._values import (
    NonNegativeInteger,
    PositiveInteger,
    PositiveNumber,
    Switch,
    Text,
    as_integer,
)

GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)([.-]?[0-9A-Za-z]+)*")
# Ray's own images say their version in the tag: rayproject/ray:2.60.0-py311-gpu.
_TAGGED = re.compile(r"(?:^|/)rayproject/ray(?:-ml|-llm)?:(\d+\.\d+\.\d+)(?:[.-]|$)")
_TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH")
_REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
_AUTOSCALER = "RAY_enable_autoscaler_v2"
_KUBERAYS = ("RAY_ADDRESS", "RAY_CLUSTER_NAME", "RAY_IP", "RAY_PORT", "FQ_RAY_IP", "RAY_DASHBOARD_ADDRESS")


def _version(value: str) -> str:
    if not _VERSION.fullmatch(value):
        raise ValueError(f"{value!r} is not a version of Ray, such as 2.60.0")
    return value


_INT32 = 2**31 - 1
Seconds = Annotated[int, Field(ge=1, le=_INT32), BeforeValidator(as_integer)]
Version = Annotated[Text, AfterValidator(_version)]


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

    def problems(self) -> Iterator[Problem]:
        """Yield options that KubeRay refuses."""
        if "labels" in self.ray_start_params:
            yield ("ray_start_params", "labels"), "KubeRay refuses it: leave it out"
        for name in ("redis-username", "redis-password"):
            if name in self.ray_start_params:
                yield ("ray_start_params", name), "has no effect: the GCS of this cluster has no Redis; leave it out"


class WorkerGroup(RayPods):
    """A group of like worker pods."""

    name: GroupName = Field(description="name of the group")
    replicas: NonNegativeInteger = Field(default=1, description="pods at the start")
    min_replicas: NonNegativeInteger | None = Field(default=None, description="least pods; default: replicas")
    max_replicas: PositiveInteger | None = Field(default=None, description="most pods; default: replicas")

    def problems(self) -> Iterator[Problem]:
        """Yield counts that contradict each other."""
        yield from super().problems()
        least, most = self.min_replicas, self.max_replicas
        if least is not None and least > self.replicas:
            yield ("min_replicas",), f"{least} is above replicas ({self.replicas})"
        if most is not None and most < self.replicas:
            yield ("max_replicas",), f"{most} is below replicas ({self.replicas})"

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most pods."""
        least = self.replicas if self.min_replicas is None else self.min_replicas
        return least, self.replicas if self.max_replicas is None else self.max_replicas


class Submitter(Section):
    """The pod that submits the job and shows its log; it has the head's image and the cluster's service account."""

    num_cpus: PositiveNumber = Field(default=0.5, description="CPUs that it asks for; it may use one")
    memory: PositiveInteger = Field(
        default=300_000_000, description="memory that it asks for, in bytes; it may use a gigabyte"
    )
    node_selector: dict[str, str] | None = Field(
        default=None, description="labels of the nodes to run on; left out: the head's"
    )
    tolerations: list[dict[str, Any]] | None = Field(
        default=None, description="Kubernetes' tolerations; left out: the head's"
    )
    backoff_limit: NonNegativeInteger = Field(
        default=2,
        description="how often a lost one is replaced; the job runs on meanwhile. 0: its loss is the RayJob's",
    )


class KubeRay(Section):
    """A RayJob with a cluster that lives as long as the job: `raynode argo export --ray rayjob` makes it.

    Needs KubeRay 1.6 or newer.
    """

    not_in_yaml = {  # noqa: RUF012
        "backoff_limit": "`retries` of the node's tasks tries a RayJob again, with retry_delay, and tune is told of it",
        "backoffLimit": "`retries` of the node's tasks tries a RayJob again, with retry_delay, and tune is told of it",
        "entrypoint": "it is this package's",
        "runtime_env": "say it in ray_cluster.runtime_env",
        "auth_options": "say token_authentication: true or false",
        "secrets": "name the Secret in env_from: [{secretRef: {name: …}}]",
    }

    image: Text = Field(description="image of the cluster's pods: Ray, this package, and what the function imports")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="when the image is pulled; left out: as Kubernetes does"
    )
    image_pull_secrets: list[Text] = Field(default_factory=list, description="names of Secrets for the image")
    ray_version: Version = Field(default="2.60.0", description="version of Ray in the image")
    service_account: Text | None = Field(default=None, description="service account of the pods; it may get workflows")
    token_authentication: Switch = Field(
        default=True,
        description="whether the cluster, its Jobs API above all, asks for a token, which KubeRay makes and gives to "
        "its pods. false: whoever reaches the cluster's network can run code in it",
    )
    head: RayPods = Field(default=RayPods(), description="the head's pod")
    worker_groups: list[WorkerGroup] = Field(default_factory=list, description="the groups of worker pods")
    submitter: Submitter = Field(default=Submitter(), description="the pod that submits the job")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="environment variables of every Ray pod, which get the text as it stands here; no secrets",
    )
    env_from: list[dict[str, Any]] = Field(default_factory=list, description="Kubernetes' envFrom of every Ray pod")
    volumes: list[dict[str, Any]] = Field(default_factory=list, description="Kubernetes' volumes of every Ray pod")
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list, description="Kubernetes' volumeMounts of every Ray pod: the catalog's, for one"
    )
    pod_labels: dict[str, str] = Field(default_factory=dict, description="labels of every pod")
    pod_annotations: dict[str, str] = Field(default_factory=dict, description="annotations of every pod")
    priority_class_name: Text | None = Field(default=None, description="Kubernetes' priority class of every pod")
    security_context: dict[str, Any] = Field(
        default_factory=dict, description="Kubernetes' security context of every pod"
    )
    container_security_context: dict[str, Any] = Field(
        default_factory=dict, description="Kubernetes' security context of every container"
    )
    pre_running_deadline_seconds: Seconds = Field(
        default=1_800,
        description="how long the cluster may take to start: an image that cannot be pulled or a pod that no node has "
        "room for ends the RayJob then; where it is left out, startup_timeout_s of the node counts, if it is given",
    )
    active_deadline_seconds: Seconds = Field(
        default=86_400,
        description="how long the RayJob may take, its cluster's start included; execution_timeout and run_timeout_s "
        "of the node make it shorter",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=_INT32), BeforeValidator(as_integer)] = Field(
        default=30, description="how long the cluster stays after the job's end; a retry does not wait for that"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what KubeRay or Kubernetes would refuse, or what would do something else than it says."""
        seen: set[str] = set()
        for index, group in enumerate(self.worker_groups):
            if group.name in seen:
                yield ("worker_groups", index, "name"), f"{group.name!r} is there twice"
            seen.add(group.name)
        yield from self._versions()
        yield from self._variables()
        yield from self._mounts()

    @property
    def autoscales(self) -> bool:
        """Whether the number of worker pods may change."""
        return any(least != most for least, most in (group.bounds for group in self.worker_groups))

    def _versions(self) -> Iterator[Problem]:
        images: list[tuple[Loc, str | None]] = [(("image",), self.image), (("head", "image"), self.head.image)]
        images += [(("worker_groups", at, "image"), each.image) for at, each in enumerate(self.worker_groups)]
        for loc, image in images:
            tagged = _TAGGED.search(image or "")
            if tagged and tagged[1] != self.ray_version:
                yield loc, f"{image!r} has Ray {tagged[1]}, but ray_version is {self.ray_version}: say ray_version"

    def _variables(self) -> Iterator[Problem]:
        for name in self.env:
            if name in _TOKENS:
                yield ("env", name), "is set by token_authentication: leave it out"
            elif name in _REDIS:
                yield ("env", name), "KubeRay refuses it: the GCS of this cluster has no Redis; leave it out"
            elif name in _KUBERAYS:
                yield ("env", name), "is set by KubeRay: leave it out"
            elif name == _AUTOSCALER and not self.autoscales:
                yield ("env", name), "KubeRay refuses it where no worker group has min_replicas below max_replicas"

    def _mounts(self) -> Iterator[Problem]:
        names = [str(volume.get("name", "")) for volume in self.volumes]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield ("volumes", index, "name"), f"{name!r} is there twice"
        paths: set[str] = set()
        for index, mount in enumerate(self.volume_mounts):
            name, path = str(mount.get("name", "")), str(mount.get("mountPath", "")).rstrip("/")
            if name not in names:
                known = ", ".join(names) or "none"
                yield (
                    ("volume_mounts", index, "name"),
                    f"there is no volume {name!r}{did_you_mean(name, names)} volumes has: {known}",
                )
            if path in paths:
                yield ("volume_mounts", index, "mountPath"), f"{path} is mounted twice"
            paths.add(path)

    def mount_at(self, path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return the mount that a path of the pods lies in, and its volume; None where it lies in none."""
        found = [
            mount
            for mount in self.volume_mounts
            if f"{path}/".startswith(f"{str(mount.get('mountPath', '')).rstrip('/')}/")
        ]
        if not found:
            return None
        mount = max(found, key=lambda each: len(str(each.get("mountPath", "")).rstrip("/")))
        return mount, next((each for each in self.volumes if each.get("name") == mount.get("name")), {})
