"""Manifests around a part that is wrong: the wrong line carries the mark `#!`."""

import textwrap

from airflow_provider_raynode.argo.lint import Finding, lint_text

MARK = "#!"

TEMPLATES = """
- name: task
  inputs: {parameters: [{name: step}, {name: map, value: "{}"}]}
  outputs: {parameters: [{name: state, valueFrom: {path: /out/state, default: skipped}}]}
  container: {image: alpine, args: ["{{inputs.parameters.step}} {{inputs.parameters.map}}"]}
- name: plain
  container: {image: alpine}
- name: sleep
  suspend: {duration: "0"}
"""


def block(text, indent):
    return textwrap.indent(textwrap.dedent(text).strip("\n"), " " * indent)


def workflow(spec, kind="Workflow", metadata="{generateName: a-}"):
    return f"apiVersion: argoproj.io/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec:\n{block(spec, 2)}\n"


def dag(tasks, more=""):
    """A workflow with these tasks; `task` needs `step`, `plain` and `sleep` need nothing."""
    templates = f"- name: dag\n  dag:\n    tasks:\n{block(tasks, 6)}\n{block(TEMPLATES, 0)}\n"
    spec = f"entrypoint: dag\n{block(more, 0)}\ntemplates:\n{block(templates, 2)}\n"
    return workflow(spec)


def template(body, more=""):
    """A workflow whose only template has this body."""
    return workflow(f"entrypoint: t\n{block(more, 0)}\ntemplates:\n  - name: t\n{block(body, 4)}\n")


def steps(groups):
    body = f"- name: steps\n  steps:\n{block(groups, 4)}\n{block(TEMPLATES, 0)}"
    return workflow(f"entrypoint: steps\ntemplates:\n{block(body, 2)}\n")


def cron(spec, workflow_spec="entrypoint: t\ntemplates: [{name: t, container: {image: alpine}}]"):
    return workflow(f"{block(spec, 0)}\nworkflowSpec:\n{block(workflow_spec, 2)}", "CronWorkflow", "{name: nightly}")


def marked_line(text):
    lines = [number for number, line in enumerate(text.splitlines(), 1) if MARK in line]
    assert len(lines) == 1, f"one line must have the mark, these have it: {lines}"
    return lines[0]


def check_case(text, message, severity="error"):
    """The text has exactly one finding but for unused templates: on the marked line, with this message."""
    found = [each for each in lint_text(text, "flow.yaml") if "is not used" not in each.message]
    shown = "\n".join(map(str, found))
    assert len(found) == 1, f"one finding is expected:\n{shown}"
    finding: Finding = found[0]
    assert message in finding.message, shown
    assert finding.severity == severity
    assert finding.line == marked_line(text), shown
    assert str(finding).startswith(f"flow.yaml:{finding.line}:")
