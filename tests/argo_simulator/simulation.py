"""The run of a whole workflow (operate in operator.go): validation, the entry, deadlines, a stop, the exit handler."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from argo_simulator.documents import Submission, rfc3339, submit
from argo_simulator.fork_server import ForkServer
from argo_simulator.nodes import FAILED, Node, Result
from argo_simulator.pods import PodRunner
from argo_simulator.validation import validate
from argo_simulator.walk import Call, Settings, Walk

_POLL_S = 0.02


def simulate(
    source: Any,
    parameters: Mapping[str, str] | None = None,
    *,
    workdir: Path | None = None,
    name: str | None = None,
    uid: str | None = None,
    created: datetime | None = None,
    scheduled_time: datetime | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, Mapping[str, str]] | None = None,
    config_maps: Mapping[str, Mapping[str, str]] | None = None,
    volumes: Mapping[str, Path] | None = None,
    max_pods: int = 2,
    order: int | None = None,
    time_scale: float = 0.0,
    resource_handler: Callable[[dict[str, Any], str], Any] | None = None,
    lose_pod: Callable[[str, int], str | None] | None = None,
    stop_when: Callable[[], str | bool | None] | None = None,
    fork_server: ForkServer | None = None,
    kill_after_s: float = 5.0,
    timeout: float = 600,
    retry_of: Result | None = None,
) -> Result:
    """Run a workflow to its end.

    :param source: a path, a YAML text, or documents: one Workflow, WorkflowTemplate (as submitted from it) or
        CronWorkflow (one scheduled run), and ConfigMaps.
    :param parameters: values of `spec.arguments.parameters`, as `argo submit -p` gives them.
    :param workdir: where each pod gets a directory of its own, `001-path`; a new temporary folder by default.
    :param name: of the Workflow object; `<metadata.name>-abc12` by default.
    :param env: for every pod, beside PATH (the venv's programs first), HOME, TMPDIR and LANG.
    :param secrets: values by key by the Secret's name; `config_maps` likewise, beside those of the documents.
    :param volumes: folders of this machine by the mount path that the pods know.
    :param max_pods: of this machine, whatever the workflow's parallelism.
    :param order: seed of the order in which pods that wait for a slot get one, which the controller leaves open; None:
        the order in which they came.
    :param time_scale: factor on backoff and on suspend durations; 0 waits for nothing.
    :param resource_handler: called with the manifest and the action of a resource template, may be a coroutine; it
        returns the object in its last state: `{"status": {…}}`, or a function that returns it as it is now, and None
        when it is gone.
    :param lose_pod: called with a node's path and the number of the try, before it runs; a text that it returns ends
        the node in Error with no outputs and no exit code, as a pod that was deleted or evicted.
    :param stop_when: polled; `Stop` (the exit handler still runs) or `Terminate` or True ends the workflow.
    :param kill_after_s: between SIGTERM and SIGKILL.
    :param timeout: seconds for the whole run.
    :param retry_of: a run of this workflow that failed: `argo retry` of it. Name and uid stay, what has succeeded is
        kept with its outputs, the rest begins anew with tries from 0 (FormulateRetryWorkflow in util.go).
    :raises SimulationRefused: Argo would not take the workflow.
    :raises Unsupported: the simulator does not know a part of it.
    :raises TimeoutError: after `timeout`; every pod is killed.
    """
    if retry_of is not None:
        name, uid = retry_of.name, retry_of.uid
    submission = submit(
        source,
        parameters or {},
        name=name,
        uid=uid,
        created=created,
        scheduled_time=scheduled_time,
        config_maps=config_maps,
    )
    validate(submission)
    runner = PodRunner(
        env=env or {},
        secrets=secrets or {},
        config_maps=submission.config_maps,
        volumes=volumes or {},
        fork_server=fork_server,
        kill_after_s=kill_after_s,
    )
    workdir = workdir or Path(tempfile.mkdtemp(prefix="argo-simulator-"))
    settings = Settings(runner, workdir, max_pods, time_scale, resource_handler, lose_pod, order)
    return asyncio.run(_run(submission, settings, stop_when, timeout, _kept(retry_of)))


def _kept(earlier: Result | None) -> dict[str, Node]:
    """Return the nodes that a retry keeps: leaves that have succeeded, but none of the exit handler's."""
    return {
        node.name: replace(node, kind="Pod", children=[], outbound=[])
        for node in (earlier.nodes.values() if earlier else ())
        if node.phase == "Succeeded" and node.kind in ("Pod", "Retry", "Suspend") and not node.path.startswith("onExit")
    }


async def _run(
    submission: Submission,
    settings: Settings,
    stop_when: Callable[[], str | bool | None] | None,
    timeout: float,
    kept: dict[str, Node],
) -> Result:
    walk = Walk(submission, settings)
    walk.kept = kept
    watchers = [asyncio.create_task(_watch_deadline(walk))]
    if stop_when is not None:
        watchers.append(asyncio.create_task(_watch_stop(walk, stop_when)))
    try:
        async with asyncio.timeout(timeout):
            return await _operate(walk)
    except TimeoutError as error:
        running = [node.path for node in walk.graph.nodes.values() if not node.fulfilled]
        raise TimeoutError(f"the workflow did not end in {timeout} s; still running: {running}") from error
    finally:
        for each in watchers:
            each.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


async def _operate(walk: Walk) -> Result:
    spec, name = walk.submission.spec, walk.submission.name
    arguments = spec["arguments"]["parameters"]
    entry = await walk.execute(Call(spec["entrypoint"], arguments, "", name))
    phase = {"Skipped": "Succeeded", "Omitted": "Succeeded"}.get(entry.phase, entry.phase)
    message = f"Stopped with strategy '{walk.shutdown}'" if entry.failed and walk.shutdown else entry.message
    if spec.get("onExit") and walk.shutdown != "Terminate":
        walk.variables["workflow.status"] = phase
        walk.variables["workflow.failures"] = _failures(walk)
        ended = await walk.execute(Call(spec["onExit"], arguments, "onExit", f"{name}.onExit", at_exit=True))
        if phase == "Succeeded" and ended.phase in FAILED:
            phase, message = ended.phase, ended.message
    nodes = {node.path: node for node in walk.graph.nodes.values() if not node.retried}
    return Result(
        name=name,
        uid=walk.submission.uid,
        phase=phase,
        message=message,
        nodes=nodes,
        unresolved=walk.unresolved,
        held=walk.locks.most,
        most_pods=walk.most_pods,
        variables=walk.variables,
    )


async def _watch_deadline(walk: Walk) -> None:
    deadline = walk.submission.spec.get("activeDeadlineSeconds")
    if deadline is not None:
        await asyncio.sleep(float(deadline))
        walk.deadline_passed = True
        if not walk.stop.done():
            walk.stop.set_result("Pod was active on the node longer than the specified deadline")


async def _watch_stop(walk: Walk, stop_when: Callable[[], str | bool | None]) -> None:
    while not (asked := stop_when()):
        await asyncio.sleep(_POLL_S)
    walk.shutdown = asked if isinstance(asked, str) else "Terminate"
    message = f"workflow shutdown with strategy:  {walk.shutdown}"
    for each in [walk.stop, *([walk.stop_at_exit] if walk.shutdown == "Terminate" else [])]:
        if not each.done():
            each.set_result(message)


def _failures(walk: Walk) -> str:
    """Return `workflow.failures`: JSON in quotes, for the controller quotes it once more than needed."""
    failed = [_failure(walk, node) for node in walk.graph.nodes.values() if node.failed]
    return json.dumps(json.dumps(failed or None, separators=(",", ":")), ensure_ascii=False)


def _failure(walk: Walk, node: Node) -> dict[str, str]:
    shown = node.name.removeprefix(node.boundary).lstrip(".") if node.boundary else node.name
    call = Call(node.template, [], node.path, node.name)
    return {
        "displayName": shown,
        "message": node.message,
        "templateName": node.template,
        "phase": node.phase,
        "podName": walk.pod_name(call),
        "finishedAt": rfc3339(node.finished) if node.finished else "",
    }
