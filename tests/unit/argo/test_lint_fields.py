"""Field-level validation: unknown keys, wrong kinds, missing fields, words."""

import pytest
from lint_cases import check_case, cron, dag, template, workflow

CASES = {
    "key of a task": (
        dag("- name: a\n  template: plain\n  dependz: x #!"),
        "unknown key 'dependz' in a DAGTask, did you mean 'depends'?",
    ),
    "key of the spec": (template("container: {image: a}", "entrypoints: x #!"), "did you mean 'entrypoint'"),
    "backOff": (
        template("container: {image: a}\nretryStrategy:\n  limit: 2\n  backOff: {duration: 1s} #!"),
        "did you mean 'backoff'",
    ),
    "key of a container": (template("container:\n  image: a\n  arg: [x] #!"), "did you mean 'args'"),
    "key of Kubernetes": (
        template("container:\n  image: a\n  env:\n    - name: X\n      valueFrom: {secretRef: {name: a}} #!"),
        "unknown key 'secretRef' in a EnvVarSource",
    ),
    "key of the metadata": (
        workflow("workflowTemplateRef: {name: a}", metadata="{generateName: a-, label: {a: b}} #!"),
        "did you mean 'labels'",
    ),
    "key of the document": ("specs: {} #!\n" + workflow("workflowTemplateRef: {name: a}"), "unknown key 'specs'"),
    "number for text": (template("container:\n  image: a\n  args: [1] #!"), "1 is not text: put it in quotes"),
    "number in env": (
        template("container:\n  image: a\n  env:\n    - name: X\n      value: 3 #!"),
        "3 is not text: put it in quotes",
    ),
    "boolean in an annotation": (
        template("container: {image: a}\nmetadata:\n  annotations:\n    a: yes #!"),
        "true (YAML reads yes, no, on and off as one as well) is not text",
    ),
    "text for a number": (
        template("container: {image: a}", 'parallelism: "2" #!'),
        "'2' is not a whole number: write it without quotes",
    ),
    "tag for a number": (
        template("container: {image: a}", 'parallelism: "{{workflow.name}}" #!'),
        "the field takes no template tag",
    ),
    "text for a boolean": (
        dag("- {name: a, template: plain}").replace("dag:\n", "dag:\n        failFast: 'no' #!\n", 1),
        "'no' is not true or false",
    ),
    "text for a list": (template("container:\n  image: a\n  command: echo #!"), "'echo' is not a list"),
    "list for a mapping": (template("container: [a] #!"), "is not a mapping"),
    "mapping for text": (template("container:\n  image: {a: b} #!"), "a mapping is not text"),
    "empty entry": (template("container:\n  image: a\n  args: [a, ~] #!"), "an entry of the list is empty"),
    "empty value": (template("container: {image: a}\nnodeSelector:\n  disk: #!"), "has no value: write ''"),
    "missing field": (template("container:\n  image: a\n  volumeMounts:\n    - mountPath: /a #!"), "name is missing"),
    "missing name of a task": (dag("- template: plain #!"), "name is missing: a DAGTask needs it"),
    "missing spec": (
        "apiVersion: argoproj.io/v1alpha1 #!\nkind: WorkflowTemplate\nmetadata: {name: a}\n",
        "spec is missing",
    ),
    "missing expression of a histogram": (
        template("container: {image: a}\nmetrics:\n  prometheus:\n    - {name: a, counter: {value: '1'}} #!"),
        "help is missing",
    ),
    "quantity": (
        template("container:\n  image: a\n  resources:\n    limits:\n      memory: 2GB #!"),
        "'2GB' is no quantity",
    ),
    "quantity with a tag": (
        template("container:\n  image: a\n  resources:\n    limits:\n      cpu: '{{workflow.name}}' #!"),
        "a quantity takes no template tag: set it with podSpecPatch",
    ),
    "boolean for a limit": (
        template("container: {image: a}\nretryStrategy:\n  limit: true #!"),
        "is not a whole number or text",
    ),
    "retryPolicy": (
        template("container: {image: a}\nretryStrategy:\n  retryPolicy: OnFail #!"),
        "'OnFail' is not allowed, did you mean 'OnFailure'?",
    ),
    "podGC": (
        template("container: {image: a}", "podGC:\n  strategy: OnCompletion #!"),
        "did you mean 'OnPodCompletion'",
    ),
    "ttlStrategy": (
        template("container: {image: a}", "ttlStrategy:\n  secondsAfterFail: 3 #!"),
        "did you mean 'secondsAfterFailure'",
    ),
    "imagePullPolicy": (template("container:\n  image: a\n  imagePullPolicy: always #!"), "did you mean 'Always'"),
    "operator of a toleration": (
        template("container: {image: a}\ntolerations:\n  - operator: Equals #!"),
        "did you mean 'Equal'",
    ),
    "action": (
        template("resource:\n  action: make #!\n  manifest: '{apiVersion: v1, kind: A, metadata: {name: a}}'"),
        "'make' is not allowed",
    ),
    "concurrencyPolicy": (cron("schedules: ['@daily']\nconcurrencyPolicy: Deny #!"), "allowed: Allow, Forbid, Replace"),
    "schedule": (
        cron("schedules: ['@daily']\nschedule: '@daily' #!"),
        "write schedules, a list: schedules: ['@daily']",
    ),
    "mutex": (
        template("container: {image: a}\nsynchronization:\n  mutex: {name: a} #!"),
        "is gone since Argo 4: write mutexes, a list",
    ),
    "value that is a mapping": (
        template("container: {image: a}", "arguments:\n  parameters:\n    - name: x\n      value: {a: 1} #!"),
        "is not text: write it as JSON in quotes",
    ),
    "empty object": (
        template(
            "container: {image: a}\noutputs:\n  artifacts:\n    - name: a\n"
            "      path: /a\n      archive:\n        none: {x: 1} #!"
        ),
        "write {}",
    ),
    "key of a pod patch": (
        template(
            'container: {image: a}\npodSpecPatch: \'{"containers": [{"name": "main", "imagePullPolice": 1}]}\' #!'
        ),
        "did you mean 'imagePullPolicy'",
    ),
    "kind in a pod patch": (
        template("container: {image: a}\npodSpecPatch: '{terminationGracePeriodSeconds: 3s}' #!"),
        "'3s' is not a whole number",
    ),
    "pod patch that is no YAML": (template("container: {image: a}\npodSpecPatch: '{a: [' #!"), "the patch is not YAML"),
    "pod patch that is text": (template("container: {image: a}\npodSpecPatch: abc #!"), "is not a mapping"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_field_is_found_on_its_line(case):
    check_case(*CASES[case])


WARNINGS = {
    "bare word": (
        template("container: {image: a}", "arguments:\n  parameters:\n    - name: x\n      value: yes #!"),
        "YAML reads it as true",
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_is_seldom_meant_is_a_warning(case):
    check_case(*WARNINGS[case], severity="warning")
