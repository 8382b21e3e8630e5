"""What can be said of pods: for all of them, for those of a group, for those of a task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.argo.settings._environment import NAMED, Env, EnvFrom, NeededSecrets
from airflow_provider_raynode.argo.settings._literal import (
    Affinity,
    Containers,
    PodSecurityContext,
    PodSpecPatch,
    SecurityContext,
    Tolerations,
)
from airflow_provider_raynode.argo.settings._merge import Layer, without_nulls
from airflow_provider_raynode.argo.settings._resources import PodResources, resource_fields, resource_problems
from airflow_provider_raynode.argo.settings._retry import RetryStrategy
from airflow_provider_raynode.argo.settings._storage import VolumeMounts, Volumes
from airflow_provider_raynode.argo.settings._words import Annotations, Labels, ObjectName, Seconds
from airflow_provider_raynode.config._section import Problem, Section, did_you_mean
from airflow_provider_raynode.config._values import Text

DEFAULT_IMAGE = "airflow-provider-raynode:latest"
DEFAULT_PULL_POLICY = "IfNotPresent"
CATALOG_VARIABLE = "AIRFLOW__RAYNODE__CATALOG"
# What a pod has that names none, where the workflow names one.
_CLUSTER_DEFAULTS = {"service_account": "default", "scheduler_name": "default-scheduler"}


def _words(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Command = Annotated[list[Text], Field(min_length=1), BeforeValidator(_words)]


# The volume that each run claims for the catalog where the settings name none, and where the pods find it.
CLAIM, CLAIM_PATH = "raynode-catalog", "/raynode/catalog"


class PodKeys(Section):
    """The keys that stand at the top of the file, for all pods, and in `groups` and `tasks`."""

    image: Text | None = Field(
        default=None,
        description=f"image of the pods; left out: `{DEFAULT_IMAGE}`. It needs this package and the tasks'",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description=f"when the image is pulled; left out: `{DEFAULT_PULL_POLICY}`"
    )
    command: Command | None = Field(
        default=None,
        description="what is run instead of `raynode`, such as `[uv, run, raynode]`; ` argo run-task` follows",
    )
    env: Env | None = Field(
        default=None,
        description="environment variables: name to text, or to `{secret: …}`, `{config_map: …}`, `{field: …}`; "
        "or Kubernetes' list. In a text `$(NAME)` is the value of a variable before it, as everywhere in Kubernetes; "
        "`$$` is one `$`",
    )
    volumes: Volumes | None = Field(
        default=None,
        description="volumes: name to `{pvc: claim}`, `{config_map: name}`, `{secret: name}`, `{empty_dir: 10Gi}`, "
        "`{host_path: /path}` or any source of Kubernetes; or Kubernetes' list",
    )
    volume_mounts: VolumeMounts | None = Field(
        default=None, description="absolute path to a volume's name or to `{volume, read_only, sub_path}`; or a list"
    )
    node_selector: Labels | None = Field(default=None, description="labels of the nodes that the pods may run on")
    tolerations: Tolerations | None = Field(default=None, description="Kubernetes' tolerations")
    affinity: Affinity | None = Field(default=None, description="Kubernetes' affinity")
    resources: PodResources | None = Field(default=None, description="CPUs, memory, GPUs")
    retry_strategy: RetryStrategy | None = Field(
        default=None, description="what Argo does where a pod fails, instead of what the DAG says"
    )
    timeout: Seconds | None = Field(
        default=None,
        description="longest time of a pod, seconds or `2h`, instead of the limit that the export takes from the DAG",
    )
    priority_class_name: ObjectName | None = Field(default=None, description="Kubernetes' priority class of the pods")
    security_context: PodSecurityContext | None = Field(
        default=None, description="Kubernetes' security context of the pod"
    )
    container_security_context: SecurityContext | None = Field(
        default=None, description="Kubernetes' security context of the task's container"
    )
    init_containers: Containers | None = Field(
        default=None, description="Kubernetes' containers that run before the task's: a list, or a mapping by name"
    )
    sidecars: Containers | None = Field(
        default=None, description="Kubernetes' containers that run beside the task's: a list, or a mapping by name"
    )
    service_account: ObjectName | None = Field(default=None, description="service account of the pods")
    scheduler_name: Text | None = Field(default=None, description="Kubernetes' scheduler of the pods")
    pod_spec_patch: PodSpecPatch | None = Field(
        default=None,
        description="strategic merge patch of the pod's spec, a mapping or YAML text; the container is `main`",
    )

    @classmethod
    def _unknown(cls, key: str) -> str:
        # With fifty keys the list helps only where none is near.
        near = did_you_mean(key, cls.model_fields)
        return f"unknown key{near}" if near.endswith("?") else super()._unknown(key)

    def layer(self) -> dict[str, Any]:
        """Return what is said of pods, nulls included, in the form that layers are merged in."""
        said = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        said = {name: value for name, value in said.items() if name in PodOverrides.model_fields and name != "secrets"}
        for name in ("resources", "retry_strategy"):
            if said.get(name) is not None:
                said[name] = said[name].layer()
        return said


class PodOverrides(PodKeys):
    """What is said of the pods of one group or task; null takes an inherited value away."""

    renamed = {"pod_labels": "labels", "pod_annotations": "annotations"}  # noqa: RUF012

    labels: Labels | None = Field(default=None, description="labels of the pods")
    annotations: Annotations | None = Field(default=None, description="annotations of the pods")
    secrets: NeededSecrets | None = Field(
        default=None,
        description="variables from Secrets that these tasks need: names that `secrets` at the top declares, or name "
        "to `{name: Secret, key: its key}`",
    )
    env_from: EnvFrom | None = Field(
        default=None, description="Secrets and ConfigMaps whose keys all become environment variables"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a variable that has two values, and a null that would take nothing away."""
        if "secrets" in self.model_fields_set and self.secrets is None:
            yield (
                ("secrets",),
                "null takes nothing away here: name the variables, {NAME: null}, or say env: null for all",
            )
        yield from said_twice(self.env, self.secrets)

    def layer_with(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        """Return the layer with the variables that are needed.

        :param declared: Kubernetes' entries by name, for those that are needed by name alone.
        """
        said = self.layer()
        needed = {name: declared.get(name) if entry == NAMED else entry for name, entry in (self.secrets or {}).items()}
        if needed:
            said["env"] = {**(said.get("env") or {}), **needed}
        return said


def said_twice(env: Mapping[str, Any] | None, secrets: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Yield the variables that are in both."""
    for name in env or {}:
        if name in (secrets or {}):
            yield ("secrets", name), "is in env as well: say it once"


class PodSettings:
    """What the settings say of the pods of one task, merged, in Kubernetes' shape.

    Example::

        pod = settings.pod_for("node.tune", ["node"])
        pod.container_fields()["resources"]     # {'requests': {'cpu': '8'}, 'limits': {'cpu': '8'}}
    """

    def __init__(self, layer: Layer, workflow: Layer) -> None:
        """Take a merged layer, and what the workflow says for every pod that says nothing itself."""
        self._own = without_nulls(layer)
        self._workflow = workflow

    @property
    def image(self) -> str:
        """The image of the task's container."""
        return str(self._own.get("image", DEFAULT_IMAGE))

    def container_fields(self) -> dict[str, Any]:
        """Return the fields of the container that the settings decide, none of them empty.

        `command` is there only where it is not `raynode`.
        """
        own = self._own
        return _given(
            {
                "image": self.image,
                "imagePullPolicy": own.get("image_pull_policy", DEFAULT_PULL_POLICY),
                "command": own.get("command"),
                "env": _listed("name", own.get("env")),
                "envFrom": own.get("env_from"),
                "resources": resource_fields(own.get("resources") or {}),
                "volumeMounts": _listed("mountPath", own.get("volume_mounts")),
                "securityContext": own.get("container_security_context"),
            }
        )

    def template_fields(self) -> dict[str, Any]:
        """Return the fields of the Argo template that the settings decide, none of them empty."""
        own = self._own
        metadata = _given({"labels": own.get("labels"), "annotations": own.get("annotations")})
        return _given(
            {
                "metadata": metadata,
                "serviceAccountName": self._unless_workflows("service_account"),
                "schedulerName": self._unless_workflows("scheduler_name"),
                "priorityClassName": own.get("priority_class_name"),
                "nodeSelector": own.get("node_selector"),
                "tolerations": own.get("tolerations"),
                "affinity": own.get("affinity"),
                "securityContext": own.get("security_context"),
                "volumes": _listed("name", own.get("volumes")),
                "initContainers": _listed("name", own.get("init_containers")),
                "sidecars": _listed("name", own.get("sidecars")),
                "activeDeadlineSeconds": own.get("timeout"),
                "retryStrategy": own.get("retry_strategy"),
                "podSpecPatch": own.get("pod_spec_patch"),
            }
        )

    def problems(self) -> Iterator[Problem]:
        """Yield what of the merged pod Kubernetes would refuse."""
        for loc, message in resource_problems(self._own.get("resources") or {}):
            yield ("resources", *loc), message
        if "volumes" in self._own.get("pod_spec_patch", ""):
            return
        known = {CLAIM, *(self._own.get("volumes") or {})}
        for path, mount in (self._own.get("volume_mounts") or {}).items():
            if mount["name"] not in known:
                yield (
                    ("volume_mounts", path),
                    f"there is no volume {mount['name']!r}{did_you_mean(mount['name'], known)}",
                )

    def plain_env(self) -> dict[str, Any]:
        """Return the entries of the container's environment, by name."""
        return dict(self._own.get("env") or {})

    def mount_paths(self) -> list[str]:
        """Return the paths where volumes are mounted."""
        return list(self._own.get("volume_mounts") or {})

    def mount_at(self, path: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the mount that a path of the pods lies in, and its volume; None where it lies in none."""
        inside = [each for each in self.mount_paths() if f"{path}/".startswith(f"{each.rstrip('/')}/")]
        if not inside:
            return None
        at = max(inside, key=len)
        mount = self._own["volume_mounts"][at]
        return {"mountPath": at, **mount}, (self._own.get("volumes") or {}).get(mount["name"]) or {}

    def _unless_workflows(self, name: str) -> str | None:
        own, all_pods = self._own.get(name), self._workflow.get(name)
        if own == all_pods:
            return None
        return str(own or _CLUSTER_DEFAULTS[name])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PodSettings) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> str:
        return json.dumps([self.container_fields(), self.template_fields()])


def _listed(key: str, entries: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{key: name, **body} for name, body in (entries or {}).items()]


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {} and value != []}
