"""A stand-in for Kubernetes' API and for KubeRay, as far as RayJobs need them: HTTPS, rights, real drivers.

`Kubernetes` speaks get, list and delete as the real API does: bearer tokens, label selectors, preconditions, answers of
kind Status. `KubeRay` runs the entrypoint of each RayJob as a process, with an embedded Ray in the place of its
cluster: it ends by SIGTERM when its RayJob is deleted, and its exit code becomes the RayJob's status.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import certificates
import yaml

NAMESPACE = "argo"
UID = "1234"


def ray_job(
    name: str,
    deployment: str = "Running",
    job: str = "RUNNING",
    *,
    uid: str = UID,
    sha256: str = "abc",
    created: str = "2026-01-01T00:00:00Z",
    **status: Any,
) -> dict[str, Any]:
    """A RayJob of a workflow, as KubeRay leaves it."""
    return {
        "metadata": {"name": name, "labels": {"raynode/workflow-uid": uid}, "creationTimestamp": created},
        "spec": {"entrypoint": f"python -m x --sha256 {sha256}"},
        "status": {
            "jobDeploymentStatus": deployment,
            "jobStatus": job,
            "rayClusterName": f"{name}-c",
            **status,
        },
    }


def submitted_environment(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runtime environment of a RayJob as `ray job submit` gets it.

    KubeRay (BuildJobSubmitCommand) makes JSON of the YAML, quotes it as Go's strconv.Quote does, and bash reads that.
    """
    environment = yaml.safe_load(job["spec"].get("runtimeEnvYAML", "")) or {}
    written = _go_quoted(json.dumps(environment, ensure_ascii=False))
    command = ["bash", "-ce", f"printf %s {written}"]
    done = subprocess.run(command, env={}, capture_output=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


def _go_quoted(text: str) -> str:
    found = []
    for each in text:
        code = ord(each)
        if each in '"\\':
            found.append(f"\\{each}")
        elif each.isprintable():
            found.append(each)
        elif each in "\a\b\f\n\r\t\v":
            found.append("\\" + "abfnrtv"["\a\b\f\n\r\t\v".index(each)])
        elif code < 0x80:
            found.append(f"\\x{code:02x}")
        else:
            found.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(found)}"'


class Kubernetes:
    """The API; use it as a context manager.

    :ivar objects: by (plural, name).
    :ivar rights: (verb, plural) that the service account has; None for all.
    :ivar faults: statuses that the next requests get in the place of their answers.
    :ivar requests: (verb, plural, name) of what was asked.
    """

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.rights: set[tuple[str, str]] | None = None
        self.faults: list[int] = []
        self.requests: list[tuple[str, str, str]] = []
        self.on_delete: Callable[[dict[str, Any]], bool] = lambda found: True
        self.folder = folder / "service-account"
        self.folder.mkdir(parents=True)
        pem = certificates.self_signed(self.folder)
        (self.folder / "ca.crt").write_bytes(pem.read_bytes()[pem.read_bytes().index(b"-----BEGIN CERT") :])
        (self.folder / "namespace").write_text(NAMESPACE)
        self.token = ""
        self.rotate()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def env(self) -> dict[str, str]:
        """What a pod of this cluster has in its environment."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._server.server_port),
            "RAYNODE_SERVICE_ACCOUNT_FOLDER": str(self.folder),
        }

    def rotate(self) -> None:
        """Replace the token: the old one is not taken any more."""
        self.token = uuid.uuid4().hex
        (self.folder / "token").write_text(self.token)

    def __enter__(self) -> Kubernetes:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, plural: str, found: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, or replace it, and return it."""
        made = json.loads(json.dumps(found))
        metadata = made.setdefault("metadata", {})
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("namespace", NAMESPACE)
        metadata.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        with self.lock:
            self.objects[plural, metadata["name"]] = made
        return dict(made)

    def find(self, plural: str, name: str) -> dict[str, Any] | None:
        """Return a copy of an object."""
        with self.lock:
            found = self.objects.get((plural, name))
            return None if found is None else copy.deepcopy(found)

    def names(self, plural: str) -> list[str]:
        with self.lock:
            return [name for kind, name in self.objects if kind == plural]

    def _answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, Any]]:
        split = urlsplit(path)
        parts = [unquote(each) for each in split.path.strip("/").split("/")]
        plural, *rest = parts[parts.index("namespaces") + 2 :]
        name = rest[0] if rest else ""
        verb = {"GET": "get" if name else "list", "DELETE": "delete"}[method]
        with self.lock:
            self.requests.append((verb, plural, name))
            if self.faults:
                return self._status(self.faults.pop(0), "out of order")
            if token != f"Bearer {self.token}":
                return self._status(401, "Unauthorized")
            if self.rights is not None and (verb, plural) not in self.rights:
                who = f"system:serviceaccount:{NAMESPACE}:raynode"
                return self._status(403, f'{plural} is forbidden: User "{who}" cannot {verb} resource "{plural}"')
            if verb == "list":
                selector = parse_qs(split.query).get("labelSelector", [""])[0]
                return 200, {"items": [copy.deepcopy(each) for each in self._selected(plural, selector)]}
            found = self.objects.get((plural, name))
            if found is None:
                return self._status(404, f'{plural} "{name}" not found', name)
            if verb == "get":
                return 200, copy.deepcopy(found)
            uid = (json.loads(body or b"{}").get("preconditions") or {}).get("uid")
            if uid and uid != found["metadata"]["uid"]:
                return self._status(409, "the UID in the precondition does not match", name)
            found["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            if self.on_delete(found):
                del self.objects[plural, name]
            return 200, copy.deepcopy(found)

    def _selected(self, plural: str, selector: str) -> Iterator[dict[str, Any]]:
        wanted = dict(each.split("=", 1) for each in selector.split(",") if each)
        for (kind, _), found in list(self.objects.items()):
            labels = found["metadata"].get("labels") or {}
            if kind == plural and wanted.items() <= labels.items():
                yield found

    def _status(self, code: int, message: str, name: str = "") -> tuple[int, dict[str, Any]]:
        details = {"details": {"name": name}} if name else {}
        return code, {"kind": "Status", "status": "Failure", "message": message, "code": code, **details}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kubernetes = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                token = self.headers.get("Authorization", "")
                code, found = kubernetes._answer(self.command, self.path, self.rfile.read(length), token)
                data = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_DELETE = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class KubeRay:
    """Runs the RayJobs of a `Kubernetes`, and is what the simulator of Argo gives resource templates to.

    The environment of a job goes its real way: into a command of bash, as `submitted_environment` has it. A deadline
    ends the RayJob at once and its driver with the cluster, after the ttl.

    :param env: of the pods of every cluster.
    :param broken: names of RayJobs whose pods never start, with the status that KubeRay ends them with.
    """

    def __init__(self, kubernetes: Kubernetes, env: Mapping[str, str]) -> None:
        self.kubernetes = kubernetes
        self.env = dict(env)
        self.broken: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda found: None
        self.started: list[str] = []
        self.manifests: list[dict[str, Any]] = []
        self.logs: list[Path] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        kubernetes.on_delete = self._deleted

    def __call__(self, manifest: dict[str, Any], action: str) -> Callable[[], dict[str, Any] | None]:
        """Apply or create a RayJob; return what looks at it."""
        name = manifest["metadata"]["name"]
        self.manifests.append(manifest)
        with self.kubernetes.lock:
            self._owner(manifest)
            there = self.kubernetes.find("rayjobs", name)
            assert action == "apply" or there is None, f"{name} already exists"
            if there is None:
                self._begin(self.kubernetes.put("rayjobs", manifest))
        return lambda: self.kubernetes.find("rayjobs", name)

    def _owner(self, manifest: dict[str, Any]) -> None:
        """Let the workflow that owns a RayJob be there, if the test has not put it there itself."""
        for owner in manifest["metadata"].get("ownerReferences") or []:
            if self.kubernetes.find("workflows", owner["name"]) is None:
                metadata = {"name": owner["name"], "uid": owner["uid"]}
                workflow = {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
                self.kubernetes.put("workflows", workflow)

    def close(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for log in self.logs:  # pytest shows it where the test failed
            print(f"---- {log.name}\n{log.read_text(errors='replace')}")

    def pids(self) -> dict[str, int]:
        """Return the drivers that run, by RayCluster."""
        return {cluster: each.pid for cluster, each in self._running.items() if each.poll() is None}

    def _begin(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        cluster = f"{name}-{uuid.uuid4().hex[:5]}"
        status = {"jobId": job["spec"].get("jobId", ""), "rayClusterName": cluster}
        if (end := self.broken(job)) is not None:
            self._set(job, {**status, **end})
            return
        self._set(job, {**status, "jobStatus": "RUNNING", "jobDeploymentStatus": "Running"})
        program, *arguments = shlex.split(job["spec"]["entrypoint"])
        assert program == "python"
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        # The kubelet reads `$$` in a value.
        variables = {each["name"]: each["value"].replace("$$", "$") for each in head.get("env") or []}
        variables |= submitted_environment(job).get("env_vars", {})
        self.logs.append(self.kubernetes.folder.parent / f"driver-{len(self.logs)}.log")
        with self.logs[-1].open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", *arguments, "--local"],
                env={**os.environ, **self.env, **self.kubernetes.env, **variables, "RAY_CLUSTER_NAME": cluster},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(name)
        self._running[cluster] = process
        threading.Thread(target=self._follow, args=(job, cluster, process), daemon=True).start()
        threading.Thread(target=self._end_in_time, args=(job, process), daemon=True).start()

    def _end_in_time(self, job: dict[str, Any], process: subprocess.Popen[bytes]) -> None:
        deadline = job["spec"].get("activeDeadlineSeconds")
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            message = f"The RayJob has passed the activeDeadlineSeconds. ActiveDeadlineSeconds: {deadline}"
            self._end(job, {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": message})
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(job["spec"].get("ttlSecondsAfterFinished", 0))
            process.terminate()

    def _end(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        with self.kubernetes.lock:
            found = self.kubernetes.objects.get(("rayjobs", job["metadata"]["name"]))
            if found is not None and found["metadata"]["uid"] == job["metadata"]["uid"]:
                found["status"] = {**found["status"], **status}

    def _follow(self, job: dict[str, Any], cluster: str, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with self.kubernetes.lock:
            key = ("rayjobs", job["metadata"]["name"])
            found = self.kubernetes.objects.get(key)
            if found is None or found["metadata"]["uid"] != job["metadata"]["uid"]:
                return
            if found["metadata"].get("deletionTimestamp"):
                del self.kubernetes.objects[key]  # its finalizer waited for the job
                return
            if found["status"].get("jobDeploymentStatus") == "Failed":
                return  # what is decided stays
            ended = ("SUCCEEDED", "Complete") if code == 0 else ("FAILED", "Failed")
            reason = {} if code == 0 else {"reason": "AppFailed", "message": f"Job entrypoint exit code {code}"}
            self._set(found, {**found["status"], "jobStatus": ended[0], "jobDeploymentStatus": ended[1], **reason})

    def _set(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        with self.kubernetes.lock:
            self.kubernetes.objects["rayjobs", job["metadata"]["name"]]["status"] = status

    def _deleted(self, found: dict[str, Any]) -> bool:
        """End the driver of a RayJob; return whether the object goes at once."""
        process = self._running.get((found.get("status") or {}).get("rayClusterName", ""))
        if process is None or process.poll() is not None:
            return True
        process.terminate()
        return False
