"""A DAG as Argo manifests: the scopes of `graph`, the pods of `templates`, the schedule, the settings."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.conditions import (
    depends_after,
    depends_of,
    gate_depends,
    indexes_of,
    when_after,
    when_of,
)
from airflow_provider_raynode.argo.expansion import INDEXES
from airflow_provider_raynode.argo.graph import Node, Scope, build_scopes
from airflow_provider_raynode.argo.names import (
    EMPTY,
    ENTRY,
    GATE,
    GROUP_PREFIX,
    ON_EXIT,
    RAY_JOB_SUFFIX,
    argo_names,
    label_value,
    template_names,
    workflow_name,
)
from airflow_provider_raynode.argo.node_tasks import fan_out_of, is_execution
from airflow_provider_raynode.argo.pod_fields import pod_fields, without_fields
from airflow_provider_raynode.argo.ray_job import INDEX as RAY_JOB_INDEX
from airflow_provider_raynode.argo.ray_job import OUTPUTS as RAY_JOB_OUTPUTS
from airflow_provider_raynode.argo.ray_job import ray_job_of, resource_template
from airflow_provider_raynode.argo.run_info import param_value
from airflow_provider_raynode.argo.run_source import LOGICAL_DATE, literal_text, run_source
from airflow_provider_raynode.argo.schedule import Kind, Schedule
from airflow_provider_raynode.argo.shape import has_default
from airflow_provider_raynode.argo.structure import structure_hash
from airflow_provider_raynode.argo.template_defaults import defaults_for, without_defaults
from airflow_provider_raynode.argo.templates import (
    INDEX_LABEL,
    MAX_ACTIVE_RUNS,
    OUTPUTS,
    TASK_LABEL,
    Templates,
    Use,
    inputs_of,
    semaphore_of,
)
from airflow_provider_raynode.argo.yaml_writer import Commented

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.settings import ArgoSettings

_API = "argoproj.io/v1alpha1"
_KINDS = {"workflow": "Workflow", "template": "WorkflowTemplate", "cron": "CronWorkflow"}
_RUN_ID = "{{workflow.name}}.{{workflow.uid}}"
DAG_LABEL, DATE_LABEL = "raynode/dag-id", "raynode/logical-date"
_STEP, _INDEX = "{{inputs.parameters.step}}", "{{inputs.parameters.index}}"


def compile_dag(
    dag: DAG,
    schedule: Schedule,
    settings: ArgoSettings,
    *,
    kind: Kind,
    pipeline_file: str,
    dags_folder: str = "",
    ray_jobs: bool = False,
    record_runs: bool = False,
) -> list[dict[str, Any]]:
    """Return the manifests of a DAG: the workflow, and a ConfigMap of its semaphores where it has some.

    :param pipeline_file: path of the DAG file in the pods.
    :param dags_folder: path there of the folder that its imports begin in; empty: the file's own.
    :param ray_jobs: whether the job of a Ray node is a RayJob that Argo creates.
    :param record_runs: whether an exit handler records that a run succeeded, for prev_…_success of later ones.
    """
    place = [f"--pipeline-file={literal_text(pipeline_file)}"]
    if dags_folder and dags_folder != posixpath.dirname(pipeline_file):
        place.append(f"--dags-folder={literal_text(dags_folder)}")
    return _Compiler(dag, schedule, settings, kind, place, ray_jobs, record_runs).manifests()


class _Compiler:
    def __init__(
        self,
        dag: DAG,
        schedule: Schedule,
        settings: ArgoSettings,
        kind: Kind,
        place: list[str],
        ray_jobs: bool,
        record_runs: bool,
    ) -> None:
        self._dag = dag
        self._ray_jobs = ray_jobs
        self._record_runs = record_runs
        self._ray_templates: dict[str, dict[str, Any]] = {}
        self._schedule = schedule
        self._settings = settings
        self._kind = kind
        self._structure = structure_hash(dag)
        self._name = settings.name or workflow_name(dag.dag_id, cron=kind == "cron")
        self._config_map = settings.pools_config_map or f"{self._name}-limits"
        self._common = [*place, f"--dag-id={dag.dag_id}"]
        if settings.configuration_file:
            self._common.append(f"--configuration-file={literal_text(settings.configuration_file)}")
        self._run = [
            f"--run-id={_RUN_ID}",
            "--run-after={{workflow.creationTimestamp.RFC3339}}",
            f"--structure={self._structure}",
        ]
        if record_runs:
            self._run.append("--record-runs")
        if kind == "cron":
            self._run.insert(2, "--scheduled-time={{workflow.scheduledTime}}")
        self._scopes = build_scopes(dag)
        self._templates = Templates(
            dag,
            settings,
            [
                *self._common,
                "--step-name={{inputs.parameters.step}}",
                "--map-index={{inputs.parameters.index}}",
                *self._run,
                "--decide={{inputs.parameters.decide}}",
                f"--outputs={OUTPUTS}",
            ],
            self._config_map,
            ray_jobs=ray_jobs,
        )

    def manifests(self) -> list[dict[str, Any]]:
        templates = [self._scope_template(scope, self._dag_tasks(scope)) for scope in self._scopes]
        pods = [self._pod_template(name, *found) for name, found in self._templates.found().items()]
        pods += self._ray_templates.values()
        if self._ends():
            pods.append(self._on_exit())
        everywhere, pods = self._said_once(pods)
        templates += pods
        if any(node.podless for scope in self._scopes for node in scope.nodes) or any(s.gate for s in self._scopes):
            body = {"name": EMPTY, "inputs": {"parameters": [{"name": "step", "value": ""}]}}
            templates.append(Commented({**body, "suspend": {"duration": "0"}}, "Nothing to do: no pod."))
        return [self._workflow(self._spec(everywhere, templates)), *self._limits()]

    def _said_once(self, pods: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """Return what the spec says of all pods, and the templates of the pods without it."""
        scripts = [each.value for each in pods if "script" in _plain(each)]
        fields, defaults = pod_fields(
            self._settings.pod_for("", ()).template_fields(),
            scripts,
            # The pods of RayJobs are Argo's own: what is said of ours would reach them too.
            with_containers=not self._ray_jobs,
        )
        labels = {"metadata": {"labels": {TASK_LABEL: _STEP, INDEX_LABEL: _INDEX}}}
        wanted = {**defaults, "script": self._templates.default_script()}
        shared = {**labels, **defaults_for(wanted, scripts)}
        fields["podMetadata"] = {
            **fields.get("podMetadata", {}),
            "labels": {DAG_LABEL: label_value(self._dag.dag_id), **fields.get("podMetadata", {}).get("labels", {})},
        }
        fields["templateDefaults"] = Commented(
            shared,
            "What the templates have in common; each says what differs. A script's source is the run's params, a file\n"
            "that is the program's last argument.",
        )
        stripped: list[Any] = []
        for each in pods:
            rest = without_defaults(without_fields(_plain(each), fields), shared)
            stripped.append(replace(each, value=rest) if isinstance(each, Commented) else rest)
        return fields, stripped

    def _labelled(self, template: dict[str, Any], task_id: str) -> dict[str, Any]:
        """Return the template of a RayJob with the inputs that the labels of its pod are made from."""
        given = template["inputs"]["parameters"]
        inputs = [{"name": "step", "value": task_id}, *given]
        if not any(each["name"] == "index" for each in given):
            inputs.insert(1, {"name": "index", "value": ""})
        found = {**template, "inputs": {**template["inputs"], "parameters": inputs}}
        if label_value(task_id) != task_id:
            metadata = found.get("metadata", {})
            labels = {**metadata.get("labels", {}), TASK_LABEL: label_value(task_id)}
            found["metadata"] = {**metadata, "labels": labels}
        return found

    # -- the workflow ----------------------------------------------------------------------------------------------

    def _workflow(self, spec: dict[str, Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self._name}
        if self._kind == "workflow":
            metadata = {"generateName": f"{self._name[:57].rstrip('-.')}-"}
        metadata |= self._settings.metadata_fields()
        annotations = {
            DAG_LABEL: self._dag.dag_id,
            "raynode/structure": self._structure,
            **_description(self._dag),
            **metadata.get("annotations", {}),
        }
        metadata["annotations"] = annotations
        manifest = {"apiVersion": _API, "kind": _KINDS[self._kind], "metadata": metadata}
        if self._kind != "cron":
            return {**manifest, "spec": spec}
        source = "".join(f" {each!r}" for each in self._schedule.source)
        crons = Commented(list(self._schedule.crons), f"Airflow: {type(self._dag.timetable).__name__}{source}")
        # Without a zone, Argo takes the one of its controller.
        cron: dict[str, Any] = {"schedules": crons, "timezone": self._schedule.timezone}
        if self._schedule.when:
            cron["when"] = Commented(self._schedule.when, "Airflow: start_date, end_date")
        return {**manifest, "spec": {**cron, **self._settings.cron_fields(), "workflowSpec": spec}}

    def _spec(self, everywhere: Mapping[str, Any], templates: list[Any]) -> dict[str, Any]:
        spec: dict[str, Any] = {"entrypoint": ENTRY}
        if self._ends():
            spec["onExit"] = ON_EXIT
        spec["arguments"] = {"parameters": list(self._parameters())}
        spec["parallelism"] = self._dag.max_active_tasks
        if self._dag.dagrun_timeout is not None:
            spec["activeDeadlineSeconds"] = Commented(
                round(self._dag.dagrun_timeout.total_seconds()), "Airflow: dagrun_timeout"
            )
        if self._limits_runs():
            reference = {"name": self._config_map, "key": MAX_ACTIVE_RUNS}
            spec["synchronization"] = {"semaphores": [{"configMapKeyRef": reference}]}
        spec["workflowMetadata"] = self._run_metadata()
        return {**spec, **self._settings.workflow_fields(), **everywhere, "templates": templates}

    def _run_metadata(self) -> dict[str, Any]:
        """Return what each run bears, so that `argo list -l` finds it."""
        return {
            "labels": {DAG_LABEL: label_value(self._dag.dag_id)},
            "labelsFrom": {DATE_LABEL: {"expression": _date_label(self._kind)}},
            "annotations": {DAG_LABEL: self._dag.dag_id},
        }

    def _parameters(self) -> Iterable[Any]:
        yield Commented(
            {"name": LOGICAL_DATE, "value": ""},
            "ISO date of the run, for one of the past; empty: the scheduled time, or that of the submission",
        )
        for name in self._dag.params:
            param = self._dag.params.get_param(name)
            found: dict[str, Any] = {"name": name}
            if has_default(param):
                found["value"] = self._param_text(name, param.value)
            if param.schema.get("enum"):
                found["enum"] = [self._param_text(name, each) for each in param.schema["enum"]]
            if param.description and "{{" not in param.description:
                found["description"] = " ".join(param.description.split())
            yield found

    def _param_text(self, name: str, value: Any) -> str:
        """Return a param's value as Argo's form shows it: text as it is where the pods read it as that, else JSON."""
        is_plain = isinstance(value, str) and value.isprintable() and "{{" not in value
        return str(value) if is_plain and param_value(self._dag, name, value) == value else _json(value)

    def _limits_runs(self) -> bool:
        from airflow.sdk.configuration import conf

        return bool(self._dag.max_active_runs != conf.getint("core", "max_active_runs_per_dag", fallback=16))

    def _limits(self) -> Iterable[dict[str, Any]]:
        """Yield the ConfigMap of the semaphores' sizes, where the DAG has limits that Airflow would hold."""
        pools = {task.pool for task in self._dag.tasks} & set(self._settings.pools)
        keys = self._templates.semaphore_keys
        sizes = {keys[pool]: str(self._settings.pools[pool]) for pool in sorted(pools)}
        for task in self._dag.tasks:
            if task.max_active_tis_per_dag is not None:
                sizes[keys[semaphore_of(task)]] = str(task.max_active_tis_per_dag)
        if self._limits_runs():
            sizes[MAX_ACTIVE_RUNS] = str(self._dag.max_active_runs)
        if sizes:
            metadata: dict[str, Any] = {"name": self._config_map}
            if self._settings.namespace:
                metadata["namespace"] = self._settings.namespace
            yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": sizes}

    # -- templates -------------------------------------------------------------------------------------------------

    def _scope_template(self, scope: Scope, tasks: list[Any]) -> Any:
        body: dict[str, Any] = {"failFast": False, "tasks": tasks}
        if scope.id is None:
            body["tasks"] = Commented(tasks, "In depends, `a` has succeeded or was skipped; `a || !a` has ended.")
            return {"name": ENTRY, "dag": body}
        inputs = {"parameters": [{"name": "step", "value": scope.id}, {"name": "index"}]}
        name = self._group_template(scope.name)
        return Commented({"name": name, "inputs": inputs, "dag": body}, f"One map index of the group {scope.id}.")

    def _group_template(self, name: str) -> str:
        return f"{GROUP_PREFIX}{template_names(self._dag)[name]}"

    def _pod_template(self, name: str, body: dict[str, Any], shown: str) -> Any:
        rest = {field: value for field, value in body.items() if field not in ("outputs", "script")}
        return Commented(
            {
                "name": name,
                "inputs": {"parameters": inputs_of(body)},
                "outputs": body["outputs"],
                **rest,
                "script": body["script"],
            },
            shown,
        )

    def _has_callbacks(self) -> bool:
        return bool(self._dag.has_on_success_callback or self._dag.has_on_failure_callback)

    def _ends(self) -> bool:
        """Whether there is something to do when the workflow ends: callbacks, RayJobs that may still run."""
        return self._needs_dag_at_exit() or bool(self._ray_templates)

    def _needs_dag_at_exit(self) -> bool:
        return self._has_callbacks() or self._record_runs

    def _on_exit(self) -> Any:
        """Return the exit handler: one pod, since some releases of Argo end a DAG there after its first task.

        That is after `argo stop`, which is what it is for.
        """
        pod = self._settings.pod_for_exit()
        container = pod.container_fields()
        program = container.pop("command", None) or ["raynode"]
        fields = {key: value for key, value in pod.template_fields().items() if key != "retryStrategy"}
        args, uid, comments = ["--status={{workflow.status}}"], "{{workflow.uid}}", []
        command = "run-callbacks" if self._needs_dag_at_exit() else "end-ray-jobs"
        if self._ray_templates:
            comments.append("Ends the RayJobs that still run: after `argo stop`, for one.")
            args.append(f"--end-ray-jobs={uid}" if self._needs_dag_at_exit() else f"--workflow-uid={uid}")
        if self._record_runs:
            comments.append("Records that the run succeeded: later runs ask for it.")
        if self._has_callbacks():
            comments.append("The DAG's on_success_callback and on_failure_callback.")
        if self._needs_dag_at_exit():
            args = [*self._common, *self._run, *args]
        body = {"command": [*program, "argo", command], "args": args, **container}
        pod_of = (
            {"script": {**body, "source": run_source(self._dag)}} if self._needs_dag_at_exit() else {"container": body}
        )
        labels = {**fields.get("metadata", {}).get("labels", {}), TASK_LABEL: "", INDEX_LABEL: ""}
        fields["metadata"] = {**fields.get("metadata", {}), "labels": labels}
        token = self._token() if self._ray_templates else {}
        return Commented({"name": ON_EXIT, **fields, **token, **pod_of}, " ".join(comments))

    def _token(self) -> dict[str, Any]:
        """Return what gives a pod that talks to Kubernetes its token, where the settings leave the pods without."""
        return {"automountServiceAccountToken": True} if self._settings.automount_service_account_token is False else {}

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _dag_tasks(self, scope: Scope) -> list[Any]:
        tasks: list[Any] = []
        for node in scope.nodes:
            if self._ray_jobs and node.kind == "task" and is_execution(self._dag.task_dict[node.id]):
                tasks += self._ray_job_tasks(node, scope)
            else:
                tasks.append(self._dag_task(node, scope))
        if scope.gate is not None:
            body = {"name": GATE, "template": EMPTY, "depends": gate_depends(scope.gate)}
            comment = (
                "The state of the run: omitted, and with it failed, where a task that counts in Airflow has failed."
            )
            tasks.append(Commented(body, comment))
        return tasks

    def _dag_task(self, node: Node, scope: Scope) -> Any:
        use = self._template(node)
        body: dict[str, Any] = {"name": node.name, "template": use.template}
        if arguments := {**self._arguments(node, scope), **use.arguments}:
            body["arguments"] = {"parameters": [{"name": key, "value": value} for key, value in arguments.items()]}
        if depends := depends_of(node):
            body["depends"] = depends
        if when := when_of(node):
            body["when"] = when
        body |= _loop(node)
        return Commented(body, self._comment(node))

    def _ray_job_tasks(self, node: Node, scope: Scope) -> list[Any]:
        """Return the RayJob of a Ray node, and the node's execution task, which waits for it."""
        task = self._dag.task_dict[node.id]
        source = fan_out_of(task)
        fan_out = argo_names(self._dag)[source.task_id]
        name = f"{node.name}{RAY_JOB_SUFFIX}"
        in_group = scope.id is not None
        # As that of the exit handler: what the settings give a task is for its own work.
        container = self._settings.pod_for("", ()).container_fields()
        fields, timeout_s = self._templates.of_ray_job(task)
        template = f"{template_names(self._dag)[node.name]}{RAY_JOB_SUFFIX}"
        body = resource_template(
            template,
            task,
            *ray_job_of(self._dag, source),
            container,
            fields={**fields, **self._token()},
            timeout_s=timeout_s,
            in_group=in_group,
        )
        self._ray_templates[template] = self._labelled(body, node.id)
        outputs = f"tasks.{fan_out}.outputs.parameters"
        parameters = [{"name": each, "value": f"{{{{{outputs}.{each}}}}}"} for each in RAY_JOB_OUTPUTS]
        if in_group:
            parameters.append({"name": RAY_JOB_INDEX, "value": "{{inputs.parameters.index}}"})
        job = {
            "name": name,
            "template": template,
            "arguments": {"parameters": parameters},
            "depends": depends_after(node, fan_out),
            "when": when_after(node, fan_out),
        }
        collect = self._dag_task(replace(node, waits=(*node.waits, name)), scope)
        return [Commented(job, f"{node.id}: the job itself, a RayJob of KubeRay"), collect]

    def _template(self, node: Node) -> Use:
        if node.kind == "group":
            return Use(self._group_template(node.name))
        if node.podless:
            return Use(EMPTY)
        if node.id not in self._dag.task_dict:
            return self._templates.of_plan(self._dag.task_group_dict[node.id])
        return self._templates.of_task(self._dag.task_dict[node.id], plan=node.kind in ("plan", "order"))

    def _arguments(self, node: Node, scope: Scope) -> dict[str, str]:
        if node.kind == "group":
            return {"index": "{{item}}"}
        arguments = {"step": node.id}
        if node.podless:
            return arguments
        if node.expansion is not None and node.kind != "order":
            arguments["index"] = "{{item}}"
        elif scope.id is not None:
            arguments["index"] = _INDEX
        if node.decided_in_pod and node.kind != "plan":
            arguments["decide"] = "pod"
        return arguments

    def _comment(self, node: Node) -> str:
        if node.kind == "plan":
            return f"Counts the map indexes of {node.id}."
        if node.kind == "order":
            return f"Runs where one thing before {node.id} was skipped and another failed: which came first?"
        if node.kind == "group":
            return f"{node.id}: mapped task group"
        task = self._dag.task_dict[node.id]
        rule = "" if node.rule in ("all_success", "plan") else f", {node.rule}"
        decided = ", decided in its pod" if node.decided_in_pod else ""
        return f"{node.id}: {task.operator_name}{', mapped' if task.is_mapped else ''}{rule}{decided}"


def _plain(template: Any) -> dict[str, Any]:
    return dict(template.value if isinstance(template, Commented) else template)


def _loop(node: Node) -> dict[str, Any]:
    expansion = node.expansion
    if expansion is None or node.kind == "order":
        return {}
    if expansion.kind == "literal":
        # Argo takes no empty withItems; an empty withParam skips the node.
        return {"withItems": list(range(expansion.length))} if expansion.length else {"withParam": "[]"}
    output = INDEXES if expansion.kind == "plan" else expansion.output
    if node.order:
        return {"withParam": indexes_of(expansion.source, output)}
    return {"withParam": f"{{{{tasks.{expansion.source}.outputs.parameters.{output}}}}}"}


def _date_label(kind: Kind) -> str:
    """Return the expression of the label with a run's date, of which only what a label may hold is left.

    Argo fails a workflow whose label is none.
    """
    date = f"workflow.parameters['{LOGICAL_DATE}']"
    if kind == "cron":
        scheduled = "workflow.scheduledTime == nil ? '' : workflow.scheduledTime"
        date = f"{date} == '' ? ({scheduled}) : {date}"
    plain = f"sprig.regexReplaceAll('[^0-9A-Za-z_.-]+', {date}, '-')"
    return f"sprig.regexFind('[0-9A-Za-z]([0-9A-Za-z_.-]{{0,61}}[0-9A-Za-z])?', {plain})"


def _json(value: Any) -> str:
    """Return a param's value as JSON that any tool can show, and in which Argo finds no template tag."""
    text = json.dumps(value, ensure_ascii=False, default=str).replace("{{", "\\u007b\\u007b")
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _description(dag: DAG) -> Mapping[str, str]:
    text = " ".join((dag.description or "").split())
    return {"workflows.argoproj.io/description": text} if text and "{{" not in text else {}
