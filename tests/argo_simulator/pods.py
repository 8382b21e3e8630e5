"""Runs a pod: its containers' commands as processes in a directory that stands for the pod's file system.

Real pods have a /tmp of their own. Here the folder of the output files, and the mount paths of volumes, are rewritten
to folders of the pod's directory wherever they stand in the command, the arguments and the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from argo_simulator.documents import any_string, merged
from argo_simulator.errors import TemplateError, Unsupported
from argo_simulator.fork_server import ForkServer

# Lists of a pod's spec that a strategic merge patch merges by this key; other lists it replaces.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
}
_VARIABLE = re.compile(r"\$\$|\$\(([^)]*)\)")
_NOT_STARTED = 64  # what Argo's emissary ends with where the command cannot be started
_NOT_RUN = 128  # what the kubelet gives a container that the kernel does not start
# Linux's MAX_ARG_STRLEN: one argument or variable with the zero at its end.
_MOST_ARGUMENT = 131_072


@dataclass
class Outcome:
    """How a pod ended."""

    phase: str
    message: str
    exit_code: int | None
    outputs: dict[str, str]
    result: str | None = None


@dataclass
class Pod:
    """A pod to run: the spec after patches, and where its files go."""

    spec: dict[str, Any]
    directory: Path
    output_paths: dict[str, str] = field(default_factory=dict)
    output_defaults: dict[str, str] = field(default_factory=dict)
    script: str | None = None
    keep_result: bool = False
    extra_env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def log_path(self) -> Path:
        return self.directory / "log"


def pod_spec(template: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return the spec that the controller creates for a container or script template."""
    body = template.get("container") or template.get("script") or {}
    main = {**{key: value for key, value in body.items() if key != "source"}, "name": "main"}
    pod: dict[str, Any] = {
        "containers": [main],
        "initContainers": list(template.get("initContainers") or []),
        "volumes": [*(spec.get("volumes") or []), *(template.get("volumes") or [])],
    }
    for patch in (spec.get("podSpecPatch"), template.get("podSpecPatch")):
        if patch:
            pod = patched(pod, _parsed(patch))
    return pod


def _parsed(patch: str) -> Any:
    try:
        found = yaml.safe_load(patch)
    except yaml.YAMLError as error:
        raise TemplateError(f"Failed to merge the podSpecPatch: {error}") from error
    if not isinstance(found, dict):
        raise TemplateError(f"Failed to merge the podSpecPatch: {patch!r} is no mapping")
    return found


def patched(base: Any, patch: Any, key: str = "") -> Any:
    """Apply a strategic merge patch of a pod's spec."""
    if isinstance(base, dict) and isinstance(patch, dict):
        found = dict(base)
        for name, value in patch.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = patched(found.get(name), value, name)
        return found
    if isinstance(patch, list) and key in _MERGE_KEYS:
        by = _MERGE_KEYS[key]
        if any(by not in each for each in patch):
            raise TemplateError(f"Failed to merge the podSpecPatch: an item of {key} has no {by}")
        over = {each[by]: each for each in patch}
        kept = [patched(each, over.pop(each.get(by), {})) for each in base or []]
        return [*kept, *over.values()]
    return merged(None, patch)


class PodRunner:
    """Runs pods; keeps what all pods of a simulation share."""

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        secrets: Mapping[str, Mapping[str, str]],
        config_maps: Mapping[str, Mapping[str, str]],
        volumes: Mapping[str, Path],
        fork_server: ForkServer | None,
        kill_after_s: float,
    ) -> None:
        self._env = env
        self._secrets, self._config_maps = secrets, config_maps
        self._volumes = volumes
        self._fork_server = fork_server
        self._kill_after_s = kill_after_s

    async def run(self, pod: Pod, *, deadline_s: float | None, stop: asyncio.Future[str]) -> Outcome:
        """Run a pod to its end.

        :param deadline_s: its activeDeadlineSeconds.
        :param stop: ends the pod when it is done; its result is the node's message.
        """
        pod.directory.mkdir(parents=True)
        rewrites = self._rewrites(pod)
        deadline = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        code, why = 0, ""
        main = next(each for each in pod.spec["containers"] if each["name"] == "main")
        for container in [*pod.spec["initContainers"], main]:
            code, why = await self._run_container(container, pod, rewrites, deadline, stop, is_main=container is main)
            if code or why:
                break
        outputs, missing = self._outputs(pod, rewrites)
        result = self._result(pod)
        if why:
            return Outcome("Failed", why, code, outputs, result)
        if code:
            return Outcome("Failed", f"{container['name']}: Error (exit code {code})", code, outputs, result)
        if missing:
            return Outcome("Error", f"cannot save parameter {missing}: no such file", code, outputs, result)
        return Outcome("Succeeded", "", code, outputs, result)

    async def run_init(self, pod: Pod, *, stop: asyncio.Future[str]) -> Outcome | None:
        """Run a pod's init containers; return how the pod ended, None where its main container may begin."""
        pod.directory.mkdir(parents=True)
        rewrites = self._rewrites(pod)
        for container in pod.spec["initContainers"]:
            code, why = await self._run_container(container, pod, rewrites, None, stop, is_main=False)
            if code or why:
                message = why or f"{container['name']}: Error (exit code {code})"
                return Outcome("Failed", message, code, {})
        return None

    async def _run_container(
        self,
        container: dict[str, Any],
        pod: Pod,
        rewrites: dict[str, str],
        deadline: float | None,
        stop: asyncio.Future[str],
        *,
        is_main: bool,
    ) -> tuple[int, str]:
        declared = self._declared(container, pod)
        env = self._environment(declared, pod, rewrites)
        command = [_expanded(any_string(each), declared) for each in container.get("command") or []]
        arguments = [_expanded(any_string(each), declared) for each in container.get("args") or []]
        if not command:
            if not is_main:
                return 0, ""
            raise Unsupported(f"{pod.directory.name}: a container without command, which its image would give")
        command = [_rewritten(each, rewrites) for each in [*command, *arguments]]
        if is_main and pod.script is not None:
            source = pod.directory / "script"
            source.write_text(_rewritten(pod.script, rewrites), encoding="utf-8")
            command.append(str(source))
        if is_main:
            pod.command, pod.env = command, env
        if too_long := _too_long([*command, *(f"{name}={value}" for name, value in declared.items())]):
            with pod.log_path.open("ab") as log:
                log.write(f"exec: argument list too long: {too_long[:60]!r}…\n".encode())
            return _NOT_RUN, ""
        place = container.get("workingDir")
        cwd = Path(_rewritten(place, rewrites)) if place else pod.directory / "work"
        cwd.mkdir(parents=True, exist_ok=True)
        process = await self._start(command, env, cwd, pod)
        if process is None:
            return _NOT_STARTED, ""
        return await self._await_end(process, deadline, stop)

    async def _start(self, command: list[str], env: dict[str, str], cwd: Path, pod: Pod) -> Any:
        output = pod.directory / "stdout" if pod.keep_result else pod.log_path
        if self._fork_server is not None and self._fork_server.takes(command):
            return await self._fork_server.start(command, env=env, cwd=cwd, stdout=output, stderr=pod.log_path)
        with output.open("ab") as out, pod.log_path.open("ab") as log:
            try:
                return await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=log,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"failed to start command: {error}\n".encode())
                return None

    async def _await_end(self, process: Any, deadline: float | None, stop: asyncio.Future[str]) -> tuple[int, str]:
        """Return a process's exit code, and why it was stopped or an empty string."""
        end = asyncio.ensure_future(process.wait())
        why = ""
        try:
            left = None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0)
            await asyncio.wait({end, stop}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                over = "Pod was active on the node longer than the specified deadline"
                why = stop.result() if stop.done() else over
                _signal(process.pid, signal.SIGTERM)
                await asyncio.wait({end}, timeout=self._kill_after_s)
        finally:
            # Also where only the main process has ended: a container ends with it.
            _signal(process.pid, signal.SIGKILL)
            code = await end
        return (128 - code if code < 0 else code), why

    def _environment(self, declared: Mapping[str, str], pod: Pod, rewrites: dict[str, str]) -> dict[str, str]:
        home, temporary = pod.directory / "home", pod.directory / "tmp"
        home.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        base = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath.lstrip(":"), "/usr/local/bin"]),
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            **self._env,
        }
        env = {**base, **declared}
        # What the test itself gives are this machine's paths.
        return {name: value if base.get(name) == value else _rewritten(value, rewrites) for name, value in env.items()}

    def _declared(self, container: dict[str, Any], pod: Pod) -> dict[str, str]:
        """Return the variables that the pod's spec declares: Kubernetes knows no others in `$(NAME)`.

        In a value only those of `env` before it count, none of `envFrom` (makeEnvironmentVariables of the kubelet).
        """
        env: dict[str, str] = {}
        for each in container.get("envFrom") or []:
            env.update(self._env_from(each))
        known: dict[str, str] = {}
        for each in container.get("env") or []:
            if "valueFrom" in each:
                value = self._referenced(each["valueFrom"], pod)
            else:
                value = _expanded(any_string(each.get("value", "")), known)
            if value is not None:
                known[each["name"]] = value
        return {**env, **known, **pod.extra_env}

    def _env_from(self, source: dict[str, Any]) -> dict[str, str]:
        for key, found in (("secretRef", self._secrets), ("configMapRef", self._config_maps)):
            if key in source:
                name, prefix = source[key]["name"], source.get("prefix", "")
                if name not in found and not source[key].get("optional"):
                    raise TemplateError(f"{key} {name!r} not found")
                return {prefix + each: value for each, value in found.get(name, {}).items()}
        raise Unsupported(f"envFrom {sorted(source)}")

    def _referenced(self, source: dict[str, Any], pod: Pod) -> str | None:
        if "fieldRef" in source:
            return {"metadata.name": pod.extra_env.get("ARGO_POD_NAME", ""), "metadata.namespace": "argo"}.get(
                source["fieldRef"]["fieldPath"], ""
            )
        for key, found in (("secretKeyRef", self._secrets), ("configMapKeyRef", self._config_maps)):
            if key in source:
                reference = source[key]
                value = found.get(reference["name"], {}).get(reference["key"])
                if value is None and not reference.get("optional"):
                    raise TemplateError(f"couldn't find key {reference['key']} in {key} {reference['name']}")
                return value
        raise Unsupported(f"env valueFrom {sorted(source)}")

    def _rewrites(self, pod: Pod) -> dict[str, str]:
        """Return folders and files by the paths that a pod knows them under."""
        found: dict[str, str] = {}
        temporary = pod.directory / "tmp"
        temporary.mkdir()
        for path in pod.output_paths.values():
            folder = str(Path(path).parent)
            # A file right below /tmp or / is rewritten alone: the rest of /tmp holds the tests' own files.
            place = path if folder in ("/", "/tmp") else folder
            target = temporary / place.removeprefix("/tmp").lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            found[place] = str(target)
        volumes = {each["name"]: each for each in pod.spec["volumes"]}
        for container in [*pod.spec["containers"], *pod.spec["initContainers"]]:
            for mount in container.get("volumeMounts") or []:
                place = mount["mountPath"].rstrip("/")
                # /tmp: TMPDIR is the pod's own anyway, and the tests' files lie there.
                if place not in (*found, *self._volumes, "/tmp"):
                    found.update(self._mounted(place, volumes.get(mount["name"], {}), pod))
        return {**found, **{key.rstrip("/"): str(value) for key, value in self._volumes.items()}}

    def _mounted(self, place: str, volume: dict[str, Any], pod: Pod) -> dict[str, str]:
        folder = pod.directory / "volumes" / str(volume.get("name"))
        if "emptyDir" in volume:
            folder.mkdir(parents=True, exist_ok=True)
            return {place: str(folder)}
        for key, of, values in (
            ("configMap", "name", self._config_maps),
            ("secret", "secretName", self._secrets),
        ):
            if key in volume and volume[key].get(of) in values:
                folder.mkdir(parents=True, exist_ok=True)
                for name, text in values[volume[key][of]].items():
                    (folder / name).write_text(text)
                return {place: str(folder)}
        return {}  # another kind of volume: what it holds is the machine's own

    def _outputs(self, pod: Pod, rewrites: dict[str, str]) -> tuple[dict[str, str], str]:
        """Return the output files' texts, without a newline at the end, and the name of one that is missing."""
        found = {}
        for name, path in pod.output_paths.items():
            with contextlib.suppress(FileNotFoundError):
                text = Path(_rewritten(path, rewrites)).read_text()
                found[name] = text.removesuffix("\n")
        found = {**{name: value for name, value in pod.output_defaults.items() if name in pod.output_paths}, **found}
        return found, next((name for name in pod.output_paths if name not in found), "")

    def _result(self, pod: Pod) -> str | None:
        output = pod.directory / "stdout"
        if not output.exists():
            return None
        text = output.read_text(errors="replace")
        with pod.log_path.open("a") as log:
            log.write(text)
        return text.removesuffix("\n")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does; an unknown one stays."""

    def value(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return env.get(match.group(1), match.group(0))

    return _VARIABLE.sub(value, text)


def _too_long(texts: Iterable[str]) -> str:
    """Return the first text that Linux takes neither as an argument nor as a variable, or an empty one."""
    return next((each for each in texts if len(os.fsencode(each)) >= _MOST_ARGUMENT), "")


def _rewritten(text: str, rewrites: Mapping[str, str]) -> str:
    if not rewrites:
        return text
    # All at once: what one puts in another must not rewrite.
    places = "|".join(re.escape(each) for each in sorted(rewrites, key=len, reverse=True))
    return re.sub(rf"(?<![\w.])({places})(?![\w.-])", lambda match: rewrites[match.group(1)], text)
