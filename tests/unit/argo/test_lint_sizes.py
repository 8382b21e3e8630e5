"""What is too large for a pod or for kubectl is found before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_raynode.argo.export import ExportError, export_dag
from airflow_provider_raynode.argo.lint import lint_text

SOURCE = "{{=sprig.b64enc(toJson(sprig.omit(workflow.parameters, 'json')))}}"


def found(template: dict[str, Any], values: dict[str, str], **spec: Any) -> list[str]:
    parameters = [{"name": name, "value": value} for name, value in values.items()]
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "a-"},
        "spec": {
            "entrypoint": "a",
            "arguments": {"parameters": parameters},
            "templates": [{"name": "a", **template}],
            **spec,
        },
    }
    return [str(each) for each in lint_text(json.dumps(document), "x.yaml")]


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ({"args": ["{{workflow.parameters.big}}"]}, True),
        ({"args": ["--parameters={{workflow.parameters.json}}"]}, True),
        ({"args": ["{{=sprig.b64enc(workflow.parameters.big)}}"]}, True),
        ({"args": ["{{=toJson(workflow.parameters)}}"]}, True),
        ({"args": ["{{workflow.parameters.small}}"]}, False),
        ({"env": [{"name": "BIG", "value": "{{workflow.parameters.big}}"}]}, True),
        ({"env": [{"name": "BIG", "value": "x"}]}, False),
    ],
)
def test_an_argument_and_a_variable_have_128_kib(body: dict[str, Any], counted: bool) -> None:
    values = {"big": "x" * 140_000, "small": "y"}
    for kind in (
        {"container": {"image": "a", "command": ["a"], **body}},
        {"script": {"image": "a", "source": "a", **body}},
    ):
        messages = found(kind, values)
        assert any("Linux takes 131071 in one argument or variable" in each for each in messages) == counted, messages
    assert not any("Linux" in each for each in found({"container": {"image": "a", **body}}, {"big": "x", "small": "y"}))


def test_arguments_of_the_defaults_and_of_other_containers_count() -> None:
    values = {"big": "x" * 140_000}
    args = ["{{workflow.parameters.big}}"]
    sidecars = [{"name": "s", "image": "a", "args": args}]
    assert any(
        "spec.templates[0].sidecars[0].args[0]" in each
        for each in found({"container": {"image": "a"}, "sidecars": sidecars}, values)
    )
    defaults = {"templateDefaults": {"container": {"image": "a", "args": args}}}
    assert any(
        "spec.templateDefaults.container.args[0]" in each for each in found({"container": {}}, values, **defaults)
    )


@pytest.mark.parametrize(("size", "fits"), [(700_000, True), (800_000, False)])
def test_a_pods_template_has_a_mebibyte(size: int, fits: bool) -> None:
    messages = found({"script": {"image": "a", "command": ["a"], "source": SOURCE}}, {"big": "x" * size})
    assert any("Argo keeps it for each pod in a ConfigMap" in each for each in messages) != fits, messages


def dag_with(size: int, count: int) -> DAG:
    with DAG("big", schedule=None, params={"codes": [f"item-{n:06d}" for n in range(size)]}) as dag:

        @task
        def each(code: str) -> str:
            return code

        each.expand(code=[f"literal-{n:05d}" for n in range(count)])
    return dag


def test_a_param_of_180_kb_and_3000_literals_are_exported_without_a_word() -> None:
    export = export_dag(
        dag_with(12_000, 3_000), Path("dags/x.py"), settings={"catalog": "s3://b/r", "service_account": "a"}
    )
    assert not any("bytes" in each for each in export.warnings)


def test_an_export_that_plain_kubectl_apply_cannot_take_is_told() -> None:
    export = export_dag(dag_with(20_000, 1), Path("dags/x.py"), settings={"catalog": "s3://b/r"})
    assert any("use kubectl apply --server-side" in each for each in export.warnings)


def test_a_param_that_no_pod_can_be_given_is_refused() -> None:
    with pytest.raises(ExportError, match="Argo keeps it for each pod in a ConfigMap"):
        export_dag(dag_with(50_000, 1), Path("dags/x.py"), settings={"catalog": "s3://b/r"})
