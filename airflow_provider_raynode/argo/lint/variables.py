"""Which variables a place of a workflow knows: `{{inputs.…}}`, `{{tasks.…}}`, `{{workflow.…}}`, `{{item}}`, …"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.config._values import shown

Parts = tuple[str, ...]
_NODE_FACTS = ("id", "status", "startedAt", "finishedAt", "hostNodeName")
_LAST_RETRY = ("exitCode", "status", "duration", "message")
_METRIC = frozenset({"status", "duration", "exitCode", "resourcesDuration"})
_WORKFLOW_ALWAYS = frozenset({"name", "namespace", "uid", "serviceAccountName", "mainEntrypoint", "duration"})
_WORKFLOW = (
    *sorted(_WORKFLOW_ALWAYS),
    *("parameters", "labels", "annotations", "outputs", "creationTimestamp", "scheduledTime", "priority"),
    *("status", "failures"),
)
_ARGO_LABELS = "workflows.argoproj.io/"
_FUNCTIONS = frozenset(
    "asInt asFloat toJson jsonpath string int float len type all none any one filter find findIndex findLast "  # noqa: SIM905
    "findLastIndex count sum groupBy sortBy map reduce abs ceil floor round trim trimPrefix trimSuffix upper lower "
    "split splitAfter replace repeat join indexOf lastIndexOf hasPrefix hasSuffix max min mean median toJSON fromJSON "
    "toBase64 fromBase64 now duration date timezone first last get take keys values toPairs fromPairs reverse uniq "
    "concat flatten sort bitand bitor bitxor bitnand bitnot bitshl bitshr bitushr".split()
)
_LIBRARIES = frozenset({"sprig"})


@dataclass(frozen=True)
class NodeOutputs:
    """What others can read of a task or step.

    :param parameters: names of its output parameters; None where its template is not in this file.
    """

    template: str = ""
    parameters: frozenset[str] | None = None
    artifacts: frozenset[str] | None = None
    has_result: bool = True
    is_daemon: bool = False
    is_loop: bool = False


@dataclass(frozen=True)
class Nodes:
    """The tasks (or steps) that a place can name.

    :param root: `tasks` or `steps`.
    :param sees: whether a node is over before the place is reached.
    """

    root: str
    outputs: Mapping[str, NodeOutputs]
    sees: Callable[[str], bool] = lambda name: True
    unseen: str = ""


@dataclass(frozen=True)
class GlobalVariables:
    """What `workflow.` knows in one document.

    :param parameters: names of the workflow's arguments; None where they are in another file.
    """

    kind: str
    parameters: frozenset[str] | None = frozenset()
    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    output_parameters: frozenset[str] | None = frozenset()
    output_artifacts: frozenset[str] | None = frozenset()
    has_priority: bool = False


@dataclass(frozen=True)
class Variables:
    """What one place knows.

    :param inputs: names of the template's input parameters; None where any may be.
    :param item_keys: the keys of the loop's items; empty for items that are no mappings, None for any.
    :param in_exit: whether the place is reached when the workflow has ended.
    """

    workflow: GlobalVariables
    inputs: frozenset[str] | None = frozenset()
    input_artifacts: frozenset[str] | None = frozenset()
    outputs: frozenset[str] | None = frozenset()
    output_artifacts: frozenset[str] | None = frozenset()
    nodes: Nodes | None = None
    has_item: bool = False
    item_keys: frozenset[str] | None = None
    has_retries: bool = False
    is_pod: bool = False
    in_exit: bool = False
    in_metrics: bool = False
    more_roots: frozenset[str] = field(default_factory=frozenset)

    def problem(self, parts: Parts, *, partly: bool = False) -> str | None:
        """Return why a variable cannot be resolved here, None where it can.

        :param parts: its name, `("inputs", "parameters", "x")`.
        :param partly: whether a whole branch, such as `inputs.parameters`, may be named: in expressions.
        """
        root, rest = parts[0], parts[1:]
        if root in self.more_roots or (self.in_metrics and root in _METRIC):
            return None
        check = _ROOTS.get(root)
        if check is None:
            return f"{root!r} is no variable of Argo"
        return check(self, rest, partly)

    def knows(self, root: str) -> bool:
        """Whether a first word is one of Argo's variables at all."""
        return root in _ROOTS or root in self.more_roots or (self.in_metrics and root in _METRIC)

    def _workflow(self, rest: Parts, partly: bool) -> str | None:
        return _workflow_problem(self, rest, partly)

    def _inputs(self, rest: Parts, partly: bool) -> str | None:
        if not rest:
            return _incomplete("inputs", partly)
        kind, *names = rest
        if kind == "parameters":
            if not names:
                return None if partly or self.inputs is None or self.inputs else "the template has no input parameters"
            return _missing(".".join(names), self.inputs, "the template has no input parameter")
        if kind == "artifacts":
            if not names:
                return _incomplete("inputs.artifacts", partly)
            return _missing(names[0], self.input_artifacts, "the template has no input artifact")
        return f"inputs has parameters and artifacts, not {kind!r}"

    def _outputs(self, rest: Parts, partly: bool) -> str | None:
        if not rest:
            return _incomplete("outputs", partly)
        if rest == ("result",) and (self.in_metrics or partly):
            return None
        if len(rest) > 1 and rest[0] in ("parameters", "artifacts"):
            known = self.outputs if rest[0] == "parameters" else self.output_artifacts
            return _missing(rest[1], known, f"the template has no output {rest[0][:-1]}")
        return None if partly else f"outputs.{'.'.join(rest)} is not known: write outputs.parameters.NAME.path"

    def _tasks(self, rest: Parts, partly: bool) -> str | None:
        return self._node("tasks", rest, partly)

    def _steps(self, rest: Parts, partly: bool) -> str | None:
        return self._node("steps", rest, partly)

    def _node(self, root: str, rest: Parts, partly: bool) -> str | None:
        if self.nodes is None or self.nodes.root != root:
            where = "DAG" if root == "tasks" else "steps"
            return f"{root} are known only in a {where} template: pass the value on as an argument"
        if not rest:
            return _incomplete(root, partly)
        name, facts = rest[0], rest[1:]
        if rest == ("name",):
            return None
        outputs = self.nodes.outputs.get(name)
        word = root[:-1]
        if outputs is None:
            if partly and any(each.startswith(f"{name}-") for each in self.nodes.outputs):
                return f"no {word} has the name {name!r}: a name with '-' is written {root}['{name}-…']"
            return f"no {word} has the name {name!r}{_near(name, self.nodes.outputs)}"
        if not self.nodes.sees(name):
            return f"{self.nodes.unseen} {name!r}: only {word}s that are over can be read"
        return _fact_problem(f"{root}.{name}", outputs, facts, partly)

    def _item(self, rest: Parts, partly: bool) -> str | None:
        if not self.has_item:
            return "item is known only in a task or step with withItems, withParam or withSequence"
        if not rest or self.item_keys is None:
            return None
        key = ".".join(rest)
        if not self.item_keys:
            return f"the items are no mappings: item.{key} is not in them"
        if key in self.item_keys:
            return None
        return f"the items have no key {shown(key)} in common{_near(key, self.item_keys)}"

    def _retries(self, rest: Parts, partly: bool) -> str | None:
        return None if self.has_retries else "retries is known only in a template with a retryStrategy"

    def _last_retry(self, rest: Parts, partly: bool) -> str | None:
        if not self.has_retries:
            return "lastRetry is known only in a template with a retryStrategy"
        if not rest:
            return _incomplete("lastRetry", partly)
        return _missing(rest[0], _LAST_RETRY, "lastRetry has no")

    def _pod(self, rest: Parts, partly: bool) -> str | None:
        if not self.is_pod:
            return "pod.name is known only in a template that runs a pod"
        return None if rest == ("name",) else "of the pod only pod.name is known"

    def _node_name(self, rest: Parts, partly: bool) -> str | None:
        return None if rest == ("name",) else "of the node only node.name is known"


def function_problem(name: str) -> str | None:
    """Return why a function cannot be called in an expression, None where it can."""
    if name in _FUNCTIONS or name in _LIBRARIES:
        return None
    return f"no function has the name {name!r}{_near(name, _FUNCTIONS)}"


_ROOTS: dict[str, Callable[[Variables, Parts, bool], str | None]] = {
    "workflow": Variables._workflow,
    "inputs": Variables._inputs,
    "outputs": Variables._outputs,
    "tasks": Variables._tasks,
    "steps": Variables._steps,
    "item": Variables._item,
    "retries": Variables._retries,
    "lastRetry": Variables._last_retry,
    "pod": Variables._pod,
    "node": Variables._node_name,
}


def _workflow_problem(known: Variables, rest: Parts, partly: bool) -> str | None:
    scope = known.workflow
    if not rest:
        return _incomplete("workflow", partly)
    what, name = rest[0], ".".join(rest[1:])
    if what in _WORKFLOW_ALWAYS:
        return f"workflow.{what} has no {name!r}" if name else None
    if what == "parameters":
        return _parameters_problem(scope, name)
    if what in ("labels", "annotations"):
        return _metadata_problem(what, name, scope.labels if what == "labels" else scope.annotations)
    if what == "outputs":
        return _workflow_outputs_problem(scope, rest[1:], partly)
    if what == "creationTimestamp":
        good = not name or name == "RFC3339" or len(name) == 1
        return None if good else f"creationTimestamp has no {name!r}: RFC3339 or one letter of strftime"
    if what == "scheduledTime":
        if scope.kind in ("CronWorkflow", "WorkflowTemplate", "ClusterWorkflowTemplate"):
            return None
        return f"workflow.scheduledTime is known only in a CronWorkflow, this is a {scope.kind}"
    if what == "priority":
        return None if scope.has_priority else "workflow.priority is known only with spec.priority"
    if what in ("status", "failures"):
        return None if known.in_exit else f"workflow.{what} is known only in exit handlers (onExit, hooks)"
    return f"the workflow has no {what!r}{_near(what, _WORKFLOW)}"


def _parameters_problem(scope: GlobalVariables, name: str) -> str | None:
    if scope.parameters is None:
        return None
    if name in ("", "json") and name not in scope.parameters:
        return None if scope.parameters else "the workflow has no parameters: spec.arguments.parameters is empty"
    return _missing(name, scope.parameters, "the workflow has no parameter")


def _metadata_problem(what: str, name: str, known: frozenset[str]) -> str | None:
    if name in ("", "json") or name.startswith(_ARGO_LABELS):
        return None
    return _missing(name, known, f"the workflow has no {what[:-1]}")


def _workflow_outputs_problem(scope: GlobalVariables, rest: Parts, partly: bool) -> str | None:
    if not rest or rest[0] not in ("parameters", "artifacts"):
        return "workflow.outputs has parameters and artifacts"
    if len(rest) == 1:
        return _incomplete(f"workflow.outputs.{rest[0]}", partly)
    names = scope.output_parameters if rest[0] == "parameters" else scope.output_artifacts
    return _missing(".".join(rest[1:]), names, f"no template has an output {rest[0][:-1]} with the globalName")


def _fact_problem(node: str, outputs: NodeOutputs, facts: Parts, partly: bool) -> str | None:
    if not facts:
        return _incomplete(node, partly)
    if facts[0] in _NODE_FACTS:
        return None if len(facts) == 1 else f"{node}.{facts[0]} has no {'.'.join(facts[1:])!r}"
    if facts[0] == "ip":
        return None if outputs.is_daemon or outputs.parameters is None else f"{node} has no ip: it is no daemon"
    if facts == ("exitCode",) or facts == ("outputs", "result"):
        return None if outputs.has_result else f"{node} has no {'.'.join(facts)}: its template runs no container"
    if facts[0] != "outputs":
        return f"{node} has no {facts[0]!r}{_near(facts[0], (*_NODE_FACTS, 'exitCode', 'outputs'))}"
    if len(facts) == 1:
        return _incomplete(f"{node}.outputs", partly)
    kind, names = facts[1], facts[2:]
    if kind not in ("parameters", "artifacts"):
        return f"{node}.outputs has no {kind!r}: parameters, artifacts and result are there"
    if not names:
        if partly or (outputs.is_loop and kind == "parameters"):
            return None
        return f"{node}.outputs.{kind} as a whole is known only of loops: name one of them"
    known = outputs.parameters if kind == "parameters" else outputs.artifacts
    return _missing(names[0], known, f"the template {outputs.template!r} of {node} has no output {kind[:-1]}")


def _missing(name: str, known: Iterable[str] | None, what: str) -> str | None:
    if known is None or name in known:
        return None
    return f"{what} {shown(name)}{_near(name, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known).removesuffix(";")


def _incomplete(name: str, partly: bool) -> str | None:
    return None if partly else f"{name} is no value: name what of it is meant"
