"""What lies around Argo, as the simulator has it: Kubernetes' names and variables, Linux' limits, Go's quotes, slots.

By Argo's `util/template`, `workflow/util/pod_name.go` and `workflowpod.go`, and the kubelet's `expansion.Expand`.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from argo_simulator import Result, SimulationRefused, simulate

SOURCE = "{{=sprig.b64enc(toJson(sprig.omit(workflow.parameters, 'json')))}}"


def script(name: str = "task", source: str = "", **fields: Any) -> dict[str, Any]:
    body = {"image": "x", "command": ["sh", "-c"], "args": ['cat "$0"'], "source": source}
    return {"name": name, "script": body, **fields}


def run(tmp_path: Path, *templates: dict[str, Any], names: tuple[str, ...] = ("a",), **options: Any) -> Result:
    tasks = [{"name": name, "template": templates[0]["name"]} for name in names]
    spec = {"entrypoint": "dag", "templates": [{"name": "dag", "dag": {"tasks": tasks}}, *templates]}
    spec |= options.pop("spec", {})
    document = {"kind": "Workflow", "metadata": {"name": "wf"}, "spec": spec}
    return simulate(document, options.pop("parameters", {}), workdir=tmp_path, timeout=60, **options)


def test_a_pod_with_a_capital_letter_in_its_name_is_refused_at_every_try(tmp_path: Path) -> None:
    strategy = {"limit": "2", "retryPolicy": "Always", "backoff": {"duration": "1s"}}
    node = run(tmp_path, script("task-Load", retryStrategy=strategy)).node("a")
    assert node.phase == "Error"
    assert node.message == "No more retries left"
    single = run(tmp_path / "single", script("task-Load")).node("a")
    assert single.phase == "Error"
    assert single.message.startswith('Pod "wf-task-Load-')
    assert "a lowercase RFC 1123 subdomain must consist of" in single.message


def test_a_task_and_a_dag_may_have_capital_letters(tmp_path: Path) -> None:
    result = run(tmp_path, script(), names=("Load", "load"))
    assert result.phase == "Succeeded", result.report()


@pytest.mark.parametrize("value", ["a\x7fb", "a\ab", "\U000e0067", "\U0010ffff"])
def test_a_plain_tag_cannot_have_what_go_does_not_write_as_json(value: str, tmp_path: Path) -> None:
    arguments = {"arguments": {"parameters": [{"name": "text", "value": value}]}}
    plain = run(tmp_path, script(source="{{workflow.parameters.text}}"), spec=arguments).node("a")
    assert (plain.phase, "invalid JSON" in plain.message) == ("Error", True)
    encoded = run(tmp_path / "encoded", script(source=SOURCE), spec=arguments).node("a")
    assert json.loads(base64.b64decode(encoded.log)) == {"text": value}


def test_an_expression_has_every_parameter_by_its_name(tmp_path: Path) -> None:
    given = {"json": "[]", "n": "<&>\u2028", "n-2": "{{workflow.name}}", "empty": ""}
    parameters = {"arguments": {"parameters": [{"name": name, "value": value} for name, value in given.items()]}}
    whole = run(tmp_path, script(source="{{=sprig.b64enc(toJson(workflow.parameters))}}"), spec=parameters).node("a")
    assert json.loads(base64.b64decode(whole.log)) == given
    assert b"\\u003c\\u0026\\u003e\\u2028" in base64.b64decode(whole.log), "as Go's encoder writes them"
    least = run(tmp_path / "least", script(source=SOURCE), spec=parameters).node("a")
    assert json.loads(base64.b64decode(least.log)) == {name: given[name] for name in given if name != "json"}


def test_kubernetes_knows_only_the_variables_of_the_pod(tmp_path: Path) -> None:
    """In a value only those of `env` before it; what the image has is no variable of the pod."""
    body = {
        "image": "x",
        "command": ["sh", "-c", 'echo "$A|$B|$C|$*"', "sh"],
        "args": ["$(FROM) $$ $$(A) $(HOME) $(B) $(odd name) $(", "$x ${A}"],
        "env": [
            {"name": "A", "value": "$(B)$(FROM)"},
            {"name": "B", "value": "b$$"},
            {"name": "C", "value": "$(B)"},
        ],
        "envFrom": [{"secretRef": {"name": "s"}}],
    }
    log = run(tmp_path, {"name": "task", "container": body}, secrets={"s": {"FROM": "secret"}}).node("a").log
    assert log == "$(B)$(FROM)|b$|b$|secret $ $(A) $(HOME) b$ $(odd name) $( $x ${A}\n"


@pytest.mark.parametrize("size", [131_071, 131_072])
@pytest.mark.parametrize("place", ["argument", "variable"])
def test_linux_takes_no_longer_argument_or_variable(size: int, place: str, tmp_path: Path) -> None:
    body: dict[str, Any] = {"image": "x", "command": ["sh", "-c", "echo started"]}
    if place == "argument":
        body["args"] = ["x" * size]
    else:
        body["env"] = [{"name": "A", "value": "x" * (size - 2)}]
    node = run(tmp_path, {"name": "task", "container": body}).node("a")
    assert (node.phase, node.exit_code) == (("Succeeded", 0) if size < 131_072 else ("Failed", 128))
    assert ("argument list too long" in node.log) == (size == 131_072)


def test_a_pods_template_fits_into_a_config_map(tmp_path: Path) -> None:
    def with_param(size: int) -> Result:
        arguments = {"arguments": {"parameters": [{"name": "big", "value": "x" * size}]}}
        return run(tmp_path / str(size), script(source=SOURCE), spec=arguments)

    assert with_param(700_000).phase == "Succeeded"
    node = with_param(800_000).node("a")
    assert (node.phase, "ConfigMap is invalid" in node.message) == ("Error", True)


@pytest.mark.parametrize(("kind", "size"), [("Workflow", 1_050_000), ("WorkflowTemplate", 530_000)])
def test_a_workflow_is_one_object_which_has_what_a_template_was_given_twice(kind: str, size: int) -> None:
    spec = {
        "entrypoint": "task",
        "arguments": {"parameters": [{"name": "big", "value": ""}]},
        "templates": [script(source="{{workflow.parameters.big}}")],
    }
    document = {"kind": kind, "metadata": {"name": "wf"}, "spec": spec}
    with pytest.raises(SimulationRefused, match="longer than maximum allowed size"):
        simulate(document, {"big": "x" * size})


@pytest.mark.parametrize("limits", [{"parallelism": 1}, {}], ids=["parallelism", "semaphore"])
def test_the_order_of_waiting_pods_is_open(limits: dict[str, Any], tmp_path: Path) -> None:
    """A seed picks it; each pod still has its turn, and no more at once than there are slots."""
    lock = {} if limits else {"synchronization": {"mutexes": [{"name": "m"}]}}
    names = tuple("abcdefgh")

    def order(seed: int | None) -> str:
        result = run(tmp_path / str(seed), script(**lock), names=names, spec=limits, order=seed, max_pods=8)
        assert result.phase == "Succeeded", result.report()
        assert max(result.most_pods, *result.held.values(), 0) == 1
        return "".join(sorted(names, key=lambda name: result.node(name).tries[0].started))

    assert order(None) == "abcdefgh"
    assert len({order(seed) for seed in range(4)}) > 1
