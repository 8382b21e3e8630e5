"""The sections of the settings that are about the workflow, and the file as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

from airflow_provider_raynode.argo.run_source import literal_text
from airflow_provider_raynode.argo.settings._connections import (
    catalog_connection,
    connection_variable,
    storage_prefixes,
)
from airflow_provider_raynode.argo.settings._environment import (
    NAMED,
    DeclaredSecrets,
    SharedEnvFrom,
    is_secret,
    plain_secrets,
    without_secrets,
)
from airflow_provider_raynode.argo.settings._literal import LabelSelector
from airflow_provider_raynode.argo.settings._merge import Layer, merged
from airflow_provider_raynode.argo.settings._words import (
    AbsolutePath,
    Annotations,
    Duration,
    LabelName,
    Labels,
    ObjectName,
    Seconds,
    WorkflowName,
    brace_problems,
)
from airflow_provider_raynode.argo.settings.dag_source import DagSource, ImageSource
from airflow_provider_raynode.argo.settings.pod import (
    CATALOG_VARIABLE,
    CLAIM,
    CLAIM_PATH,
    PodKeys,
    PodOverrides,
    PodSettings,
    said_twice,
)
from airflow_provider_raynode.config._section import (
    Problem,
    Section,
    as_validation_error,
    did_you_mean,
    path_of,
    problems_of,
)
from airflow_provider_raynode.config._values import (
    EmptyIsDefault,
    Integer,
    NonNegativeInteger,
    PositiveInteger,
    Switch,
    Text,
)
from airflow_provider_raynode.config._yaml import plain, read_yaml
from airflow_provider_raynode.exceptions import ConfigError

# Kubernetes' claim of a volume for one run. ReadWriteOnce: not every cluster has storage for several nodes at once.
_CATALOG_CLAIM = {
    "metadata": {"name": CLAIM},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


class PodGc(Section):
    """When Argo deletes the pods that have ended."""

    strategy: Literal["OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess", "Never"] = Field(
        description="after what; the word alone may stand for the section"
    )
    delete_delay_duration: Duration | None = Field(default=None, description="how long after: seconds, or `10m`")
    label_selector: LabelSelector | None = Field(
        default=None, description="Kubernetes' selector of the pods it is about"
    )

    def fields(self) -> dict[str, Any]:
        """Return Argo's `podGC`; empty where pods are kept."""
        if self.strategy == "Never":
            return {}
        found = {
            "strategy": self.strategy,
            "deleteDelayDuration": self.delete_delay_duration,
            "labelSelector": self.label_selector,
        }
        return _given(found)


# Each pod that has ended keeps a copy of Argo's executor, 160 MB, on its node. One that has failed is looked at.
_POD_GC = PodGc(strategy="OnPodSuccess", delete_delay_duration="10m")


class TtlStrategy(Section):
    """When Argo deletes the workflow after its end."""

    seconds_after_completion: NonNegativeInteger | None = Field(default=None, description="after any end")
    seconds_after_success: NonNegativeInteger | None = Field(default=None, description="after success")
    seconds_after_failure: NonNegativeInteger | None = Field(default=None, description="after failure")

    def fields(self) -> dict[str, Any]:
        """Return Argo's `ttlStrategy`."""
        found = {
            "secondsAfterCompletion": self.seconds_after_completion,
            "secondsAfterSuccess": self.seconds_after_success,
            "secondsAfterFailure": self.seconds_after_failure,
        }
        return _given(found)


class Cron(Section):
    """What is said of a CronWorkflow; its schedule is the DAG's."""

    concurrency_policy: Literal["Allow", "Forbid", "Replace"] | None = Field(
        default=None, description="what happens where the last run is not over; as Argo: `Allow`"
    )
    starting_deadline_seconds: NonNegativeInteger | None = Field(
        default=None, description="how late a missed run may still start"
    )
    successful_jobs_history_limit: NonNegativeInteger | None = Field(
        default=None, description="succeeded runs that are kept; as Argo: 3"
    )
    failed_jobs_history_limit: NonNegativeInteger | None = Field(
        default=None, description="failed runs that are kept; as Argo: 1"
    )
    suspend: Switch | None = Field(default=None, description="whether no new run starts")

    def fields(self) -> dict[str, Any]:
        """Return the fields of Argo's CronWorkflowSpec."""
        found = {
            "concurrencyPolicy": self.concurrency_policy,
            "startingDeadlineSeconds": self.starting_deadline_seconds,
            "successfulJobsHistoryLimit": self.successful_jobs_history_limit,
            "failedJobsHistoryLimit": self.failed_jobs_history_limit,
            "suspend": self.suspend,
        }
        return _given(found)


def _strategy(value: Any) -> Any:
    return {"strategy": value} if isinstance(value, str) else value


def _empty_mapping(value: Any) -> Any:
    return {} if value is None else value


Overrides = Annotated[dict[Text, Annotated[PodOverrides, EmptyIsDefault]], BeforeValidator(_empty_mapping)]
Pools = Annotated[dict[Text, PositiveInteger], BeforeValidator(_empty_mapping)]


class ArgoSettings(PodKeys):
    """What the export needs beside the DAG: the settings file as a model. Every key may be left out.

    Example::

        settings = ArgoSettings.load("argo.yaml")
        settings.pod_for("node.tune", ["node"]).container_fields()["image"]
        settings.workflow_fields()      # {'serviceAccountName': 'raynode', …}
    """

    name: WorkflowName | None = Field(
        default=None, description="name of the workflow object; left out: from the dag id"
    )
    namespace: LabelName | None = Field(default=None, description="namespace; left out: that of `kubectl`")
    labels: Labels | None = Field(default=None, description="labels of the workflow object")
    annotations: Annotations | None = Field(default=None, description="annotations of the workflow object")
    pod_labels: Labels | None = Field(default=None, description="labels of all pods; `labels` in groups and tasks")
    pod_annotations: Annotations | None = Field(
        default=None, description="annotations of all pods; `annotations` in groups and tasks"
    )
    dag_source: Annotated[DagSource, BeforeValidator(lambda value: value or {"image": {}})] = Field(
        default_factory=lambda: DagSource(image=ImageSource()), description="where the pods have the DAG's files from"
    )
    catalog: Text | None = Field(
        default=None,
        description="absolute path or URI (s3://, gs://) of the catalog that all pods reach; "
        f"they get it as `{CATALOG_VARIABLE}`; left out: a volume that each run claims for itself",
    )
    configuration_file: AbsolutePath | None = Field(
        default=None, description="path in the pods of the task runner's configuration file"
    )
    secrets: DeclaredSecrets | None = Field(
        default=None,
        description="variables from Secrets: name to `{name: Secret, key: its key}`, for the tasks that need them; "
        "`all_pods: true` gives one to every pod",
    )
    env_from: SharedEnvFrom | None = Field(
        default=None,
        description="ConfigMaps whose keys all become environment variables of all pods; Secrets with `all_pods: true`",
    )
    image_pull_secrets: list[ObjectName] | None = Field(
        default=None, description="Secrets of image registries, by name"
    )
    automount_service_account_token: Switch | None = Field(
        default=None, description="false: the pods get no token; then executor_service_account is needed"
    )
    executor_service_account: ObjectName | None = Field(
        default=None, description="service account of Argo's own containers in the pods, instead of the pods'"
    )
    active_deadline_seconds: Seconds | None = Field(
        default=None, description="longest time of the whole workflow, instead of the DAG's dagrun_timeout"
    )
    parallelism: PositiveInteger | None = Field(
        default=None, description="pods that run at a time, instead of the DAG's max_active_tasks"
    )
    pod_gc: Annotated[PodGc | None, BeforeValidator(_strategy)] = Field(
        default=None,
        description="when the pods that have ended are deleted; left out: ten minutes after they succeeded",
    )
    ttl_strategy: TtlStrategy | None = Field(default=None, description="when the workflow is deleted after its end")
    priority: Integer | None = Field(default=None, description="Argo starts workflows of a higher one first")
    host_network: Switch | None = Field(default=None, description="whether the pods use the node's network")
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = Field(
        default=None, description="Kubernetes' DNS policy of the pods"
    )
    record_runs: Switch | None = Field(
        default=None,
        description="whether an exit handler records that a run succeeded, for `prev_data_interval_start_success` and "
        "the like; left out: where the DAG file, what it imports or its templates name one of them",
    )
    pools: Pools = Field(default_factory=dict, description="Airflow's pools: name to number of slots")
    pools_config_map: ObjectName | None = Field(
        default=None, description="name of the ConfigMap that holds their sizes; left out: from the workflow's name"
    )
    cron: Annotated[Cron, EmptyIsDefault] = Field(
        default_factory=Cron, description="what is said of a CronWorkflow beside its schedule"
    )
    on_exit: Annotated[PodOverrides, EmptyIsDefault] = Field(
        default_factory=PodOverrides, description="pod keys of the pod that runs the DAG's callbacks at the end"
    )
    groups: Overrides = Field(default_factory=dict, description="pod keys by id of a task group: for all tasks in it")
    tasks: Overrides = Field(default_factory=dict, description="pod keys by task id, groups included (`group.task`)")

    _source: str = PrivateAttr(default="settings")

    @model_validator(mode="wrap")
    @classmethod
    def _plain_text(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        found: list[Problem] = []
        if isinstance(data, Mapping):
            data = plain(data, (), found)
            found += brace_problems(data)
        try:
            settings = handler(data)
        except ValidationError as error:
            seen = {loc for loc, _ in found}
            found += [problem for problem in problems_of(error) if problem[0] not in seen]
        else:
            if not found:
                return settings
        raise as_validation_error(cls.__name__, found)

    @classmethod
    def load(
        cls, obj: Self | Mapping[str, Any] | str | PathLike[str] | None = None, *, source: str = "settings"
    ) -> Self:
        """Return the settings that `obj` is, or that the file at the path `obj` holds; None is all defaults.

        :param source: what stands in front of each line of the message where `obj` is no path.
        :raises ConfigError: one line per problem: the file, the key's path, the value, what is allowed.
        """
        if isinstance(obj, cls):
            return obj
        if isinstance(obj, str | PathLike):
            source = str(obj)
            obj = read_yaml(Path(obj), may_be_empty=True)
        elif obj is not None and not isinstance(obj, Mapping):
            raise ConfigError(f"{source}: {type(obj).__name__} is not a path, a dict or ArgoSettings")
        try:
            settings = cls.model_validate(obj or {})
        except ValidationError as error:
            raise ConfigError(_lines(source, problems_of(error))) from None
        settings._source = source
        return settings

    def problems(self) -> Iterator[Problem]:
        """Yield what does not go together, in all pods and in the pods of each override by itself."""
        yield from said_twice(self.env, self.secrets)
        yield from self._secret_problems()
        if self.catalog is not None and "://" not in self.catalog and not self.catalog.startswith("/"):
            yield ("catalog",), f"{self.catalog!r} is neither an absolute path (/…) nor a URI (s3://bucket/prefix)"
        if self.catalog is not None and CATALOG_VARIABLE in {**(self.env or {}), **(self.secrets or {})}:
            yield ("catalog",), f"{CATALOG_VARIABLE} is in env or secrets as well: say it once"
        if self.automount_service_account_token is False and self.executor_service_account is None:
            message = "is false: Argo's containers could not report; name their account in executor_service_account"
            yield ("automount_service_account_token",), message
        slots = self.dag_source.config_map
        if slots is not None and slots.create and slots.name == self.pools_config_map:
            yield ("pools_config_map",), f"{slots.name!r} is the name of dag_source.config_map as well"
        yield from PodSettings(merged([self._all_pods()]), {}).problems()

    def _secret_problems(self) -> Iterator[Problem]:
        declared = {name: each for name, each in (self.secrets or {}).items() if each is not None}
        for name, entry in (self.env or {}).items():
            if is_secret(entry):
                yield ("env", name), "comes from a Secret: declare it under secrets, for the tasks that need it"
        if CATALOG_VARIABLE in declared and not declared[CATALOG_VARIABLE].all_pods:
            yield ("secrets", CATALOG_VARIABLE), "every pod needs it: say all_pods: true"
        for where, part in self._overrides():
            for name, entry in (part.secrets or {}).items():
                if entry == NAMED and name not in declared:
                    near = did_you_mean(name, declared)
                    yield (*where, "secrets", name), f"is not declared under secrets at the top{near}"

    def _overrides(self) -> Iterator[tuple[tuple[str, ...], PodOverrides]]:
        yield ("on_exit",), self.on_exit
        yield from ((("groups", name), each) for name, each in self.groups.items())
        yield from ((("tasks", name), each) for name, each in self.tasks.items())

    # -- pods ------------------------------------------------------------------------------------------------------

    def pod_for(
        self, task_id: str, group_ids: Sequence[str], *, needs: Iterable[str] = (), runs: bool = True
    ) -> PodSettings:
        """Return what is said of a task's pods: all pods < what it needs < outer group < inner group < task.

        :param group_ids: ids of the task groups around the task, the outermost first.
        :param needs: variables that the DAG says the task needs: it gets those of them that are declared.
        :param runs: whether the pod runs the task; one that only plans gets no Secret but those of all pods.
        :raises ConfigError: the parts do not go together, such as a mount of a volume that a group took away.
        """
        declared = self._declared()
        parts = [self.groups[each] for each in group_ids if each in self.groups]
        parts += [self.tasks[task_id]] if task_id in self.tasks else []
        layers: list[Layer] = [{"env": {name: declared[name] for name in needs if name in declared}}]
        layers += [part.layer_with(declared) for part in parts]
        return self._pod(task_id, layers if runs else [without_secrets(layer) for layer in layers])

    def pod_for_exit(self) -> PodSettings:
        """Return what is said of the pod that the workflow ends with: all pods < `on_exit`."""
        return self._pod("on_exit", [self.on_exit.layer_with(self._declared())])

    def _pod(self, whose: str, layers: Iterable[Layer]) -> PodSettings:
        pod = PodSettings(merged([self._all_pods(), *layers]), self._workflow_wide())
        found = list(pod.problems())
        if found:
            raise ConfigError(_lines(f"{self._source}: the pods of {whose or 'the workflow'}", found))
        return pod

    def _declared(self) -> dict[str, Any]:
        """Return the entries of the declared variables by name."""
        return {name: each.entry() for name, each in (self.secrets or {}).items() if each is not None}

    def without_task(self, given: Iterable[str]) -> list[str]:
        """Return a warning for each declared variable that no pod has.

        :param given: variables that pods of the DAG have.
        """
        lost = [name for name in self._declared() if name not in set(given)]
        return [
            f"{self._source}: secrets.{name}: no task is said to need it, so no pod has it: name it in secrets of the "
            f"tasks or groups that do (tasks: {{my_task: {{secrets: [{name}]}}}}), or say all_pods: true"
            for name in lost
        ]

    def _all_pods(self) -> Layer:
        # There is nothing above the top for a null to take away: a key with nothing below it says nothing.
        said = {name: value for name, value in self.layer().items() if value is not None}
        # At the top these are the workflow's.
        for name in ("labels", "annotations"):
            said.pop(name, None)
            if getattr(self, f"pod_{name}") is not None:
                said[name] = getattr(self, f"pod_{name}")
        secrets = {name: each.entry() for name, each in (self.secrets or {}).items() if each and self._is_for_all(name)}
        if secrets:
            said["env"] = {**(said.get("env") or {}), **secrets}
        return merged([self.dag_source.layer(), self._catalog_layer(), said])

    def _is_for_all(self, name: str) -> bool:
        """Whether every pod has a declared variable: it is said so, or all need it to reach the catalog."""
        prefixes = storage_prefixes(self.catalog)
        is_of_catalog = name == connection_variable(catalog_connection(self.catalog)) or name.startswith(prefixes)
        return bool((self.secrets or {})[name].all_pods) or is_of_catalog

    def _catalog_layer(self) -> Layer:
        if self.claims_catalog:
            mounts = {CLAIM_PATH: {"name": CLAIM}}
            return {"env": {CATALOG_VARIABLE: {"value": CLAIM_PATH}}, "volume_mounts": mounts}
        return {} if self.catalog is None else {"env": {CATALOG_VARIABLE: {"value": literal_text(self.catalog)}}}

    @property
    def claims_catalog(self) -> bool:
        """Whether each run claims a volume of its own for the catalog, since the settings name none."""
        said = {**(self.env or {}), **(self.secrets or {})}
        elsewhere = CATALOG_VARIABLE in said or self.env_from or self.configuration_file
        return self.catalog is None and not elsewhere

    def _workflow_wide(self) -> Layer:
        return {"service_account": self.service_account, "scheduler_name": self.scheduler_name}

    def check_names(self, task_ids: Iterable[str], group_ids: Iterable[str]) -> None:
        """Check that each override is of a task or a group of the DAG.

        :raises ConfigError: one line for each that is not, with the nearest id.
        """
        found = list(self.problems_for(task_ids, group_ids))
        if found:
            raise ConfigError(_lines(self._source, found))

    def problems_for(self, task_ids: Iterable[str], group_ids: Iterable[str]) -> Iterator[Problem]:
        """Yield the overrides that are of no task and no group of the DAG."""
        tasks, groups = list(task_ids), list(group_ids)
        for name in self.tasks:
            if name in groups:
                yield ("tasks", name), "is a task group: say it under groups"
            elif name not in tasks:
                yield ("tasks", name), f"the DAG has no such task{did_you_mean(name, tasks)} {_known(tasks)}"
        for name in self.groups:
            if name in tasks:
                yield ("groups", name), "is a task: say it under tasks"
            elif name not in groups:
                yield ("groups", name), f"the DAG has no such task group{did_you_mean(name, groups)} {_known(groups)}"

    # -- the workflow ----------------------------------------------------------------------------------------------

    def metadata_fields(self) -> dict[str, Any]:
        """Return namespace, labels and annotations of the workflow object, none of them empty."""
        labels = {key: value for key, value in (self.labels or {}).items() if value is not None}
        annotations = {key: value for key, value in (self.annotations or {}).items() if value is not None}
        return _given({"namespace": self.namespace, "labels": labels, "annotations": annotations})

    def workflow_fields(self) -> dict[str, Any]:
        """Return the fields of Argo's WorkflowSpec that the settings decide, none of them empty."""
        executor = {"serviceAccountName": self.executor_service_account} if self.executor_service_account else {}
        found = {
            "serviceAccountName": self.service_account,
            "automountServiceAccountToken": self.automount_service_account_token,
            "executor": executor,
            "imagePullSecrets": [{"name": name} for name in self.image_pull_secrets or ()],
            "activeDeadlineSeconds": self.active_deadline_seconds,
            "parallelism": self.parallelism,
            "priority": self.priority,
            "schedulerName": self.scheduler_name,
            "hostNetwork": self.host_network,
            "dnsPolicy": self.dns_policy,
            "podGC": (self.pod_gc or _POD_GC).fields(),
            "ttlStrategy": self.ttl_strategy.fields() if self.ttl_strategy else {},
            "volumeClaimTemplates": [_CATALOG_CLAIM] if self.claims_catalog else [],
        }
        return _given(found)

    def cron_fields(self) -> dict[str, Any]:
        """Return the fields of Argo's CronWorkflowSpec that the settings decide, none of them empty."""
        return self.cron.fields()

    def placed(self, dag_file: Path, root: Path | None) -> Self:
        """Return the settings for a DAG file that keeps its place below a DAGs folder; None: it lies at the top."""
        return self.model_copy(update={"dag_source": self.dag_source.placed(dag_file, root)})

    def pipeline_file(self, dag_file: Path) -> str:
        """Return the path of the DAG file in the pods."""
        return self.dag_source.pipeline_file(dag_file)

    def dags_folder(self, dag_file: Path) -> str:
        """Return the DAGs folder in the pods."""
        return self.dag_source.dags_folder(dag_file)

    def manifests(self, dag_file: Path) -> list[dict[str, Any]]:
        """Return what is applied beside the workflow: the ConfigMap of the DAG's files, where the export writes it.

        :raises ConfigError: a file is missing or no text, or all are too large for a ConfigMap.
        """
        data = self.dag_source.config_map_data(dag_file)
        if not data or self.dag_source.config_map is None:
            return []
        metadata = _given({"name": self.dag_source.config_map.name, "namespace": self.namespace})
        return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}]

    def warnings(self) -> list[str]:
        """Return what is allowed and seldom meant: secrets in clear text, a catalog that is not shared."""
        found = [*self._catalog_warnings(), *self._secret_warnings(), *self._mount_warnings()]
        return [f"{self._source}: {each}" for each in found]

    def account_warnings(self) -> list[str]:
        """Return what is wrong with the account of Argo's executor: that there is none."""
        if self.service_account is not None or self.executor_service_account is not None:
            return []
        return [
            f"{self._source}: service_account: is not there: the pods run as `default` of their namespace, which may "
            "not do what Argo's executor has to: create and patch workflowtaskresults of argoproj.io; name one that may"
        ]

    def _mount_warnings(self) -> Iterator[str]:
        say = "say it under the groups and tasks that need it"
        for path, mount in (self.volume_mounts or {}).items():
            volume = (self.volumes or {}).get((mount or {}).get("name", "")) or {}
            if "secret" in volume or any("secret" in each for each in volume.get("projected", {}).get("sources") or ()):
                yield f"volume_mounts.{path}: every pod has the Secret that is mounted there: {say}"
        for name in ("init_containers", "sidecars", "pod_spec_patch"):
            if any(word in str(getattr(self, name) or "") for word in ("secretKeyRef", "secretRef")):
                yield f"{name}: every pod has the Secret that is taken there: {say}"

    def _catalog_warnings(self) -> Iterator[str]:
        pod = PodSettings(self._all_pods(), {})
        if self.claims_catalog:
            yield (
                "catalog: is not there: each run claims a volume of its own (1Gi, ReadWriteOnce: its pods run on one "
                "node), which goes with the run; name an object store, or the path of a mounted volume"
            )
        elif self.catalog is not None and self.catalog.startswith("/"):
            inside = [path for path in pod.mount_paths() if f"{self.catalog}/".startswith(f"{path.rstrip('/')}/")]
            if not inside:
                yield f"catalog: no volume is mounted at {self.catalog}: each pod would have a folder of its own"

    def _secret_warnings(self) -> Iterator[str]:
        parts: list[tuple[str, PodKeys]] = [("", self)]
        parts += [(f"groups.{name}.", each) for name, each in self.groups.items()]
        parts += [(f"tasks.{name}.", each) for name, each in self.tasks.items()]
        for where, part in parts:
            for place, env in _environments(part):
                for name in plain_secrets(env):
                    yield (
                        f"{where}{place}.{name}: looks like a secret, and stands in clear text in the workflow: "
                        "put it into a Secret and name that under secrets"
                    )


def _environments(part: PodKeys) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "env", part.env or {}
    for kind in ("init_containers", "sidecars"):
        for name, container in (getattr(part, kind) or {}).items():
            entries = (container or {}).get("env") or []
            yield f"{kind}.{name}.env", {each["name"]: each for each in entries}


def _known(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"it has: {shown or 'none'}"


def _lines(source: str, problems: Iterable[Problem]) -> str:
    lines = (f"{source}: {path_of(loc)}: {message}" if loc else f"{source}: {message}" for loc, message in problems)
    return "\n".join(dict.fromkeys(lines))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {} and value != []}
