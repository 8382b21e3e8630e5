"""Whole files: good ones, sizes, lines, the command; and Argo's own lint where it is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lint_cases import dag, template, workflow

from airflow_provider_raynode.argo.lint import Finding, LintError, command, lint_file, lint_text
from airflow_provider_raynode.exceptions import RayNodeError

GOOD = Path(__file__).with_name("test_lint_good.yaml")


def test_a_realistic_file_has_no_findings():
    assert lint_file(GOOD) == []


def test_its_flow_style_and_sorted_forms_have_none_either():
    documents = list(yaml.safe_load_all(GOOD.read_text()))
    assert lint_text(yaml.safe_dump_all(documents)) == []
    assert lint_text("\n---\n".join(map(json.dumps, documents))) == []


def test_argo_finds_nothing_either(tmp_path):
    argo = shutil.which("argo")
    if argo is None:
        pytest.skip("no argo binary on PATH")
    file = tmp_path / "good.yaml"
    # Argo's lint takes only its own kinds.
    documents = [each for each in yaml.safe_load_all(GOOD.read_text()) if each["kind"] != "ConfigMap"]
    file.write_text(yaml.safe_dump_all(documents))
    done = subprocess.run([argo, "lint", "--offline", str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_wrong_line_of_a_file_is_named():
    text = dag("- {name: a, template: x}\n- name: b\n  template: task\n  depends: c.Succeeded") + "---\nkind: Secret\n"
    found = [(each.line, each.path) for each in lint_text(text, "f") if each.severity == "error"]
    assert found == [
        (11, "spec.templates[0].dag.tasks[0].template"),
        (12, "spec.templates[0].dag.tasks[1]"),
        (14, "spec.templates[0].dag.tasks[1].depends"),
        (24, ""),
        (24, "metadata"),
    ]


def test_a_finding_reads_like_a_compilers():
    finding = Finding("f.yaml", 3, "spec.templates[0].name", "is wrong")
    assert str(finding) == "f.yaml:3: spec.templates[0].name: is wrong"
    assert str(Finding("f.yaml", 1, "", "is wrong", "warning")) == "f.yaml:1: is wrong (warning)"


def thousand_tasks(words=0):
    text = "x" * words
    tasks = ["- name: t-0\n  template: task\n  arguments: {parameters: [{name: step, value: t-0}]}"]
    for index in range(1, 1000):
        before = f"t-{index - 1}"
        tasks.append(
            f"- name: t-{index}\n  template: task\n  depends: ({before}.Succeeded || {before}.Skipped)\n"
            f"  when: \"{{{{= tasks['{before}'].status == 'Succeeded' &&"
            f" tasks['{before}'].outputs.parameters.state == 'success' }}}}\"\n"
            f"  arguments:\n    parameters:\n      - {{name: step, value: t-{index}}}\n"
            f"      - {{name: map, value: '{text}'}}"
        )
    return dag("\n".join(tasks))


def test_a_thousand_tasks_in_a_row_pass():
    found = lint_text(thousand_tasks())
    assert {each.message.split(" is not used")[0] for each in found} == {"the template 'plain'", "the template 'sleep'"}


def test_a_mistake_in_the_last_of_a_thousand_tasks_is_found():
    text = thousand_tasks().replace("tasks['t-998'].status", "tasks['t-999'].status")
    (finding,) = (each for each in lint_text(text) if each.severity == "error")
    assert finding.path == "spec.templates[0].dag.tasks[999].when"
    assert "'t-999' does not wait for 't-999'" in finding.message


@pytest.mark.parametrize(("words", "severity"), [(700, "warning"), (1200, "error")])
def test_an_object_that_etcd_refuses_is_found_with_the_remedy(words, severity):
    (finding,) = (each for each in lint_text(thousand_tasks(words)) if "not used" not in each.message)
    assert (finding.severity, finding.line, finding.path) == (severity, 1, "")
    assert "1 MiB (1048576 bytes)" in finding.message
    assert "templateRef" in finding.message


def test_a_workflow_template_may_leave_arguments_open():
    body = "entrypoint: t\narguments: {parameters: [{name: x}, {name: y, enum: [a]}]}\n"
    body += "templates: [{name: t, container: {image: a, args: ['{{workflow.parameters.x}}']}}]"
    assert lint_text(workflow(body, "WorkflowTemplate", "{name: a}")) == []
    assert lint_text(workflow(body, "ClusterWorkflowTemplate", "{name: a}")) == []


def test_a_library_of_templates_may_name_the_parameters_of_its_callers():
    body = "templates: [{name: t, container: {image: a, args: ['{{workflow.parameters.x}}']}}]"
    assert lint_text(workflow(body, "WorkflowTemplate", "{name: a}")) == []


def test_anchors_and_merges_are_read():
    text = template("container: &c\n  image: alpine\ninitContainers:\n  - <<: *c\n    name: i\n    command: [a]")
    assert lint_text(text) == []


def test_an_alias_in_its_own_anchor_and_aliases_that_explode_are_errors():
    found = lint_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: &d {x: *d}\n")
    assert any("an alias inside of its own anchor" in each.message for each in found)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "aliases expand it" in lint_text("\n".join(lines))[0].message


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\ta: b", "a: *b", "a: \x07"])
def test_what_is_not_yaml_is_an_error_with_its_place(text):
    with pytest.raises(LintError, match=r"flow\.yaml.*not YAML"):
        lint_text(text, "flow.yaml")


def test_an_empty_file_is_a_finding():
    (finding,) = lint_text("# nothing\n")
    assert "there is no document" in finding.message


@pytest.mark.parametrize(
    "data",
    [
        "spec: x",
        "spec: [a]",
        "spec: {templates: {a: b}}",
        "spec: {templates: [a, ~, []]}",
        "spec: {arguments: a}",
        "spec: {templates: [{name: [a], dag: {tasks: [{name: {}, depends: 1, withItems: x, dependencies: 3}]}}]}",
        "spec: {templates: [{name: 1, steps: [a, [b], [{hooks: [a]}]]}], entrypoint: {}, hooks: {a: b}}",
        "spec: {templates: [{name: 1, steps: 3, volumes: a, inputs: [a]}]}",
        "spec: {templates: [{container: a, outputs: {parameters: [{valueFrom: a}]}, retryStrategy: a, metrics: a}]}",
        "spec: {templates: [{containerSet: {containers: [{dependencies: 3}]}, synchronization: {mutexes: 1}}]}",
        "spec: {templates: [{name: d, dag: {tasks: [{name: a, withItems: [], withParam: '[1]'}]}}]}",
        "spec: {workflowSpec: a, schedules: 3, timezone: 1, podGC: a, ttlStrategy: [1], volumeClaimTemplates: [a]}",
        "metadata: a",
        "metadata: {labels: [a], annotations: a}",
        "spec: ",
        "1: 2",
        "[a]: b",
    ],
)
@pytest.mark.parametrize("kind", ["Workflow", "CronWorkflow", "WorkflowTemplate"])
def test_data_of_any_shape_gives_findings_and_no_exception(kind, data):
    found = lint_text(f"apiVersion: argoproj.io/v1alpha1\nkind: {kind}\n{data}\n")
    assert any(each.severity == "error" for each in found)


def test_the_command_prints_findings_and_counts(tmp_path, capsys):
    file = tmp_path / "flow.yaml"
    file.write_text(dag("- {name: a, template: task, arguments: {parameters: [{name: step}]}}"))
    assert command(file) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}:11: spec.templates[0].dag.tasks[0].arguments.parameters[0]: ")
    assert lines[-1] == f"{file}: 1 error, 2 warnings"
    assert command(file, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["errors"], told["warnings"], told["findings"][0]["line"]) == (1, 2, 11)
    assert command(GOOD) == 0
    assert capsys.readouterr().out == f"{GOOD}: 0 errors, 0 warnings\n"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(LintError, match="cannot be read: No such file"):
        command(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RayNodeError, match="cannot be read"):
        command(tmp_path / "bytes.yaml")


def test_the_cron_check_alone_does_not_import_hera():
    code = "import sys, airflow_provider_raynode.argo.lint.cron; sys.exit('hera' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
