"""The offline check of Argo Workflows manifests: fields against Argo's and Kubernetes' models, and Argo's own rules.

What a controller would say at submission or later is said here, with file and line, with no cluster:

>>> for finding in lint_text("kind: Workflow", "flow.yaml"):
...     print(finding)
flow.yaml:1: apiVersion is missing: every object of Kubernetes has one
flow.yaml:1: metadata is missing: a Workflow needs it
…
"""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode.argo.lint.document import Document, documents
from airflow_provider_raynode.argo.lint.finding import Finding, Findings, LintError, Severity, path_text
from airflow_provider_raynode.argo.lint.report import command, lint_file

__all__ = ["Finding", "LintError", "Severity", "command", "lint_file", "lint_text"]


def lint_text(text: str, source: str = "<text>") -> list[Finding]:
    """Return what is wrong in a text of one or more manifests, in the order of its lines.

    Workflow, WorkflowTemplate, ClusterWorkflowTemplate and CronWorkflow are checked; of other kinds only that they have
    apiVersion, kind and a name.

    :param source: name of the text in the findings, such as its file.
    :raises LintError: the text is not YAML.
    """
    # The checks need hera's models: whoever only asks for a cron line does not pay for them.
    from airflow_provider_raynode.argo.lint.workflow import check_document

    found: list[Finding] = []
    read = list(documents(text, source))
    config_maps = _config_maps(read)
    for document in read:
        findings = Findings(source, document.line_of)
        check_document(document, findings, config_maps)
        found += findings.all() + _yaml_findings(document, source)
    if not read:
        found.append(Finding(source, 1, "", "there is no document: the file is empty"))
    return sorted(found, key=lambda finding: finding.line)


def _yaml_findings(document: Document, source: str) -> list[Finding]:
    return [Finding(source, line, path_text(path), message) for path, line, message in document.problems]


def _config_maps(read: list[Document]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for document in read:
        data = document.data
        if isinstance(data, dict) and data.get("kind") == "ConfigMap" and isinstance(data.get("metadata"), dict):
            values = data.get("data")
            found[str(data["metadata"].get("name"))] = values if isinstance(values, dict) else {}
    return found
