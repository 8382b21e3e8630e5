"""Executes templates (executeTemplate in operator.go): one call of one template becomes one node."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from argo_simulator import resources, retries
from argo_simulator.conditions import seconds
from argo_simulator.documents import Submission, any_string
from argo_simulator.errors import TemplateError, Unsupported
from argo_simulator.expressions import go_json
from argo_simulator.graph import Graph
from argo_simulator.locks import Locks
from argo_simulator.nodes import Node, Try
from argo_simulator.pods import Outcome, Pod, PodRunner, pod_spec
from argo_simulator.substitution import replace, tags_of
from argo_simulator.turns import Turns
from argo_simulator.validation import inputs_with_values, template_type

_KINDS = {"container": "Pod", "script": "Pod", "resource": "Pod", "dag": "DAG", "steps": "Steps", "suspend": "Suspend"}
_MOST_NAME, _MOST_CONFIG_MAP = 253, 1 << 20
# What of workflow and template a pod's name keeps (ensurePodNamePrefixLength): room for a hash of ten digits.
_POD_PREFIX = _MOST_NAME - 10 - 1
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DEADLINE = "Step exceeded its deadline"
_RESOURCE_POLL_S = 0.1


@dataclass(frozen=True)
class Call:
    """One call of a template.

    :ivar role: `tasks` or `steps` for a call from a DAG or from steps, else empty.
    :ivar at_exit: whether it is part of the exit handler, which a deadline or `argo stop` does not hinder.
    """

    template: str
    arguments: list[dict[str, Any]]
    path: str
    name: str
    boundary: str = ""
    role: str = ""
    task: str = ""
    at_exit: bool = False


@dataclass
class Settings:
    """What a simulation was given beside the workflow."""

    runner: PodRunner
    workdir: Path
    max_pods: int
    time_scale: float
    resource_handler: Callable[[dict[str, Any], str], Any] | None
    lose_pod: Callable[[str, int], str | None] | None
    order: int | None = None


class Walk:
    """One run's state."""

    def __init__(self, submission: Submission, settings: Settings) -> None:
        self.submission = submission
        self.settings = settings
        self.graph = Graph()
        self.variables: dict[str, Any] = dict(submission.variables)
        self.chance = None if settings.order is None else random.Random(settings.order)
        self.locks = Locks(submission.config_maps, self.chance)
        self.unresolved: list[tuple[str, str]] = []
        self.kept: dict[str, Node] = {}
        self.shutdown = ""  # Stop or Terminate
        self.deadline_passed = False
        # Set while pods are to end; those of the exit handler have one of their own.
        self.stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stop_at_exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.running_pods = 0
        self.most_pods = 0
        limits = [settings.max_pods, int(submission.spec.get("parallelism") or settings.max_pods)]
        self._slots = {"pods": min(limits)}
        self._turns = Turns(self.chance)
        self._pods = 0

    def template(self, name: str) -> dict[str, Any]:
        return self.submission.templates[name]

    def add(self, call: Call, kind: str, *, retried: bool = False) -> Node:
        return self.graph.add(
            Node(call.path, call.name, kind, template=call.template, boundary=call.boundary, retried=retried)
        )

    def skipped(self, call: Call, phase: str, message: str) -> Node:
        """Make the node of a call that is not executed."""
        return self.add(call, "Skipped").end(phase, message)

    async def execute(self, call: Call) -> Node:
        """Execute a template to its end; what an earlier run of the same workflow has kept is not executed again."""
        if call.name in self.kept:
            return self.graph.add(self.kept[call.name])
        try:
            template = self._processed(call)
        except TemplateError as error:
            return self.skipped(call, "Error", f"task '{call.name}' errored: {error}" if call.role else str(error))
        try:
            async with self.locks.hold(template.get("synchronization")):
                if template.get("retryStrategy") is not None:
                    return await self._retry(call, template)
                return await self._once(call, template)
        except TemplateError as error:
            node = self.graph.nodes.get(call.name) or self.add(call, "Skipped")
            return node.end("Error", str(error))

    def _processed(self, call: Call) -> dict[str, Any]:
        """Return a template with its inputs' values and tags replaced (ProcessArgs)."""
        template = self.template(call.template)
        inputs = inputs_with_values(template, call.arguments)
        template = {**template, "inputs": {"parameters": inputs}} if inputs else template
        variables = {"node.name": call.name}
        if call.role:
            # Makes a mapping `tasks` known to every expression of a template that a DAG calls.
            variables[f"{call.role}.name"] = call.task
        if "retryStrategy" not in template and _KINDS[template_type(template)] == "Pod":
            variables["pod.name"] = self.pod_name(call)
        return self._substituted(template, variables)

    def _substituted(self, template: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Replace the globals first, then the inputs: an expression that needs both at once stays as it is."""
        template = replace(template, {**self.variables, **variables})
        parameters = (template.get("inputs") or {}).get("parameters") or []
        found = {f"inputs.parameters.{each['name']}": each["value"] for each in parameters}
        found["inputs.parameters"] = json.dumps(parameters)
        for each in (template.get("outputs") or {}).get("parameters") or []:
            if path := (each.get("valueFrom") or {}).get("path"):
                found[f"outputs.parameters.{each['name']}.path"] = path
        return dict(replace(template, found))

    async def _once(self, call: Call, template: dict[str, Any], *, retried: bool = False, number: int = 0) -> Node:
        kind = template_type(template)
        node = self.add(call, _KINDS[kind], retried=retried)
        parameters = (template.get("inputs") or {}).get("parameters") or []
        node.inputs = {each["name"]: each["value"] for each in parameters}
        try:
            await self._run(kind, node, call, template, number)
        except TemplateError as error:
            node.end("Error", str(error))
        return node

    async def _run(self, kind: str, node: Node, call: Call, template: dict[str, Any], number: int) -> None:
        from argo_simulator.dag import run_dag
        from argo_simulator.steps import run_steps

        match kind:
            case "dag":
                await run_dag(self, node, call, template)
            case "steps":
                await run_steps(self, node, call, template)
            case "suspend":
                await self._suspend(node, call, template)
            case _:
                await self._pod(kind, node, call, template, number)

    async def _retry(self, call: Call, template: dict[str, Any]) -> Node:
        """Try a call until it succeeds or its strategy ends it; the node has the phase and outputs of the last try."""
        strategy = template["retryStrategy"]
        node = self.add(call, "Retry")
        tries: list[Node] = []
        while True:
            number = len(tries)
            name, path = f"{call.name}({number})", f"{call.path}/{number}"
            self.graph.connect(node.name, name)
            each = changed(call, name=name, path=path)
            variables = {"retries": str(number), **retries.last_retry(tries[-1] if tries else None)}
            if _KINDS[template_type(template)] == "Pod":
                variables["pod.name"] = self.pod_name(each)
            tried = await self._once(each, self._substituted(template, variables), retried=True, number=number)
            tries.append(tried)
            node.tries += tried.tries
            node.inputs, node.outputs, node.result = tried.inputs, tried.outputs, tried.result
            node.exit_code = tried.exit_code
            if not tried.failed:
                return node.end("Succeeded")
            verdict = await self._again(call, strategy, tries)
            if not verdict.again:
                return node.end(tried.phase, verdict.message)

    async def _again(self, call: Call, strategy: dict[str, Any], tries: list[Node]) -> retries.Verdict:
        if ended := self._ended(call, "retry exceeded workflow deadline", "Stopped with strategy '{}'"):
            return retries.Verdict(False, ended)
        wait, message = retries.backoff_s(strategy, tries)
        if message:
            return retries.Verdict(False, message)
        await self._sleep(wait, call)
        if ended := self._ended(call, "retry exceeded workflow deadline", "Stopped with strategy '{}'"):
            return retries.Verdict(False, ended)
        return retries.decide(strategy, tries)

    def _ended(self, call: Call, at_deadline: str, at_shutdown: str) -> str:
        """Return why nothing may start any more, or an empty string."""
        if self.shutdown and not (call.at_exit and self.shutdown == "Stop"):
            return at_shutdown.format(self.shutdown)
        return at_deadline if self.deadline_passed and not call.at_exit else ""

    def _stop_of(self, call: Call) -> asyncio.Future[str]:
        return self.stop_at_exit if call.at_exit else self.stop

    async def _sleep(self, duration_s: float, call: Call) -> None:
        """Wait for a scaled time, or until the workflow is stopped."""
        wait = duration_s * self.settings.time_scale
        if wait > 0:
            await asyncio.wait({self._stop_of(call)}, timeout=wait)

    async def _suspend(self, node: Node, call: Call, template: dict[str, Any]) -> None:
        duration = template["suspend"].get("duration")
        ended = self._ended(call, "", "Stopped with strategy '{}'")
        if not ended:
            if duration is None:
                await self._stop_of(call)  # nobody resumes it
            else:
                await self._sleep(seconds(duration), call)
            ended = self._ended(call, _DEADLINE if duration is None else "", "Stopped with strategy '{}'")
        if ended:
            node.end("Failed", ended)
            return
        node.outputs = {}
        node.end("Succeeded")

    async def _pod(self, kind: str, node: Node, call: Call, template: dict[str, Any], number: int) -> None:
        async with self._turns.hold(self._slots):
            if ended := self._ended(call, _DEADLINE, "workflow shutdown with strategy:  {}"):
                node.end("Failed", ended)
                return
            # The time in the queue is not the pod's.
            node.started = datetime.now(UTC)
            self.running_pods += 1
            self.most_pods = max(self.most_pods, self.running_pods)
            try:
                path = call.path.rsplit("/", 1)[0] if node.retried else call.path
                lost = self.settings.lose_pod(path, number) if self.settings.lose_pod else None
                check_pod_name(self.pod_name(call))
                if lost:
                    node.tries.append(Try("Error", None, lost, None, started=node.started))
                    node.end("Error", lost)
                elif kind == "resource":
                    await self._resource(node, call, template)
                else:
                    await self._container(node, call, template)
            finally:
                self.running_pods -= 1

    async def _container(self, node: Node, call: Call, template: dict[str, Any]) -> None:
        check_template_size({**template, "inputs": {}})
        pod = self._make_pod(call, template)
        deadline = template.get("activeDeadlineSeconds")
        outcome = await self.settings.runner.run(
            pod,
            deadline_s=None if deadline is None else float(any_string(deadline)),
            stop=self._stop_of(call),
        )
        self._settle(node, outcome, pod)

    def _settle(self, node: Node, outcome: Outcome, pod: Pod | None) -> None:
        node.outputs, node.result, node.exit_code = outcome.outputs, outcome.result, outcome.exit_code
        node.end(outcome.phase, outcome.message)
        node.tries.append(
            Try(
                outcome.phase,
                outcome.exit_code,
                outcome.message,
                pod.log_path if pod else None,
                pod.directory if pod else None,
                pod.command if pod else [],
                pod.env if pod else {},
                node.started,
                node.finished,
            )
        )

    def _make_pod(self, call: Call, template: dict[str, Any]) -> Pod:
        spec = pod_spec(template, self.submission.spec)
        script = (template.get("script") or {}).get("source")
        spec = replace(spec, self.variables)
        for container in [*spec["containers"], *spec["initContainers"]]:
            parts = {key: container.get(key) for key in ("command", "args", "env")}
            self.unresolved += [(call.path, tag) for tag in tags_of(parts)]
        self._pods += 1
        label = "".join(each if each.isalnum() or each in "-_." else "_" for each in call.path)[-80:]
        parameters = (template.get("outputs") or {}).get("parameters") or []
        sources = {each["name"]: each["valueFrom"] for each in parameters if "path" in each["valueFrom"]}
        return Pod(
            spec=spec,
            directory=self.settings.workdir / f"{self._pods:03}-{label}",
            output_paths={name: source["path"] for name, source in sources.items()},
            output_defaults={n: any_string(s["default"]) for n, s in sources.items() if "default" in s},
            script=script,
            keep_result=script is not None or "outputs.result" in self.submission.text,
            extra_env={
                "ARGO_CONTAINER_NAME": "main",
                "ARGO_NODE_ID": self.node_id(call.name),
                "ARGO_POD_NAME": self.pod_name(call),
                "ARGO_WORKFLOW_NAME": self.submission.name,
            },
        )

    async def _resource(self, node: Node, call: Call, template: dict[str, Any]) -> None:
        """Run the init containers, then give the manifest to the test's handler, which stands for `argoexec resource`.

        It returns the object in its last state, or a function that looks at it: that is then asked until a condition
        is met (WaitResource), or the pod is stopped, which leaves the object as it is.
        """
        body = template["resource"]
        handler = self.settings.resource_handler
        if handler is None:
            raise Unsupported(f"{node.path}: a resource template needs a resource_handler")
        manifest = yaml.safe_load(body.get("manifest") or "{}")
        if body.get("setOwnerReference"):
            owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "controller": True}
            owner |= {"name": self.submission.name, "uid": self.submission.uid}
            manifest["metadata"].setdefault("ownerReferences", []).append(owner)
        pod = self._make_pod(call, template) if template.get("initContainers") else None
        if pod is not None and (outcome := await self.settings.runner.run_init(pod, stop=self._stop_of(call))):
            self._settle(node, outcome, pod)
            return
        found = handler(manifest, body["action"])
        if inspect.isawaitable(found):
            found = await found
        if callable(found):
            found = await self._awaited(found, body, self._stop_of(call))
        if isinstance(found, Outcome):
            self._settle(node, found, pod)
            return
        found = dict(found or {})
        phase = resources.verdict(body, found)
        if not phase:
            phase, message = "Error", "the object neither succeeded nor failed: the controller would wait for ever"
        else:
            message = "" if phase == "Succeeded" else f"Resource failed: failureCondition {body['failureCondition']!r}"
        outputs = self._resource_outputs(template, found) if phase == "Succeeded" else {}
        self._settle(node, Outcome(phase, message, 0 if phase == "Succeeded" else 1, outputs), pod)

    async def _awaited(
        self, look: Callable[[], dict[str, Any] | None], body: dict[str, Any], stop: asyncio.Future[str]
    ) -> dict[str, Any] | Outcome:
        while not stop.done():
            found = look()
            if found is None:
                message = "The resource has been deleted while its status was still being checked"
                return Outcome("Failed", f"Error (exit code 1): {message}", 1, {})
            if resources.verdict(body, found):
                return found
            await asyncio.wait({stop}, timeout=_RESOURCE_POLL_S)
        return Outcome("Failed", stop.result(), 143, {})

    def _resource_outputs(self, template: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
        outputs = {}
        for each in (template.get("outputs") or {}).get("parameters") or []:
            source = each["valueFrom"]
            if "jsonPath" not in source:
                raise Unsupported("an output of a resource by jqFilter")
            value = resources.json_path(source["jsonPath"], found)
            value = source.get("default") if value is None else value
            if value is None:
                raise TemplateError(f"failed to save the output {each['name']}")
            outputs[each["name"]] = any_string(value)
        return outputs

    def node_id(self, name: str) -> str:
        if name == self.submission.name:
            return name
        return f"{self.submission.name}-{_fnv32a(name)}"

    def pod_name(self, call: Call) -> str:
        if call.name == self.submission.name:
            return call.name
        return f"{f'{self.submission.name}-{call.template}'[:_POD_PREFIX]}-{_fnv32a(call.name)}"


def check_pod_name(name: str) -> None:
    """Check a pod's name as Kubernetes does.

    :raises TemplateError: the pod is refused; the controller takes that for a failed try.
    """
    if len(name) > _MOST_NAME or not _SUBDOMAIN.fullmatch(name):
        raise TemplateError(
            f'Pod "{name}" is invalid: metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must '
            "consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
            "character"
        )


def check_template_size(template: dict[str, Any]) -> None:
    """Check the template that a pod carries: above 128 KiB in a ConfigMap, which Kubernetes takes up to 1 MiB.

    :raises TemplateError: it is larger.
    """
    if len(go_json(template, is_map=False).encode()) > _MOST_CONFIG_MAP:
        raise TemplateError(f"ConfigMap is invalid: []: Too long: may not be more than {_MOST_CONFIG_MAP} bytes")


def _fnv32a(text: str) -> int:
    found = 0x811C9DC5
    for byte in text.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found
