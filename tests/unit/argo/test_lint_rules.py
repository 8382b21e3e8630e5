"""Argo's rules for templates, references, volumes, retries, outputs and the document itself."""

import pytest
from lint_cases import check_case, cron, dag, steps, template, workflow

C = "container: {image: alpine}\n"
TWO = "- {name: a, template: task, arguments: {parameters: [{name: step, value: x}]}}\n"


def arg(value, more="", called="task"):
    """A task `b` with this value for its step, on the marked line."""
    head = f"- name: b\n  template: {called}\n  arguments:\n    parameters:\n"
    return f"{head}      - name: step\n        value: {value} #!\n{more}"


def args(value):
    return template(f"container:\n  image: alpine\n  args:\n    - {value} #!")


REFERENCES = {
    "input": (args("'{{inputs.parameters.x}}'"), "the template has no input parameter 'x'"),
    "input with a typo": (
        template(
            "inputs: {parameters: [{name: step, value: a}]}\ncontainer:\n  image: a\n"
            "  args:\n    - '{{inputs.parameters.stepp}}' #!"
        ),
        "did you mean 'step'",
    ),
    "input in an expression": (args("\"{{= inputs.parameters['x'] }}\""), "inputs.parameters.x in the expression"),
    "all inputs": (args("'{{inputs.parameters}}'"), "the template has no input parameters"),
    "artifact": (args("'{{inputs.artifacts.x.path}}'"), "no input artifact 'x'"),
    "output path": (args("'{{outputs.parameters.x.path}}'"), "no output parameter 'x'"),
    "task outside of a dag": (args("'{{tasks.a.status}}'"), "tasks are known only in a DAG template"),
    "step outside of steps": (args("'{{steps.a.status}}'"), "steps are known only in a steps template"),
    "workflow parameter": (args("'{{workflow.parameters.x}}'"), "the workflow has no parameter 'x'"),
    "workflow parameter in an expression": (args("\"{{= workflow.parameters['x'] }}\""), "no parameter 'x'"),
    "no parameters at all": (args("'{{workflow.parameters.json}}'"), "the workflow has no parameters"),
    "workflow variable": (args("'{{workflow.nam}}'"), "the workflow has no 'nam', did you mean 'name'?"),
    "timestamp": (args("'{{workflow.creationTimestamp.ISO}}'"), "creationTimestamp has no 'ISO'"),
    "scheduledTime": (args("'{{workflow.scheduledTime}}'"), "known only in a CronWorkflow"),
    "status": (args("'{{workflow.status}}'"), "known only in exit handlers"),
    "failures in an expression": (args("'{{= workflow.failures }}'"), "known only in exit handlers"),
    "priority": (args("'{{workflow.priority}}'"), "known only with spec.priority"),
    "label": (args("'{{workflow.labels.team}}'"), "the workflow has no label 'team'"),
    "global output": (args("'{{workflow.outputs.parameters.x}}'"), "with the globalName 'x'"),
    "item": (args("'{{item}}'"), "item is known only in a task or step with"),
    "retries": (args("'{{retries}}'"), "retries is known only in a template with a retryStrategy"),
    "lastRetry": (args("'{{lastRetry.exitCode}}'"), "lastRetry is known only in a template with a retryStrategy"),
    "lastRetry's field": (
        template(C + "retryStrategy:\n  expression: lastRetry.code == '1' #!"),
        "lastRetry has no 'code'",
    ),
    "pod": (dag(arg("'{{pod.name}}'")), "known only in a template that runs a pod"),
    "unclosed": (args("'{{workflow.name}'"), "'{{' has no '}}'"),
    "unclosed in an argument": (
        template(C, "arguments:\n  parameters:\n    - name: x\n      value: 'a {{ b' #!"),
        "'{{' has no '}}'",
    ),
    "open quote": (args('"{{= \'a }}"'), "the quote before 'a' is not closed"),
    "open bracket": (args("'{{= (1 + 2 }}'"), "'(' is not closed"),
    "stray bracket": (args("'{{= 1] }}'"), "']' closes nothing"),
    "empty expression": (args("'{{= }}'"), "it is empty"),
    "no operator": (args("'{{= 1 2 }}'"), "an operator is missing before it"),
    "function": (args("'{{= asInteger(1) }}'"), "no function has the name 'asInteger'"),
    "name in an expression": (args("'{{= foo.bar }}'"), "'foo' is no variable of Argo"),
    "no task": (dag(TWO + arg("'{{tasks.x.status}}'", "  depends: a.Succeeded")), "no task has the name 'x'"),
    "no ancestor": (dag(TWO + arg("'{{tasks.a.status}}'")), "'b' does not wait for 'a'"),
    "no ancestor in an expression": (dag(TWO + arg("\"{{= tasks['a'].status }}\"")), "'b' does not wait for 'a'"),
    "output of a task": (
        dag(TWO + arg("'{{tasks.a.outputs.parameters.stat}}'", "  depends: a.Succeeded")),
        "the template 'task' of tasks.a has no output parameter 'stat', did you mean 'state'?",
    ),
    "output in an expression": (
        dag(TWO + arg("\"{{= tasks.a.outputs.parameters['x'] }}\"", "  depends: a.Succeeded")),
        "has no output parameter 'x'",
    ),
    "field of a task": (dag(TWO + arg("'{{tasks.a.state}}'", "  depends: a.Succeeded")), "tasks.a has no 'state'"),
    "result of a suspend": (
        dag("- {name: a, template: sleep}\n" + arg("'{{tasks.a.outputs.result}}'", "  depends: a.Succeeded")),
        "its template runs no container",
    ),
    "all outputs of a single task": (
        dag(TWO + arg("'{{tasks.a.outputs.parameters}}'", "  depends: a.Succeeded")),
        "as a whole is known only of loops",
    ),
    "hyphen in an expression": (
        dag(
            "- {name: my-a, template: plain}\n" + arg("'{{= tasks.my-a.status }}'", "  depends: my-a.Succeeded")
        ).replace("my-a.status", "my.status"),
        "a name with '-' is written tasks['my-…']",
    ),
    "item without a loop": (dag(arg("'{{item}}'")), "item is known only in a task or step with"),
    "key of an item": (dag(arg("'{{item.x}}'", "  withItems: [{y: 1}]")), "the items have no key 'x' in common"),
    "key of one item only": (
        dag(arg("'{{item.x}}'", "  withItems: [{x: 1, y: 1}, {y: 2}]")),
        "the items have no key 'x' in common",
    ),
    "key of a number": (dag(arg("'{{item.x}}'", "  withItems: [1]")), "the items are no mappings"),
    "withParam of no ancestor": (
        dag(TWO + "- name: b\n  template: plain\n  withParam: '{{tasks.a.outputs.parameters.state}}' #!"),
        "'b' does not wait for 'a'",
    ),
    "when of no output": (
        dag(
            TWO + "- name: b\n  template: plain\n  depends: a.Succeeded\n"
            "  when: \"{{= tasks.a.outputs.parameters.x == '1' }}\" #!"
        ),
        "has no output parameter 'x'",
    ),
    "output of a dag": (
        workflow(
            "entrypoint: d\ntemplates:\n  - name: p\n    container: {image: a}\n"
            "  - name: d\n    dag: {tasks: [{name: a, template: p}]}\n    outputs:\n"
            "      parameters:\n        - name: x\n"
            "          valueFrom: {parameter: '{{tasks.b.status}}'} #!"
        ),
        "no task has the name 'b'",
    ),
    "expression of a dag's output": (
        workflow(
            "entrypoint: d\ntemplates:\n  - name: p\n    container: {image: a}\n"
            "  - name: d\n    dag: {tasks: [{name: a, template: p}]}\n    outputs:\n"
            "      parameters:\n        - name: x\n"
            "          valueFrom: {expression: tasks.b.status} #!"
        ),
        "no task has the name 'b'",
    ),
    "exitCode of no step": (
        steps(
            '- - {name: a, template: plain}\n- - name: b\n    template: plain\n    when: "{{steps.c.exitCode}} == 0" #!'
        ),
        "no step has the name 'c'",
    ),
}

TEMPLATES = {
    "no type": (template("nodeSelector: {a: b}").replace("- name: t\n", "- name: t #!\n"), "the template has no type"),
    "empty type": (template("suspend:").replace("- name: t\n", "- name: t #!\n"), "write suspend: {}"),
    "two types": (
        template(C + "suspend: {}").replace("- name: t\n", "- name: t #!\n"),
        "this has container and suspend",
    ),
    "no image": (template("container: #!\n  command: [a]"), "image is missing"),
    "name": (
        template(C).replace("- name: t\n", "- name: t_ #!\n").replace("entrypoint: t", "entrypoint: t_"),
        "letters, digits and '-'",
    ),
    "no name": (
        workflow("entrypoint: t\ntemplates:\n  - {name: t, container: {image: a}}\n  - container: {image: a} #!"),
        "name is missing",
    ),
    "twice": (
        workflow(
            "entrypoint: t\ntemplates:\n  - {name: t, container: {image: a}}\n  - name: t #!\n    container: {image: a}"
        ),
        "given twice",
    ),
    "limit": (template(C + "retryStrategy:\n  limit: two #!"), "is no number of retries"),
    "negative limit": (template(C + "retryStrategy:\n  limit: -1 #!"), "is no number of retries"),
    "expression": (
        template(C + "retryStrategy:\n  expression: lastRetry.exitCode == #!"),
        "it ends where a value is expected",
    ),
    "duration": (template(C + "retryStrategy:\n  backoff:\n    duration: 5 min #!"), "is no duration"),
    "days": (template(C + "retryStrategy:\n  backoff:\n    duration: 2d #!"), "write 48h"),
    "cap": (template(C + "retryStrategy:\n  backoff:\n    duration: 1s\n    cap: 1hour #!"), "is no duration"),
    "no duration": (template(C + "retryStrategy:\n  backoff: #!\n    factor: 2"), "duration is missing"),
    "factor": (
        template(C + "retryStrategy:\n  backoff:\n    duration: 1s\n    factor: '1.5' #!"),
        "Argo takes whole numbers",
    ),
    "deadline": (template(C + "activeDeadlineSeconds: 90s #!"), "write it without a unit"),
    "deadline 0": (template(C + "activeDeadlineSeconds: 0 #!"), "0 is no deadline"),
    "deadline of a dag": (
        dag("- {name: a, template: plain}").replace(
            "  - name: dag\n", "  - name: dag\n      activeDeadlineSeconds: 3 #!\n"
        ),
        "is for templates that run a pod, not dag",
    ),
    "timeout": (template(C + "timeout: '30' #!"), "is no duration"),
    "parallelism": (template(C + "parallelism: 3 #!"), "is for dag and steps templates"),
    "suspend": (template("suspend:\n  duration: soon #!"), "is no duration: write seconds (30)"),
    "two sources": (
        template(C + "outputs:\n  parameters:\n    - name: x\n      valueFrom: {path: /x, jsonPath: a} #!"),
        "given: path and jsonPath",
    ),
    "no source": (
        template(C + "outputs:\n  parameters:\n    - name: x\n      valueFrom: {default: a} #!"),
        "given: none",
    ),
    "no value": (template(C + "outputs:\n  parameters:\n    - name: x #!"), "has no value"),
    "value and source": (
        template(C + "outputs:\n  parameters:\n    - name: x #!\n      value: a\n      valueFrom: {path: /x}"),
        "keep one",
    ),
    "wrong source": (
        template(C + "outputs:\n  parameters:\n    - name: x\n      valueFrom: {jsonPath: a} #!"),
        "comes from path, not jsonPath",
    ),
    "relative path": (
        template(C + "outputs:\n  parameters:\n    - name: x\n      valueFrom:\n        path: x/y #!"),
        "no absolute path",
    ),
    "output twice": (
        template(C + "outputs:\n  parameters:\n    - {name: x, value: a}\n    - name: x #!\n      value: a"),
        "the output parameter 'x' is given twice",
    ),
    "input twice": (
        template(C + "inputs:\n  parameters:\n    - {name: x, value: a}\n    - name: x #!\n      value: a"),
        "given twice",
    ),
    "name of an input": (
        template(C + "inputs:\n  parameters:\n    - name: a.b #!\n      value: a"),
        "letters, digits, '-' and '_'",
    ),
    "enum of an input": (
        template(C + "inputs:\n  parameters:\n    - name: x\n      default: c #!\n      enum: [a, b]"),
        "'c' is not in the enum: a, b",
    ),
    "mount": (
        template(
            "container:\n  image: a\n  volumeMounts:\n    - name: dat #!\n      mountPath: /a",
            "volumes: [{name: data, emptyDir: {}}]",
        ),
        "did you mean 'data'",
    ),
    "mount of nothing": (
        template("container:\n  image: a\n  volumeMounts:\n    - name: x #!\n      mountPath: /a"),
        "declared: none",
    ),
    "mount in an init container": (
        template(
            C
            + "initContainers:\n  - name: i\n    image: a\n    volumeMounts:\n      - name: x #!\n        mountPath: /a"
        ),
        "no volume has the name 'x'",
    ),
    "mounted twice": (
        template(
            "container:\n  image: a\n  volumeMounts:\n    - {name: a, mountPath: /a}\n"
            "    - name: b\n      mountPath: /a #!",
            "volumes: [{name: a, emptyDir: {}}, {name: b, emptyDir: {}}]",
        ),
        "'/a' is mounted already, from 'a'",
    ),
    "volume twice": (
        template(C, "volumes:\n  - {name: a, emptyDir: {}}\n  - name: a #!\n    emptyDir: {}"),
        "given twice",
    ),
    "volume's name": (template(C, "volumes:\n  - name: A_b #!\n    emptyDir: {}"), "small letters, digits and '-'"),
    "two sources of a volume": (
        template(C, "volumes:\n  - name: a #!\n    emptyDir: {}\n    hostPath: {path: /a}"),
        "this has emptyDir and hostPath",
    ),
    "no lock": (template(C + "synchronization: {} #!"), "neither mutexes nor semaphores"),
    "mutex": (template(C + "synchronization:\n  mutexes:\n    - {namespace: a} #!"), "name is missing"),
    "semaphore": (
        template(C + "synchronization:\n  semaphores:\n    - {namespace: a} #!"),
        "takes one of configMapKeyRef and database",
    ),
    "manifest": (template("resource:\n  action: create\n  manifest: '{a: [' #!"), "the manifest is not YAML"),
    "no manifest": (template("resource: #!\n  action: create"), "manifest is missing"),
    "no kind": (
        template("resource:\n  action: create\n  manifest: '{apiVersion: v1, metadata: {name: a}}' #!"),
        "kind is missing in the manifest",
    ),
    "no name of the object": (
        template("resource:\n  action: create\n  manifest: '{apiVersion: v1, kind: A}' #!"),
        "metadata.name or metadata.generateName",
    ),
    "successCondition": (
        template("resource:\n  action: get\n  flags: [a]\n  successCondition: status.x is done #!"),
        "is no condition",
    ),
    "metric": (
        template(C + "metrics:\n  prometheus:\n    - name: a-b #!\n      help: x\n      counter: {value: '1'}"),
        "is no name of a metric",
    ),
    "label of the pods": (template(C + "metadata:\n  labels:\n    a: b c #!"), "an annotation takes any text"),
}

DOCUMENTS = {
    "entrypoint": (
        workflow("entrypoint: tt #!\ntemplates: [{name: tx, container: {image: a}}]"),
        "no template has the name 'tt'",
    ),
    "no entrypoint": (
        workflow("templates: [{name: t, container: {image: a}}]").replace("spec:", "spec: #!"),
        "entrypoint is missing",
    ),
    "onExit": (template(C, "onExit: bye #!"), "no template has the name 'bye'"),
    "hook": (template(C, "hooks:\n  end: {template: t} #!"), "expression is missing"),
    "entrypoint's input": (
        workflow("entrypoint: t #!\ntemplates: [{name: t, container: {image: a}, inputs: {parameters: [{name: x}]}}]"),
        "needs the parameter 'x'",
    ),
    "argument without value": (template(C, "arguments:\n  parameters:\n    - name: x #!"), "has no value"),
    "argument twice": (
        template(C, "arguments:\n  parameters:\n    - {name: x, value: a}\n    - name: x #!\n      value: b"),
        "given twice",
    ),
    "argument's name": (
        template(C, "arguments:\n  parameters:\n    - name: x.y #!\n      value: b"),
        "letters, digits, '-' and '_'",
    ),
    "enum": (
        template(C, "arguments:\n  parameters:\n    - name: x\n      value: c #!\n      enum: [a, 1]"),
        "'c' is not in the enum: a, 1",
    ),
    "empty enum": (
        template(C, "arguments:\n  parameters:\n    - name: x\n      value: c\n      enum: [] #!"),
        "the enum is empty",
    ),
    "name": (workflow("workflowTemplateRef: {name: a}", metadata="{name: My_flow} #!"), "small letters, digits"),
    "long name": (
        workflow("workflowTemplateRef: {name: a}", metadata=f"{{name: {'a' * 64}}} #!"),
        "has 64 characters, allowed are 63",
    ),
    "long start": (
        workflow("workflowTemplateRef: {name: a}", metadata=f"{{generateName: {'a' * 59}}} #!"),
        "allowed are 58",
    ),
    "no name": (workflow("workflowTemplateRef: {name: a}", metadata="{} #!"), "needs name or generateName"),
    "label": (
        workflow("workflowTemplateRef: {name: a}", metadata="{name: a, labels: {x: 'a b'}} #!"),
        "the label's value 'a b'",
    ),
    "long label": (
        workflow("workflowTemplateRef: {name: a}", metadata=f"{{name: a, labels: {{x: {'a' * 64}}}}} #!"),
        "(64 characters)",
    ),
    "key of a label": (
        workflow("workflowTemplateRef: {name: a}", metadata="{name: a, labels: {'a b': x}} #!"),
        "the key 'a b'",
    ),
    "key of an annotation": (
        workflow("workflowTemplateRef: {name: a}", metadata="{name: a, annotations: {'A/b/c': x}} #!"),
        "the key 'A/b/c'",
    ),
    "version": (
        workflow("workflowTemplateRef: {name: a}").replace("v1alpha1", "v1 #!"),
        "is not the version of a Workflow",
    ),
    "templates and reference": (
        workflow("workflowTemplateRef: {name: a}\ntemplates: [{name: t, container: {image: a}}] #!"),
        "do not go together",
    ),
    "deadline": (template(C, "activeDeadlineSeconds: -1 #!"), "-1 is no deadline"),
    "parallelism": (template(C, "parallelism: 0 #!"), "0 lets no pod run"),
    "delay": (template(C, "podGC:\n  deleteDelayDuration: later #!"), "is no duration"),
    "ttl": (template(C, "ttlStrategy:\n  secondsAfterSuccess: -5 #!"), "-5 is negative"),
    "kind": ("apiVersion: argoproj.io/v1alpha1\nkind: Workflows #!\nmetadata: {name: a}\n", "did you mean 'Workflow'"),
    "other object without name": ("apiVersion: v1\nkind: ConfigMap\nmetadata: {} #!\n", "metadata.name is missing"),
    "number in a ConfigMap": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: 1 #!\n",
        "1 is not text",
    ),
    "no object": ("[a] #!\n", "not a mapping with apiVersion"),
    "no schedules": (cron("timezone: UTC").replace("spec:", "spec: #!", 1), "schedules is missing"),
    "empty schedules": (cron("schedules: [] #!"), "the list is empty"),
    "cron": (cron("schedules:\n  - '0 0 * * 7' #!"), "day of week 7 is out of 0-6"),
    "timezone": (cron("schedules: ['@daily']\ntimezone: Berlin #!"), "is no time zone"),
    "two timezones": (cron("schedules:\n  - TZ=UTC 0 0 * * * #!\ntimezone: UTC"), "keep spec.timezone"),
    "starting deadline": (cron("schedules: ['@daily']\nstartingDeadlineSeconds: -1 #!"), "-1 is negative"),
    "long name of a CronWorkflow": (
        cron("schedules: ['@daily']").replace("{name: nightly}", f"{{name: {'a' * 53}}} #!"),
        "has 53 characters, allowed are 52: the time of the run is added to it",
    ),
    "stop": (
        cron("schedules: ['@daily']\nstopStrategy:\n  expression: failed > #!").replace(
            "failed >", "cronworkflow.failed >"
        ),
        "it ends where a value",
    ),
    "key twice": (
        template(C).replace("entrypoint: t\n", "entrypoint: t\n  entrypoint: t #!\n"),
        "is given twice: only the last would count",
    ),
    "semaphore's key": (
        template(C + "synchronization:\n  semaphores:\n    - configMapKeyRef:\n        name: pools\n        key: x #!")
        + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: pools}, data: {y: '1'}}\n",
        "the ConfigMap 'pools' of this file has no key 'x'",
    ),
    "semaphore's number": (
        template(C + "synchronization:\n  semaphores:\n    - configMapKeyRef:\n        name: pools\n        key: x #!")
        + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: pools}, data: {x: '0'}}\n",
        "a semaphore needs a number above 0",
    ),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_references_are_resolved(case):
    check_case(*REFERENCES[case])


@pytest.mark.parametrize("case", TEMPLATES)
def test_rules_of_a_template(case):
    check_case(*TEMPLATES[case])


@pytest.mark.parametrize("case", DOCUMENTS)
def test_rules_of_a_document(case):
    check_case(*DOCUMENTS[case])


def test_a_tag_that_argo_does_not_know_is_a_warning():
    check_case(args("'{{ ds }}'"), "'{{ds}}' is no variable of Argo: the text stays as it is", severity="warning")
