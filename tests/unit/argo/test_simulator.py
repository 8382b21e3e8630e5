"""The simulator of Argo's controller itself, with plain shell commands in the place of `raynode`.

The expected phases are those of the controller's source; each test says which part of it.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from argo_simulator import Result, SimulationRefused, Unsupported, simulate

OUT = "/tmp/raynode-outputs"
SUCCEEDED_OR_SKIPPED = "({0}.Succeeded || {0}.Skipped)"


def pod(script: str, **fields: Any) -> dict[str, Any]:
    """A template with the inputs `do` and `map` that runs a shell script with `$1` and `$2` of them."""
    return {
        "name": "task",
        "inputs": {"parameters": [{"name": "do", "default": "true"}, {"name": "map", "default": "{}"}]},
        "outputs": {
            "parameters": [
                {"name": "state", "valueFrom": {"path": f"{OUT}/state", "default": "skipped"}},
                {"name": "items", "valueFrom": {"path": f"{OUT}/items", "default": "[]"}},
            ]
        },
        "container": {
            "image": "x",
            "command": ["sh", "-c"],
            "args": [f"mkdir -p {OUT}; {script}", "sh", "{{inputs.parameters.do}}", "{{inputs.parameters.map}}"],
        },
        **fields,
    }


SHELL = 'eval "$1"'


def task(name: str, do: str = "true", depends: str = "", template: str = "task", **fields: Any) -> dict[str, Any]:
    arguments = {"parameters": [{"name": "do", "value": do}]} if template == "task" else {}
    found = {"name": name, "template": template, "arguments": arguments, **fields}
    return {**found, "depends": depends} if depends else found


def workflow(tasks: list[dict[str, Any]], *more: dict[str, Any], dag: dict[str, Any] | None = None, **spec: Any) -> Any:
    templates = [{"name": "dag", "dag": {"failFast": False, "tasks": tasks, **(dag or {})}}, *more]
    if not any(each["name"] == "task" for each in more):
        templates.append(pod(SHELL))
    return {
        "kind": "Workflow",
        "metadata": {"name": "wf"},
        "spec": {"entrypoint": "dag", "templates": templates, **spec},
    }


def run(document: Any, tmp_path: Path, **options: Any) -> Result:
    return simulate(document, options.pop("parameters", {}), workdir=tmp_path, timeout=60, **options)


# ---- dependencies and phases (executeDAGTask, evaluateDependsLogic, assessDAGPhase)


def test_a_task_runs_after_what_it_depends_on_and_reads_its_outputs(tmp_path: Path) -> None:
    document = workflow(
        [
            task("a", f"echo success > {OUT}/state"),
            task("b", "echo state={{tasks.a.outputs.parameters.state}}", "a"),
        ]
    )
    result = run(document, tmp_path)
    assert result.phase == "Succeeded", result.report()
    assert result.node("a").outputs == {"state": "success", "items": "[]"}
    assert result.node("b").log == "state=success\n"
    assert result.unresolved == []


@pytest.mark.parametrize(
    ("depends", "phase"),
    [
        ("good", "Succeeded"),
        ("bad", "Omitted"),
        ("bad.Failed", "Succeeded"),
        ("bad.Succeeded || good.Succeeded", "Succeeded"),
        ("bad.Errored", "Omitted"),
        ("error.Errored && !error.Failed", "Succeeded"),
        ("skipped.Skipped", "Succeeded"),
        ("skipped", "Succeeded"),
        ("omitted.Omitted", "Succeeded"),
        ("omitted", "Omitted"),
        ("loop.AnySucceeded", "Succeeded"),
        ("loop.AllFailed", "Omitted"),
        ("loop.Failed && !loop.Succeeded", "Succeeded"),
        ("bad-er.Failed && good", "Succeeded"),
        *((f"{each} || !{each}", "Succeeded") for each in ("good", "bad", "error", "skipped", "omitted", "loop")),
        ("good && (bad-er || !bad-er)", "Succeeded"),
        ("bad && (good || !good)", "Omitted"),
    ],
)
def test_qualifiers(tmp_path: Path, depends: str, phase: str) -> None:
    """A bare name includes Skipped (expandDependency); AllFailed ignores Error (evaluateDependsLogic)."""
    loop = {"arguments": {"parameters": [{"name": "do", "value": "exit {{item}}"}]}, "withItems": [0, 1]}
    tasks = [
        task("good"),
        task("bad", "exit 1"),
        task("bad-er", "exit 2"),
        task("error", when="{{= 1 }}"),
        task("skipped", when="false"),
        task("omitted", depends="bad.Succeeded"),
        {**task("loop"), **loop},
        task("z", depends=depends),
    ]
    result = run(workflow(tasks), tmp_path, max_pods=4)
    assert result.node("z").phase == phase, result.report()
    assert result.node("error").phase == "Error"


def test_depends_waits_for_all_that_it_names(tmp_path: Path) -> None:
    """`proceed` is false while one of them runs, though the other would already be enough."""
    result = run(
        workflow([task("fast"), task("slow", "sleep 0.5"), task("z", depends="fast.Succeeded || slow.Succeeded")]),
        tmp_path,
    )
    slow, z = result.node("slow"), result.node("z")
    assert slow.finished is not None and z.started >= slow.finished


@pytest.mark.parametrize(
    ("tasks", "phase"),
    [
        # A leaf of its own phase does not inherit: a successful teardown hides the failure before it.
        ([task("a", "exit 1"), task("b", depends="a.Failed")], "Succeeded"),
        # An omitted leaf has its parents' phase, over any number of omitted ones.
        ([task("a", "exit 1"), task("b", depends="a"), task("c", depends="b")], "Failed"),
        ([task("a"), task("b", depends="a.Failed")], "Succeeded"),
        # A skipped leaf too; a failure among the parents outranks success.
        ([task("a", "exit 1"), task("g"), task("b", depends="a.Failed && g", when="false")], "Failed"),
        ([task("a", when="{{= 1 }}"), task("b", depends="a")], "Error"),
        # The last completed node before it counts, not those further up.
        ([task("a", "exit 1"), task("b", depends="a.Failed"), task("c", depends="b.Failed")], "Succeeded"),
        # Of two failed leaves the last in the order of names counts where failFast is off.
        ([task("a", "exit 1"), task("b", when="{{= 1 }}")], "Error"),
        ([task("b", "exit 1"), task("a", when="{{= 1 }}")], "Failed"),
        # continueOn of a leaf.
        ([task("a", "exit 1", continueOn={"failed": True})], "Succeeded"),
        ([], "Succeeded"),
    ],
)
def test_phase_of_a_dag(tmp_path: Path, tasks: list[dict[str, Any]], phase: str) -> None:
    assert run(workflow(tasks), tmp_path).phase == phase


def test_fail_fast_takes_the_first_failed_leaf_and_still_awaits_the_rest(tmp_path: Path) -> None:
    tasks = [task("a", "exit 1"), task("b", when="{{= 1 }}"), task("c"), task("d", "sleep 0.2", "c")]
    result = run(workflow(tasks, dag={"failFast": True}), tmp_path)
    assert (result.phase, result.node("d").phase) == ("Failed", "Succeeded")


def test_a_branch_inherits_through_a_sub_dag_from_its_leaves(tmp_path: Path) -> None:
    """What follows a sub-DAG hangs below its outbound nodes (getOutboundNodes)."""
    inner = {"name": "inner", "dag": {"failFast": False, "tasks": [task("x", "exit 1"), task("y")]}}
    result = run(workflow([task("g", template="inner"), task("after", depends="g")], inner), tmp_path)
    assert result.phases() == {
        "": "Failed",
        "g": "Failed",
        "g.x": "Failed",
        "g.y": "Succeeded",
        "after": "Omitted",
    }


def test_dependencies_is_the_old_form_of_depends(tmp_path: Path) -> None:
    tasks = [task("a", "exit 1", continueOn={"failed": True}), {**task("b"), "dependencies": ["a"]}]
    assert run(workflow(tasks), tmp_path).node("b").phase == "Succeeded"


# ---- when, tags (shouldExecute, resolveDependencyReferences)


@pytest.mark.parametrize(
    ("when", "phase"),
    [
        ("true", "Succeeded"),
        ("{{= tasks['a'].status == 'Succeeded' && tasks['a'].outputs.parameters.state == 'success' }}", "Succeeded"),
        ("{{= tasks['a'].outputs.parameters.state != 'success' }}", "Skipped"),
        ("{{tasks.a.outputs.parameters.state}} == success", "Succeeded"),
        ("{{tasks.a.status}} != Succeeded", "Skipped"),
        ("{{= tasks['a'].outputs.parameters.nothing == 'x' }}", "Error"),
        ("{{= tasks['b'].status == 'x' }}", "Error"),
        ("{{= tasks['a'].status }}", "Error"),
        ("{{tasks.a.outputs.parameters.empty}} == ''", "refused"),
        ("{{unknown}} == x", "Error"),
    ],
)
def test_when(tmp_path: Path, when: str, phase: str) -> None:
    document = workflow([task("a", f"printf success > {OUT}/state"), task("z", depends="a", when=when)])
    if phase == "refused":
        with pytest.raises(SimulationRefused, match="failed to resolve"):
            run(document, tmp_path)
    else:
        assert run(document, tmp_path).node("z").phase == phase


def test_outputs_of_skipped_and_omitted_tasks_are_the_defaults(tmp_path: Path) -> None:
    """addSkippedNodeOutputsToScope."""
    tasks = [
        task("s", when="false"),
        task("o", depends="s.Failed"),
        task("z", "echo {{tasks.s.outputs.parameters.state}} {{tasks.o.outputs.parameters.items}}", "s && o.Omitted"),
    ]
    assert run(workflow(tasks), tmp_path).node("z").log == "skipped []\n"


def test_a_lost_pod_has_no_outputs_so_a_reference_to_them_is_an_error(tmp_path: Path) -> None:
    """Argo 4 waits for ever for the missing variable (ReplaceStrictAny), short circuit or not."""
    when = "{{= tasks['a'].status != 'Error' && tasks['a'].outputs.parameters.state == 'success' }}"
    tasks = [
        task("a"),
        task("z", depends="a.Errored", when=when),
        task("status", "echo {{tasks.a.status}}", "a.Errored"),
    ]
    result = run(workflow(tasks), tmp_path, lose_pod=lambda path, number: "pod deleted" if path == "a" else None)
    assert (result.node("a").phase, result.node("a").message) == ("Error", "pod deleted")
    assert result.node("z").phase == "Error" and "is missing" in result.node("z").message
    assert result.node("status").log == "Error\n"


def test_a_failed_pod_has_outputs(tmp_path: Path) -> None:
    tasks = [
        task("a", f"echo failed > {OUT}/state; exit 3"),
        task("z", "echo {{tasks.a.outputs.parameters.state}}", "a.Failed"),
    ]
    result = run(workflow(tasks), tmp_path)
    assert result.node("z").log == "failed\n"
    assert (result.node("a").exit_code, result.node("a").message) == (3, "main: Error (exit code 3)")


def test_an_unknown_tag_stays_and_is_told(tmp_path: Path) -> None:
    """Only tags of known prefixes are checked; `{{retries}}` needs a retryStrategy."""
    result = run(workflow([task("a", "echo '{{ ds }} {{retries}}'")]), tmp_path)
    assert result.node("a").log == "{{ ds }} {{retries}}\n"
    assert result.unresolved == [("a", " ds "), ("a", "retries")]


def test_a_variable_of_the_workflow_in_an_expression_with_an_input_stays(tmp_path: Path) -> None:
    """The inputs are replaced in a pass of their own (SubstituteParams)."""
    document = workflow([task("a", "x")], pod("echo '{{=inputs.parameters.do + workflow.name}}'"))
    assert run(document, tmp_path).node("a").log == "{{=inputs.parameters.do + workflow.name}}\n"


def test_an_output_file_that_is_missing_without_a_default_is_an_error(tmp_path: Path) -> None:
    outputs = {"parameters": [{"name": "x", "valueFrom": {"path": "/tmp/x"}}]}
    template = pod(SHELL, outputs=outputs)
    template["container"]["args"][0] = SHELL  # makes no folder
    result = run(workflow([task("a"), task("b", "echo 1 > /tmp/x")], template), tmp_path)
    assert (result.node("a").phase, result.node("b").outputs) == ("Error", {"x": "1"})


# ---- loops (expandTask, processAggregateNodeOutputs)


def looped(name: str, do: str, depends: str = "", **fields: Any) -> dict[str, Any]:
    return task(name, do, depends, **fields)


def test_with_items(tmp_path: Path) -> None:
    items = [0, "b", {"x": 1, "y": "z"}]
    result = run(workflow([task("c", "echo '{{item}}'", withItems=items)]), tmp_path)
    assert [result.node(f"c({n})").log.strip() for n in range(3)] == ["0", "b", '{"x":1,"y":"z"}']
    assert result.node("c(2)").name == "wf.c(2:x:1,y:z)"
    assert result.node("c").kind == "TaskGroup"


def test_with_param_over_an_output_and_the_aggregated_outputs(tmp_path: Path) -> None:
    tasks = [
        task("a", f"echo '[2, 0, 1]' > {OUT}/items"),
        task("c", f"echo {{{{item}}}} > {OUT}/state", "a", withParam="{{tasks.a.outputs.parameters.items}}"),
        task("z", "echo '{{tasks.c.outputs.parameters.state}} {{tasks.c.outputs.parameters.items}}'", "c"),
        task("y", "echo '{{tasks.c.outputs.parameters}}'", "c"),
    ]
    result = run(workflow(tasks), tmp_path)
    assert result.node("z").log == '["2","0","1"] [[],[],[]]\n'
    assert json.loads(result.node("y").log)[1] == {"state": "0", "items": "[]"}


def test_map_in_json(tmp_path: Path) -> None:
    arguments = {"parameters": [{"name": "do", "value": ""}, {"name": "map", "value": '{"map_index": {{item}}}'}]}
    document = workflow([{**task("c", withItems=[3]), "arguments": arguments}], pod('echo "$2"'))
    assert run(document, tmp_path).node("c(0)").log == '{"map_index": 3}\n'


def test_an_empty_list_is_skipped_and_empty_items_run_once(tmp_path: Path) -> None:
    """len(expandedTasks) == 0 needs withParam: an empty withItems does not expand (ShouldExpand)."""
    tasks = [task("a", withParam="[]"), task("b", withItems=[]), task("c", depends="a")]
    result = run(workflow(tasks), tmp_path)
    assert result.node("a").message == "Skipped, empty params"
    assert {path: phase for path, phase in result.phases().items() if path} == {
        "a": "Skipped",
        "b": "Succeeded",
        "c": "Succeeded",
    }


def test_with_sequence(tmp_path: Path) -> None:
    result = run(workflow([task("c", "echo {{item}}", withSequence={"count": 2, "start": 5})]), tmp_path)
    assert [result.node(f"c({n})").log for n in (0, 1)] == ["5\n", "6\n"]


@pytest.mark.parametrize(
    ("codes", "when", "phase"),
    [
        (["true", "true"], "", "Succeeded"),
        (["true", "exit 1"], "", "Failed"),
        (["true", "true"], "{{item}} == 'x'", "Succeeded"),
        (["exit 1", "true"], "'{{item}}' == 'true'", "Succeeded"),
    ],
)
def test_phase_of_a_loop_and_when_of_each_item(tmp_path: Path, codes: list[str], when: str, phase: str) -> None:
    result = run(workflow([task("c", "{{item}}", withItems=codes, **({"when": when} if when else {}))]), tmp_path)
    assert result.node("c").phase == phase, result.report()


def test_a_loop_has_no_status_of_its_own(tmp_path: Path) -> None:
    """buildLocalScopeFromTask gives a TaskGroup's aggregated outputs only."""
    tasks = [task("c", withItems=[1]), task("z", depends="c", when="{{= tasks['c'].status == 'Succeeded' }}")]
    assert "tasks.c.status is missing" in run(workflow(tasks), tmp_path).node("z").message


@pytest.mark.parametrize("text", ["{}", "nothing"])
def test_with_param_that_is_no_list(tmp_path: Path, text: str) -> None:
    result = run(workflow([task("c", withParam=text), task("d", withParam=text, when="false")]), tmp_path)
    assert (result.node("c").phase, result.node("d").phase) == ("Error", "Skipped")


def test_a_sub_dag_for_each_item(tmp_path: Path) -> None:
    inner = {
        "name": "group",
        "inputs": {"parameters": [{"name": "index"}]},
        "outputs": {
            "parameters": [{"name": "last", "valueFrom": {"parameter": "{{tasks.y.outputs.parameters.state}}"}}]
        },
        "dag": {
            "tasks": [
                task("x", f"echo x{{{{inputs.parameters.index}}}} > {OUT}/state"),
                task(
                    "y",
                    f"echo y{{{{tasks.x.outputs.parameters.state}}}} > {OUT}/state",
                    "x",
                    when="{{= tasks['x'].outputs.parameters.state != 'x' }}",
                ),
            ]
        },
    }
    arguments = {"parameters": [{"name": "index", "value": "{{item}}"}]}
    tasks = [
        {**task("search", template="group", withItems=[0, 1]), "arguments": arguments},
        task("z", "echo '{{tasks.search.outputs.parameters.last}}'", "search"),
    ]
    result = run(workflow(tasks, inner), tmp_path)
    assert result.node("search(1).y").outputs == {"state": "yx1", "items": "[]"}, result.report()
    assert result.node("z").log == '["yx0","yx1"]\n'


# ---- retries (processNodeRetries)


def retried(script: str, **strategy: Any) -> dict[str, Any]:
    return pod(script, retryStrategy=strategy)


def test_tries_until_it_succeeds(tmp_path: Path) -> None:
    script = f"echo {{{{retries}}}} > {OUT}/state; "
    script += "echo after {{lastRetry.exitCode}} {{lastRetry.status}}; [ {{retries}} = 2 ]"
    result = run(workflow([task("a")], retried(script, limit="3", retryPolicy="Always")), tmp_path)
    node = result.node("a")
    assert (node.phase, node.exit_code, [each.exit_code for each in node.tries]) == ("Succeeded", 0, [1, 1, 0])
    assert node.outputs == {"state": "2", "items": "[]"}
    assert [each.log for each in node.tries] == ["after 0\n", "after 1 Failed\n", "after 1 Failed\n"]


@pytest.mark.parametrize(
    ("strategy", "tries", "message"),
    [
        ({"limit": "2"}, 3, "No more retries left"),
        ({"limit": 0}, 1, "No more retries left"),
        ({"limit": "2", "retryPolicy": "OnError"}, 1, "main: Error (exit code 7)"),
        (
            {"limit": "2", "expression": "!(lastRetry.exitCode in ['7'])"},
            1,
            "retryStrategy.expression evaluated to false",
        ),
        ({"limit": "5", "expression": "asInt(retries) < 1"}, 2, "retryStrategy.expression evaluated to false"),
        ({"limit": "2", "expression": "lastRetry.exitCode"}, 1, "neither true nor false"),
        ({"limit": "5", "backoff": {"duration": "10s", "maxDuration": "5s"}}, 1, "Backoff would exceed max duration"),
    ],
)
def test_the_end_of_tries(tmp_path: Path, strategy: dict[str, Any], tries: int, message: str) -> None:
    node = run(workflow([task("a")], retried("exit 7", **strategy)), tmp_path).node("a")
    assert len(node.tries) == tries
    assert message in node.message
    assert node.phase == ("Error" if "neither" in message else "Failed")


def test_the_expression_sees_minus_one_where_there_is_no_exit_code(tmp_path: Path) -> None:
    template = retried("true", limit="3", retryPolicy="Always", expression="lastRetry.exitCode == '-1'")
    lost = {0: "pod deleted"}
    node = run(workflow([task("a")], template), tmp_path, lose_pod=lambda path, number: lost.get(number)).node("a")
    assert [each.phase for each in node.tries] == ["Error", "Succeeded"]


def test_backoff_is_scaled(tmp_path: Path) -> None:
    template = retried("exit 1", limit="2", backoff={"duration": "1m", "factor": "3", "cap": "2m"})
    start = time.monotonic()
    node = run(workflow([task("a")], template), tmp_path, time_scale=0.005).node("a")
    assert len(node.tries) == 3
    # 60 s, then 3 times as much but 120 s at most.
    assert 0.9 <= time.monotonic() - start < 3


def test_what_follows_a_retried_task(tmp_path: Path) -> None:
    tasks = [task("a"), task("b", depends="a", template="other"), task("c", depends="a.Failed", template="other")]
    document = workflow(tasks, retried("exit 1", limit="1"), {**pod("true"), "name": "other"})
    result = run(document, tmp_path)
    assert (result.phase, result.node("b").phase, result.node("c").phase) == ("Failed", "Omitted", "Succeeded")


# ---- deadlines, stop


def test_active_deadline_of_a_pod(tmp_path: Path) -> None:
    script = f"trap 'echo stopped; echo failed > {OUT}/state; exit 143' TERM; sleep 30 & wait"
    result = run(workflow([task("a")], pod(script, activeDeadlineSeconds=1)), tmp_path)
    node = result.node("a")
    assert (node.phase, node.exit_code) == ("Failed", 143)
    assert node.message == "Pod was active on the node longer than the specified deadline"
    assert (node.log, (node.outputs or {})["state"]) == ("stopped\n", "failed")


def test_a_pod_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    document = workflow([task("a")], pod("trap '' TERM; sleep 30", activeDeadlineSeconds=1))
    assert run(document, tmp_path, kill_after_s=0.2).node("a").exit_code == 137


def test_processes_of_a_pod_end_with_its_main_process(tmp_path: Path) -> None:
    result = run(workflow([task("a", f"sleep 30 & echo $! > {OUT}/state")]), tmp_path)
    child = int((result.node("a").outputs or {})["state"])
    deadline = time.monotonic() + 5
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_the_workflows_deadline_ends_running_pods_and_starts_no_more_but_the_exit_handler(tmp_path: Path) -> None:
    tasks = [task("a", "sleep 30"), task("b", depends="a.Failed")]
    document = workflow(
        tasks, {**pod("echo {{workflow.status}}"), "name": "bye"}, activeDeadlineSeconds=1, onExit="bye"
    )
    result = run(document, tmp_path)
    assert (result.phase, result.node("a").phase, result.node("b").message) == (
        "Failed",
        "Failed",
        "Step exceeded its deadline",
    )
    assert result.node("onExit").log == "Failed\n"


@pytest.mark.parametrize(("strategy", "exits"), [("Stop", True), ("Terminate", False)])
def test_stop(tmp_path: Path, strategy: str, exits: bool) -> None:
    started = tmp_path / "started"
    tasks = [task("a", f"touch {started}; sleep 30"), task("b", depends="a.Failed")]
    document = workflow(tasks, {**pod("true"), "name": "bye"}, onExit="bye")
    result = run(document, tmp_path / "work", stop_when=lambda: strategy if started.exists() else None)
    assert (result.phase, result.message) == ("Failed", f"Stopped with strategy '{strategy}'")
    assert result.node("a").message == f"workflow shutdown with strategy:  {strategy}"
    assert result.node("a").exit_code == 143
    assert not result.node("b").tries
    assert ("onExit" in result.nodes) == exits


def test_timeout_kills_the_pods(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TimeoutError, match="'a'"):
        simulate(workflow([task("a", f"echo $$$$ > {pid}; sleep 30")]), workdir=tmp_path / "work", timeout=1)
    assert not _alive(int(pid.read_text()))


# ---- limits (checkParallelism, syncManager)


@pytest.mark.parametrize("where", ["spec", "template"])
def test_parallelism(tmp_path: Path, where: str) -> None:
    tasks = [task(f"t{n}", "sleep 0.2") for n in range(4)]
    document = workflow(tasks)
    (document["spec"] if where == "spec" else document["spec"]["templates"][0])["parallelism"] = 2
    assert run(document, tmp_path, max_pods=8).most_pods == 2


def test_semaphores_and_mutexes(tmp_path: Path) -> None:
    reference = {"configMapKeyRef": {"name": "pools", "key": "gpu"}}
    template = pod(SHELL, synchronization={"semaphores": [reference]})
    alone = {**pod(SHELL, synchronization={"mutex": {"name": "one"}}), "name": "alone"}
    tasks = [task(f"t{n}", "sleep 0.1") for n in range(4)]
    tasks += [{**task(f"m{n}", "sleep 0.1"), "template": "alone"} for n in range(2)]
    pools = {"kind": "ConfigMap", "metadata": {"name": "pools"}, "data": {"gpu": "2"}}
    result = run([workflow(tasks, template, alone), pools], tmp_path, max_pods=8)
    assert result.held == {"pools/gpu": 2, "mutex/one": 1}
    assert result.phase == "Succeeded"
    missing = run(workflow(tasks, template, alone), tmp_path / "missing", max_pods=8)
    assert missing.node("t0").phase == "Error"


# ---- the workflow


def test_the_exit_handler_knows_the_status_and_the_failures(tmp_path: Path) -> None:
    """operate: `workflow.failures` is JSON quoted once more."""
    handler = {
        **pod('printf "%s" "$1"'),
        "name": "bye",
        "inputs": {"parameters": [{"name": "do", "default": "{{workflow.failures}}"}]},
    }
    handler["container"] = {
        "image": "x",
        "command": ["printf", "%s"],
        "args": ["{{workflow.status}} {{workflow.failures}}"],
    }
    result = run(workflow([task("a", "exit 1")], handler, onExit="bye"), tmp_path)
    status, _, failures = result.node("onExit").log.partition(" ")
    assert (result.phase, status) == ("Failed", "Failed")
    found = {each["displayName"]: each for each in json.loads(json.loads(failures))}
    assert set(found) == {"a", "wf"}
    assert (found["a"]["templateName"], found["a"]["message"]) == ("task", "main: Error (exit code 1)")


def test_a_failed_exit_handler_fails_the_workflow(tmp_path: Path) -> None:
    document = workflow([task("a")], {**pod("exit 1"), "name": "bye"}, onExit="bye")
    assert run(document, tmp_path).phase == "Failed"


PRINTS = (
    "printf '%s\\n' '{{workflow.parameters.who}}' '{{workflow.parameters.json}}' {{workflow.name}}.{{workflow.uid}} "
    "{{workflow.creationTimestamp.RFC3339}}"
)


def test_a_workflow_template_with_parameters(tmp_path: Path) -> None:
    parameters = [{"name": "who", "value": '"me"', "enum": ['"me"', '"you & I"']}, {"name": "n", "value": 5}]
    document = {**workflow([task("a")], pod(PRINTS), arguments={"parameters": parameters}), "kind": "WorkflowTemplate"}
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    result = run(document, tmp_path, parameters={"who": '"you & I"'}, name="my-run", uid="u1", created=created)
    lines = result.node("a").log.splitlines()
    assert lines[0] == '"you & I"'
    assert "\\u0026" in lines[1]
    assert json.loads(lines[1]) == [
        {"name": "who", "value": '"you & I"', "enum": ['"me"', '"you & I"']},
        {"name": "n", "value": "5"},
    ]
    assert lines[2:] == ["my-run.u1", "2026-01-02T03:04:05Z"]
    with pytest.raises(SimulationRefused, match="enum"):
        run(document, tmp_path, parameters={"who": '"she"'})


def test_a_cron_workflow_knows_its_scheduled_time(tmp_path: Path) -> None:
    spec = workflow([task("a")], pod("echo {{workflow.scheduledTime}}"))["spec"]
    document = {
        "kind": "CronWorkflow",
        "metadata": {"name": "c"},
        "spec": {"schedules": ["@daily"], "workflowSpec": spec},
    }
    result = run(document, tmp_path, scheduled_time=datetime(2026, 1, 2, tzinfo=UTC))
    assert result.node("a").log == "2026-01-02T00:00:00Z\n"


@pytest.mark.parametrize(("hour", "runs"), [(5, False), (6, True), (7, False)])
def test_a_cron_workflow_runs_while_its_condition_is_true(hour: int, runs: bool, tmp_path: Path) -> None:
    spec = workflow([task("a")], pod("true"))["spec"]
    when = "{{= now() >= date('2026-01-02T05:30:00Z') && now() < date('2026-01-02T06:30:00Z') }}"
    document = {
        "kind": "CronWorkflow",
        "metadata": {"name": "c"},
        "spec": {"schedules": ["@hourly"], "when": when, "workflowSpec": spec},
    }
    created = datetime(2026, 1, 2, hour, tzinfo=UTC)
    if runs:
        assert run(document, tmp_path, created=created).phase == "Succeeded"
        return
    with pytest.raises(SimulationRefused, match="no run begins at 2026-01-02T0"):
        run(document, tmp_path, created=created)


def test_reads_a_file_of_several_documents(tmp_path: Path) -> None:
    text = "kind: ConfigMap\nmetadata: {name: m}\ndata: {k: v}\n---\n" + json.dumps(workflow([task("a")]))
    (tmp_path / "file.yaml").write_text(text)
    assert run(tmp_path / "file.yaml", tmp_path / "work").phase == "Succeeded"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (workflow([task("a", template="none")]), "'none' undefined"),
        (workflow([], entrypoint="none"), "'none' undefined"),
        (workflow([], onExit="none"), "'none' undefined"),
        (workflow([task("a", depends="b"), task("b", depends="a")]), "cycle"),
        (workflow([task("a", depends="b")]), "not defined"),
        (workflow([task("a"), task("b", depends="a.Done")]), "'Done'"),
        (workflow([task("a"), task("b", depends="a.AllFailed")]), "no items"),
        (workflow([task("a"), task("b", depends="a.Failed &&")]), "depends"),
        (workflow([task("a"), task("a")]), "not unique"),
        (workflow([task("a_b")]), "invalid"),
        (workflow([task("a", "{{inputs.parameters.x}}")]), "failed to resolve"),
        (workflow([task("a"), task("b", "{{tasks.a.status}}")]), "failed to resolve"),
        (workflow([task("a", "{{workflow.parameters.x}}")]), "failed to resolve"),
        (workflow([], arguments={"parameters": [{"name": "x"}]}), "x.value is required"),
        (
            workflow([task("a", template="b")], {**pod(""), "name": "b", "inputs": {"parameters": [{"name": "x"}]}}),
            "supplied",
        ),
        (workflow([], {**pod(""), "parallelism": 1}), "only valid for steps and dag"),
        (workflow([], {"name": "b", "dag": {"tasks": []}, "activeDeadlineSeconds": 1}), "only valid for leaf"),
        (workflow([], {"name": "b", "container": {"command": ["x"]}}), "image"),
    ],
)
def test_refused(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(SimulationRefused, match=re.escape(message)):
        run(document, tmp_path)


def test_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="templateRef"):
        run(workflow([task("a", templateRef={"name": "x", "template": "y"})]), tmp_path)


# ---- other templates


def test_suspend_steps_and_script(tmp_path: Path) -> None:
    steps = {
        "name": "steps",
        "steps": [[task("x", f"echo 1 > {OUT}/state")], [task("y", "echo {{steps.x.outputs.parameters.state}}")]],
    }
    script = {"name": "script", "script": {"image": "x", "command": ["python3"], "source": "print(40 + 2)"}}
    tasks = [
        task("empty", template="empty"),
        task("wait", template="wait"),
        task("s", template="steps", depends="empty"),
        task("p", template="script", depends="s"),
        task("z", "echo {{tasks.p.outputs.result}}", "p"),
    ]
    empty = {"name": "empty", "suspend": {"duration": "0"}}
    wait = {"name": "wait", "suspend": {"duration": "1h"}}
    result = run(workflow(tasks, steps, script, empty, wait), tmp_path)
    assert result.phase == "Succeeded", result.report()
    assert (result.node("s.y").log, result.node("z").log) == ("1\n", "42\n")


def test_a_failed_step_fails_its_steps(tmp_path: Path) -> None:
    steps = {"name": "steps", "steps": [[task("x", "exit 1"), task("w")], [task("y")]]}
    result = run(workflow([task("s", template="steps"), task("z", depends="s")], steps), tmp_path)
    assert (result.phase, result.node("s").phase, "s.y" in result.nodes) == ("Failed", "Failed", False)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}, "Succeeded"),
        ({"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Running"}, "Error"),
        ({"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}, "Failed"),
        ({"jobStatus": "STOPPED"}, "Failed"),
    ],
)
def test_a_resource(tmp_path: Path, status: dict[str, str], phase: str) -> None:
    """The commas of successCondition mean and, those of failureCondition or."""
    resource = {
        "action": "create",
        "manifest": "kind: RayJob\nmetadata: {name: '{{workflow.name}}'}",
        "successCondition": "status.jobStatus == SUCCEEDED, status.jobDeploymentStatus == Complete",
        "failureCondition": "status.jobDeploymentStatus in (Failed,ValidationFailed), status.jobStatus == STOPPED",
    }
    outputs = {"parameters": [{"name": "s", "valueFrom": {"jsonPath": "{.status.jobStatus}", "default": "x"}}]}
    seen: list[Any] = []

    def handler(manifest: dict[str, Any], action: str) -> dict[str, Any]:
        seen.append((manifest, action))
        return {"status": status}

    document = workflow([task("r", template="r")], {"name": "r", "resource": resource, "outputs": outputs})
    node = run(document, tmp_path, resource_handler=handler).node("r")
    assert node.phase == phase
    assert seen == [({"kind": "RayJob", "metadata": {"name": "wf"}}, "create")]
    assert (node.outputs == {"s": "SUCCEEDED"}) == (phase == "Succeeded")


RESOURCE = {
    "name": "r",
    "resource": {
        "action": "apply",
        "setOwnerReference": True,
        "manifest": "kind: RayJob\nmetadata: {name: a}",
        "successCondition": "status.s == good",
        "failureCondition": "status.s == bad",
    },
}


def init_container(script: str) -> dict[str, Any]:
    return {"initContainers": [{"name": "first", "image": "x", "command": ["sh", "-c"], "args": [script]}]}


def test_a_resource_is_owned_by_its_workflow_and_looked_at_until_a_condition_is_met(tmp_path: Path) -> None:
    """executeResource sets the reference; WaitResource polls, and ends with an error where the object is gone."""
    answers: list[Any] = [{}, {"status": {"s": "new"}}, {"status": {"s": "good"}}]
    seen: list[Any] = []

    def handler(manifest: dict[str, Any], action: str) -> Any:
        seen.append(manifest["metadata"]["ownerReferences"])
        return lambda: answers.pop(0)

    document = workflow([task("r", template="r")], RESOURCE)
    assert run(document, tmp_path / "1", uid="5", resource_handler=handler).phase == "Succeeded"
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "wf", "uid": "5", "controller": True}
    assert seen == [[owner]]
    answers += [{}, None]
    node = run(document, tmp_path / "2", resource_handler=handler).node("r")
    assert node.phase == "Failed"
    assert "deleted while its status" in node.message


def test_init_containers_of_a_resource(tmp_path: Path) -> None:
    """createWorkflowPod adds them to every kind of pod; inferFailedReason calls one of ours that fails a failure."""
    made: list[Any] = []

    def handler(manifest: dict[str, Any], action: str) -> Any:
        made.append(manifest)
        return {"status": {"s": "good"}}

    document = workflow([task("r", template="r")], {**RESOURCE, **init_container("echo before")})
    result = run(document, tmp_path / "1", resource_handler=handler)
    assert (result.phase, result.node("r").log, len(made)) == ("Succeeded", "before\n", 1)
    document = workflow([task("r", template="r")], {**RESOURCE, **init_container("exit 3")})
    node = run(document, tmp_path / "2", resource_handler=handler).node("r")
    assert (node.phase, node.message, len(made)) == ("Failed", "first: Error (exit code 3)", 1)


def test_a_stop_leaves_the_object_of_a_resource(tmp_path: Path) -> None:
    looked: list[int] = []

    def look() -> dict[str, Any]:
        looked.append(1)
        return {}

    document = workflow([task("r", template="r")], RESOURCE)
    handler: Any = lambda manifest, action: look  # noqa: E731
    result = run(document, tmp_path, resource_handler=handler, stop_when=lambda: "Stop" if len(looked) > 1 else None)
    assert (result.phase, result.node("r").phase) == ("Failed", "Failed")
    assert result.node("r").message == "workflow shutdown with strategy:  Stop"


def test_a_retry_keeps_what_has_succeeded(tmp_path: Path) -> None:
    """FormulateRetryWorkflow: failed nodes and the exit handler go, name and uid stay, tries begin at 0 again."""
    good, again = (
        f"echo kept >> {tmp_path}/good; echo one > {OUT}/state",
        f"echo x >> {tmp_path}/n; test -e {tmp_path}/ok",
    )
    tasks = [
        task("good", good, template="again"),
        task("bad", again, depends="good"),
        task("last", "echo {{tasks.good.outputs.parameters.state}} {{workflow.uid}}", depends="bad && good"),
    ]
    tasks[0]["arguments"] = {"parameters": [{"name": "do", "value": good}]}
    retried = pod(SHELL, retryStrategy={"limit": "1"}) | {"name": "again"}
    document = workflow(tasks, pod(SHELL), retried, {**pod("true"), "name": "bye"}, onExit="bye")
    first = run(document, tmp_path / "1")
    assert (first.phase, first.node("last").phase) == ("Failed", "Omitted")
    (tmp_path / "ok").touch()
    second = run(document, tmp_path / "2", retry_of=first)
    assert (second.name, second.uid, second.phase) == (first.name, first.uid, "Succeeded"), second.report()
    assert second.node("last").log == f"one {first.uid}\n"
    assert (tmp_path / "good").read_text() == "kept\n"
    assert second.node("onExit").phase == "Succeeded"


# ---- pods


def test_pods_have_folders_and_an_environment_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "1")
    tasks = [task(name, f"echo {name} > {OUT}/state; ls {OUT}; env; pwd") for name in ("a", "b")]
    result = run(workflow(tasks), tmp_path, env={"GIVEN": "yes"})
    assert {(result.node(name).outputs or {})["state"] for name in "ab"} == {"a", "b"}
    log = result.node("a").log
    assert "GIVEN=yes" in log and "LEAK" not in log and str(tmp_path) in log.splitlines()[-1]
    assert not Path(OUT, "state").exists()


def test_environment_of_a_container(tmp_path: Path) -> None:
    container = {
        "image": "x",
        "command": ["sh", "-c", 'echo "$A $B $C <$D> $PRE_k $*"', "sh"],
        "args": ["$(A)", "$$(A)", "$(UNKNOWN)"],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)2"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": True}}},
        ],
        "envFrom": [{"prefix": "PRE_", "configMapRef": {"name": "m"}}],
    }
    document = workflow([task("a")], {**pod(""), "container": container})
    given: dict[str, Any] = {"secrets": {"s": {"k": "hidden"}}, "config_maps": {"m": {"k": "v"}}}
    log = run(document, tmp_path, **given).node("a").log
    assert log == "1 12 hidden <> v 1 $(A) $(UNKNOWN)\n"
    missing = run(document, tmp_path / "missing").node("a")
    assert missing.phase == "Error"


def test_pod_spec_patch_init_containers_and_volumes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("from the volume")
    patch = {
        "containers": [
            {"name": "main", "env": [{"name": "A", "value": "patched"}, {"name": "B", "value": "new"}]},
            {"name": "sidecar"},
        ]
    }
    template = pod(
        "cat /scratch/init /data/file; echo; echo $A $B $K; cat /config/k",
        podSpecPatch=json.dumps(patch),
        initContainers=[
            {
                "name": "init",
                "command": ["sh", "-c", "echo init > /scratch/init"],
                "volumeMounts": [{"name": "s", "mountPath": "/scratch"}],
            }
        ],
        volumes=[{"name": "s", "emptyDir": {}}, {"name": "c", "configMap": {"name": "m"}}],
    )
    template["container"] |= {
        "env": [{"name": "A", "value": "old"}, {"name": "K", "value": "kept"}],
        "volumeMounts": [{"name": "s", "mountPath": "/scratch"}, {"name": "c", "mountPath": "/config"}],
    }
    result = run(
        workflow([task("a")], template),
        tmp_path / "work",
        volumes={"/data": tmp_path / "data"},
        config_maps={"m": {"k": "configured"}},
    )
    assert result.node("a").log == "init\nfrom the volume\npatched new kept\nconfigured"


def test_a_failed_init_container_fails_the_pod(tmp_path: Path) -> None:
    template = pod("echo main", initContainers=[{"name": "init", "command": ["sh", "-c", "exit 4"]}])
    node = run(workflow([task("a")], template), tmp_path).node("a")
    assert (node.phase, node.message, node.log) == ("Failed", "init: Error (exit code 4)", "")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    template = {**pod(""), "container": {"image": "x", "command": ["no-such-program"]}}
    node = run(workflow([task("a")], template), tmp_path).node("a")
    assert (node.phase, node.exit_code) == ("Failed", 64)
    assert "failed to start command" in node.log


def test_a_template_is_laid_over_the_defaults_as_a_strategic_merge(tmp_path: Path) -> None:
    """Lists of named things by their name, others whole; the defaults' own tags of the workflow first."""
    own = {"image": "x", "source": 'echo "$A $B $C $D $1"', "env": [{"name": "B", "value": "own"}], "command": ["sh"]}
    env = [{"name": each, "value": "default"} for each in "AB"] + [{"name": "D", "value": "{{workflow.parameters.p}}"}]
    document = workflow(
        [task("a", "hi")],
        {"name": "task", "inputs": pod("")["inputs"], "script": own},
        templateDefaults={"script": {"env": env, "image": "y", "source": "exit 1"}, "container": {"image": "z"}},
        arguments={"parameters": [{"name": "p", "value": "{{inputs.parameters.do}}"}]},
    )
    # What a param brings into the defaults is replaced once more, with the template.
    assert run(document, tmp_path).node("a").log == "default own  hi \n"


def test_outputs_in_the_defaults_are_not_seen_by_the_validation(tmp_path: Path) -> None:
    template = pod("true")
    outputs, image = template.pop("outputs"), template["container"].pop("image")
    when = "{{tasks.a.outputs.parameters.state}} == success"
    document = workflow(
        [task("a"), task("b", depends="a", when=when)],
        template,
        templateDefaults={"outputs": outputs, "container": {"image": image}},
    )
    with pytest.raises(SimulationRefused, match="failed to resolve"):
        run(document, tmp_path)


@pytest.mark.parametrize(("value", "taken"), [("a", True), ("", True), ("a b", False), ("-a", False)])
def test_a_label_from_an_expression_must_be_one(value: str, taken: bool, tmp_path: Path) -> None:
    """updateWorkflowMetadata in operator.go."""
    document = workflow(
        [task("a", "echo {{workflow.labels.l}}")],
        workflowMetadata={"labelsFrom": {"l": {"expression": "workflow.parameters['p']"}}},
        arguments={"parameters": [{"name": "p", "value": value}]},
    )
    if taken:
        assert run(document, tmp_path).node("a").log == f"{value}\n"
    else:
        with pytest.raises(SimulationRefused, match="invalid label value"):
            run(document, tmp_path)


def test_template_defaults(tmp_path: Path) -> None:
    document = workflow(
        [task("a")],
        pod("echo $A; [ {{retries}} = 1 ]"),
        templateDefaults={"retryStrategy": {"limit": "1"}, "container": {"env": [{"name": "A", "value": "default"}]}},
    )
    result = run(document, tmp_path)
    # The retryStrategy reaches the DAG too.
    assert result.node("").kind == "Retry"
    node = result.node("/0.a")
    assert (node.phase, len(node.tries), node.log) == ("Succeeded", 2, "default\n")
