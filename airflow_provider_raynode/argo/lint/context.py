"""One workflow while it is checked: its templates, who calls whom, and what `workflow.` knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.reading import elements, entries, has_tag, mapping, names, text
from airflow_provider_raynode.argo.lint.variables import GlobalVariables, NodeOutputs, Variables

TYPES = ("container", "script", "resource", "data", "containerSet", "dag", "steps", "suspend", "http", "plugin")
POD_TYPES = frozenset({"container", "script", "resource", "data", "containerSet"})
_RESULT_TYPES = frozenset({"container", "script", "containerSet", "data", "http", "plugin"})


@dataclass(frozen=True)
class Template:
    """One template and its place in the document."""

    data: dict[str, Any]
    path: Path

    @property
    def name(self) -> str:
        """Its name, empty where it has none."""
        return text(self.data.get("name"))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The kinds that it is, one when all is well."""
        return tuple(kind for kind in TYPES if self.data.get(kind) is not None)

    @property
    def kind(self) -> str:
        """What it is, empty where that is not clear."""
        return self.types[0] if len(self.types) == 1 else ""

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Its input parameters by name."""
        return {text(each.get("name")): each for _, each in entries(mapping(self.data, "inputs").get("parameters"), ())}

    @cached_property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Its input artifacts by name."""
        return {text(each.get("name")): each for _, each in entries(mapping(self.data, "inputs").get("artifacts"), ())}

    @cached_property
    def outputs(self) -> NodeOutputs:
        """What a task that runs it can be asked for."""
        outputs = mapping(self.data, "outputs")
        return NodeOutputs(
            template=self.name,
            parameters=frozenset(names(outputs.get("parameters"))),
            artifacts=frozenset(names(outputs.get("artifacts"))),
            has_result=self.kind in _RESULT_TYPES,
            is_daemon=self.data.get("daemon") is True,
        )

    def calls(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield its tasks or steps with their places."""
        yield from entries(mapping(self.data, "dag").get("tasks"), (*self.path, "dag", "tasks"))
        for index, group in enumerate(elements(self.data.get("steps"))):
            yield from entries(group, (*self.path, "steps", index))


@dataclass
class Context:
    """What the checks of one workflow share.

    :param kind: kind of the document.
    :param path: place of the WorkflowSpec in it.
    :param run_metadata: the workflowMetadata of a CronWorkflow.
    """

    kind: str
    spec: dict[str, Any]
    path: Path
    metadata: dict[str, Any]
    findings: Findings
    run_metadata: dict[str, Any] = field(default_factory=dict)
    all_templates: list[Template] = field(init=False)

    def __post_init__(self) -> None:
        found = entries(self.spec.get("templates"), (*self.path, "templates"))
        self.all_templates = [Template(data, path) for path, data in found]

    @cached_property
    def templates(self) -> dict[str, Template]:
        """The templates by name."""
        return {template.name: template for template in self.all_templates if template.name}

    @cached_property
    def every_template(self) -> list[Template]:
        """The templates, and those that stand inside of tasks and steps."""
        found = list(self.all_templates)
        for template in found:
            for path, call in template.calls():
                if isinstance(call.get("inline"), dict):
                    found.append(Template(call["inline"], (*path, "inline")))
        return found

    @property
    def is_template(self) -> bool:
        """Whether the document is a template, whose arguments a Workflow may give."""
        return self.kind in ("WorkflowTemplate", "ClusterWorkflowTemplate")

    @property
    def is_elsewhere(self) -> bool:
        """Whether the workflow's templates are in another object."""
        return bool(mapping(self.spec, "workflowTemplateRef"))

    @property
    def defaults(self) -> dict[str, Any]:
        """The templateDefaults of the workflow."""
        return mapping(self.spec, "templateDefaults")

    @cached_property
    def variables(self) -> GlobalVariables:
        """What `workflow.` knows."""
        parameters = frozenset(names(mapping(self.spec, "arguments").get("parameters")))
        # Without an entrypoint the templates are for other workflows, which have their own arguments.
        is_library = self.is_template and not self.spec.get("entrypoint")
        # What a CronWorkflow itself is labelled with does not reach its workflows: they have its workflowMetadata.
        own = self.run_metadata if self.kind == "CronWorkflow" else self.metadata
        run = (mapping(self.spec, "workflowMetadata"), own)
        return GlobalVariables(
            kind=self.kind,
            parameters=None if is_library or self.is_elsewhere else parameters,
            labels=_keys(run, "labels", "labelsFrom"),
            annotations=_keys(run, "annotations"),
            output_parameters=self._global_names("parameters"),
            output_artifacts=self._global_names("artifacts"),
            has_priority=self.spec.get("priority") is not None,
        )

    def known(self, template: Template) -> Variables:
        """Return what a template knows, outside of its tasks and steps."""
        outputs = template.outputs
        return Variables(
            workflow=self.variables,
            inputs=frozenset(template.parameters),
            input_artifacts=frozenset(template.artifacts),
            outputs=outputs.parameters,
            output_artifacts=outputs.artifacts,
            has_retries=self.retries(template),
            is_pod=template.kind in POD_TYPES,
            in_exit=template.name in self.reached_at_exit,
        )

    def retries(self, template: Template) -> bool:
        """Whether a template is tried again when it fails."""
        places = (template.data, self.defaults, self.spec)
        return any(place.get("retryStrategy") is not None for place in places)

    @cached_property
    def has_dynamic_calls(self) -> bool:
        """Whether a template is called by a name that is known only when the workflow runs."""
        return any(has_tag(name) for template in self.every_template for name in _called(template))

    @cached_property
    def reached(self) -> set[str]:
        """The names of the templates that the workflow can come to."""
        return self._from([text(self.spec.get("entrypoint")), *self._at_exit()])

    @cached_property
    def reached_at_exit(self) -> set[str]:
        """The names of the templates that run when the workflow has ended, or in its hooks."""
        return self._from(self._at_exit())

    def _at_exit(self) -> list[str]:
        hooks = mapping(self.spec, "hooks").values()
        return [text(self.spec.get("onExit")), *(text(mapping(hook).get("template")) for hook in hooks)]

    def _from(self, start: list[str]) -> set[str]:
        found: set[str] = set()
        open_ones = [name for name in start if name in self.templates]
        while open_ones:
            name = open_ones.pop()
            if name not in found:
                found.add(name)
                open_ones += [each for each in _called(self.templates[name]) if each in self.templates]
        return found

    def _global_names(self, kind: str) -> frozenset[str] | None:
        if self.is_elsewhere:
            return None
        found = set()
        for template in self.every_template:
            for _, output in entries(mapping(template.data, "outputs").get(kind), ()):
                name = output.get("globalName")
                if has_tag(name):
                    return None
                if name:
                    found.add(text(name))
        return frozenset(found)


def _called(template: Template) -> Iterator[str]:
    """Yield the names of the templates that a template calls, also from inside of its tasks."""
    for path, call in template.calls():
        yield text(call.get("template"))
        yield text(call.get("onExit"))
        for hook in mapping(call, "hooks").values():
            yield text(mapping(hook).get("template"))
        if isinstance(call.get("inline"), dict):
            yield from _called(Template(call["inline"], path))


def _keys(places: tuple[dict[str, Any], ...], *fields: str) -> frozenset[str]:
    return frozenset(key for place in places for name in fields for key in mapping(place, name))
