"""Tasks, steps, what they wait for, what they are called with."""

import pytest
from lint_cases import check_case, dag, steps, workflow

from airflow_provider_raynode.argo.lint import lint_text

A = "- {name: a, template: plain}\n"
LOOP = "- {name: a, template: plain, withItems: [1, 2]}\n"
STEP = "arguments: {parameters: [{name: step, value: x}]}"

CASES = {
    # names
    "underscore": (dag("- name: a_b #!\n  template: plain"), "letters, digits and '-'"),
    "dot": (dag("- name: a.b #!\n  template: plain"), "letters, digits and '-'"),
    "too long": (dag(f"- name: {'a' * 129} #!\n  template: plain"), "has 129 characters, Argo allows 128"),
    "twice": (dag(A + "- name: a #!\n  template: plain"), "the task 'a' is given twice"),
    "reserved": (dag("- name: matches #!\n  template: plain"), "is a word of the language of depends"),
    "digit": (dag(A + "- name: 1st #!\n  template: plain\n  depends: a.Succeeded"), "starts with a digit"),
    # templates
    "no such template": (
        dag("- name: a\n  template: plane #!"),
        "no template has the name 'plane', did you mean 'plain'?",
    ),
    "no template": (dag("- name: a #!"), "given: none"),
    "two ways to call": (
        dag("- name: a #!\n  template: plain\n  inline: {container: {image: a}}"),
        "given: template and inline",
    ),
    "half a templateRef": (dag("- name: a\n  templateRef: {name: x} #!"), "template is missing"),
    "no tasks": (workflow("entrypoint: d\ntemplates:\n  - name: d\n    dag: #!\n      tasks: []"), "at least one task"),
    "no exit template": (dag("- name: a\n  template: plain\n  onExit: bye #!"), "no template has the name 'bye'"),
    "no hook template": (
        dag("- name: a\n  template: plain\n  hooks:\n    exit:\n      template: bye #!"),
        "no template has the name 'bye'",
    ),
    "hook without expression": (
        dag("- name: a\n  template: plain\n  hooks:\n    run: {template: plain} #!"),
        "expression is missing",
    ),
    "target": (dag(A).replace("tasks:", "target: b #!\n        tasks:", 1), "no task has the name 'b'"),
    # depends
    "unknown task": (
        dag("- name: first\n  template: plain\n- name: b\n  template: plain\n  depends: frist.Succeeded #!"),
        "did you mean 'first'",
    ),
    "unknown dependency": (dag("- name: b\n  template: plain\n  dependencies: [x] #!"), "no task has the name 'x'"),
    "itself": (dag("- name: a\n  template: plain\n  depends: a.Succeeded #!"), "the task 'a' waits for itself"),
    "result": (
        dag(A + "- name: b\n  template: plain\n  depends: a.Success #!"),
        "a.Success is no result of a task, did you mean 'Succeeded'",
    ),
    "small result": (dag(A + "- name: b\n  template: plain\n  depends: a.succeeded #!"), "did you mean 'Succeeded'"),
    "and": (dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded and a.Failed #!"), "write &&"),
    "single &": (dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded & a.Failed #!"), "write &&"),
    "parenthesis": (
        dag(A + "- name: b\n  template: plain\n  depends: (a.Succeeded || a.Failed #!"),
        "'(' is not closed",
    ),
    "stray parenthesis": (dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded) #!"), "')' is not expected"),
    "nothing after &&": (
        dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded && #!"),
        "ends where a task is expected",
    ),
    "no operator": (dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded a.Failed #!"), "&& or || is missing"),
    "comma": (dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded, a.Failed #!"), "',' has no meaning"),
    "tag in depends": (
        dag(A + "- name: b\n  template: plain\n  depends: '{{workflow.name}}.Succeeded' #!"),
        "depends takes no template tags",
    ),
    "AnySucceeded": (dag(A + "- name: b\n  template: plain\n  depends: a.AnySucceeded #!"), "is for loops"),
    "AllFailed": (dag(A + "- name: b\n  template: plain\n  depends: a.AllFailed #!"), "is for loops"),
    "depends and dependencies": (
        dag(
            A
            + "- {name: b, template: plain, depends: a.Succeeded}\n- name: c\n  template: plain\n  dependencies: [a] #!"
        ),
        "do not go together in one dag",
    ),
    "continueOn": (
        dag(A + "- name: b\n  template: plain\n  depends: a.Succeeded\n  continueOn: {failed: true} #!"),
        "continueOn does not go together",
    ),
    "cycle": (
        dag(
            "- name: a\n  template: plain\n  depends: c.Succeeded #!\n"
            "- {name: b, template: plain, depends: a.Succeeded}\n"
            "- {name: c, template: plain, depends: b.Succeeded}"
        ),
        "the tasks wait for each other: a -> c -> b -> a",
    ),
    "cycle of dependencies": (
        dag("- name: a\n  template: plain\n  dependencies: [b] #!\n- {name: b, template: plain, dependencies: [a]}"),
        "a -> b -> a",
    ),
    # arguments
    "missing argument": (dag("- name: a #!\n  template: task"), "the template 'task' needs the parameter 'step'"),
    "unknown argument": (
        dag("- name: a\n  template: plain\n  arguments:\n    parameters:\n      - name: stepp #!\n        value: x"),
        "the template 'plain' has no input parameter 'stepp'",
    ),
    "argument with a typo": (
        dag(
            "- name: a\n  template: task\n  arguments:\n    parameters:\n"
            "      - {name: step, value: x}\n      - name: mapp #!\n        value: x"
        ),
        "did you mean 'map'",
    ),
    "argument without value": (
        dag("- name: a\n  template: task\n  arguments:\n    parameters:\n      - name: step #!"),
        "the parameter 'step' has no value",
    ),
    "argument twice": (
        dag(
            "- name: a\n  template: task\n  arguments:\n    parameters:\n"
            "      - {name: step, value: x}\n      - {name: step, value: y} #!"
        ),
        "the parameter 'step' is given twice",
    ),
    "argument from a path": (
        dag(
            "- name: a\n  template: task\n  arguments:\n    parameters:\n"
            "      - name: step\n        valueFrom: {path: /x} #!"
        ),
        "not path",
    ),
    "missing artifact": (
        workflow(
            "entrypoint: d\ntemplates:\n"
            "  - {name: t, container: {image: a}, inputs: {artifacts: [{name: x, path: /x}]}}\n"
            "  - name: d\n    dag:\n      tasks:\n        - name: a #!\n          template: t"
        ),
        "the template 't' needs the artifact 'x'",
    ),
    # loops
    "no JSON list": (dag("- name: a\n  template: plain\n  withParam: 1, 2 #!"), "is no JSON list and no reference"),
    "JSON that is no list": (dag("- name: a\n  template: plain\n  withParam: '{}' #!"), "is no JSON list"),
    "no items": (dag("- name: a\n  template: plain\n  withItems: [] #!"), "the list is empty"),
    "two loops": (
        dag("- name: a #!\n  template: plain\n  withItems: [1]\n  withParam: '[1]'"),
        "given: withItems and withParam",
    ),
    "count and end": (
        dag("- name: a\n  template: plain\n  withSequence: {count: 1, end: 2} #!"),
        "given: count and end",
    ),
    "count that is no number": (
        dag("- name: a\n  template: plain\n  withSequence:\n    count: two #!"),
        "is not a whole number",
    ),
    "format": (
        dag("- name: a\n  template: plain\n  withSequence:\n    count: 2\n    format: x #!"),
        "has no place for the number",
    ),
    # when
    "when with no end": (dag("- name: a\n  template: plain\n  when: 'a ==' #!"), "ends where a value is expected"),
    "when with =": (dag("- name: a\n  template: plain\n  when: a = b #!"), "'=' has no meaning"),
    "when that is text": (dag("- name: a\n  template: plain\n  when: maybe #!"), "is not true or false"),
    "when with hyphens": (
        dag("- name: a\n  template: plain\n  when: my-branch == main #!"),
        "would be arithmetic: put the text in quotes",
    ),
    "when with two values": (
        dag("- name: a\n  template: plain\n  when: a b == c #!"),
        "an operator is missing before 'b'",
    ),
    "when with a parenthesis": (dag("- name: a\n  template: plain\n  when: (a == b #!"), "'(' is not closed"),
    "when with a bad expression": (
        dag('- name: a\n  template: plain\n  when: "{{= 1 == }}" #!'),
        "it ends where a value is expected",
    ),
    # steps
    "step twice": (
        steps("- - {name: a, template: plain}\n- - name: a #!\n    template: plain"),
        "the step 'a' is given twice",
    ),
    "step without name": (steps("- - template: plain #!"), "name is missing: a step needs one"),
    "step of the same group": (
        steps(
            "- - {name: a, template: plain}\n  - name: b\n    template: plain\n"
            '    when: "{{steps.a.status}} == Succeeded" #!'
        ),
        "no earlier group has 'a'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_in_the_flow_is_found_on_its_line(case):
    check_case(*CASES[case])


def test_a_template_that_nothing_calls_is_a_warning():
    text = workflow(
        "entrypoint: a\ntemplates:\n  - {name: a, container: {image: a}}\n  - {name: b, container: {image: a}}"
    )
    (finding,) = lint_text(text)
    assert (finding.severity, finding.line, finding.path) == ("warning", 8, "spec.templates[1].name")
    assert "the template 'b' is not used" in finding.message


def test_a_template_called_by_a_name_that_is_not_known_yet_may_be_any():
    tasks = A + "- {name: b, template: '{{workflow.name}}'}\n"
    assert lint_text(dag(tasks)) == []


def test_the_words_of_a_loop_are_known_in_all_forms():
    tasks = """
    - {name: a, template: task, arguments: {parameters: [{name: step, value: "{{item}}"}]}, withItems: [1, x]}
    - {name: b, template: task, arguments: {parameters: [{name: step, value: "{{item.k}}"}]}, withItems: [{k: 1}]}
    - {name: c, template: task, arguments: {parameters: [{name: step, value: "{{item.k}}"}]}, withParam: '[{"k": 1}]'}
    - {name: d, template: task, arguments: {parameters: [{name: step, value: "{{item}}"}]}, withSequence: {count: 3}}
    - {name: e, template: plain, depends: a.AnySucceeded || d.AllFailed, when: "!('x' in ('y', 'z')) && true"}
    """
    assert [finding for finding in lint_text(dag(tasks)) if "not used" not in finding.message] == []
