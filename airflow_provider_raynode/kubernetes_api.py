"""Kubernetes' API as a pod sees it: a few plain HTTPS requests with the pod's own service account. Pure.

No client library: what runs here is an image of the author's, and the requests are five.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from airflow_provider_raynode.exceptions import ClusterError

# Where Kubernetes mounts a pod's token, namespace and the API's certificate authority.
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Environment variable that names another folder with the same three files.
SERVICE_ACCOUNT_VARIABLE = "RAYNODE_SERVICE_ACCOUNT_FOLDER"
_TIMEOUT_S = 10.0
_Answer = TypeVar("_Answer")


class KubernetesApiError(ClusterError):
    """Kubernetes' API refuses a request, or does not answer it.

    :param status: the HTTP status; 0 where there was no answer.
    :param found: the name of the object that the answer is about, empty where it names none.
    """

    def __init__(self, message: str, status: int = 0, found: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.found = found

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered a little later."""
        return self.status in (0, 401, 408, 429) or self.status >= 500


class KubernetesApi:
    """The API of the cluster that this pod runs in.

    :param url: the API's base URL.
    :param folder: has `token`, which Kubernetes replaces before it expires, `ca.crt` and `namespace`.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        authority = folder / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        # Python 3.13 refuses certificates without key identifiers, which the authorities of many clusters are.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # Never through a proxy: the address is the cluster's own.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    @classmethod
    def of_pod(cls) -> Self:
        """Return the API as this pod's environment and mounted files name it.

        :raises KubernetesApiError: this is no pod, or it has no token of a service account.
        """
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise KubernetesApiError("KUBERNETES_SERVICE_HOST is not set: this is no pod of a Kubernetes cluster")
        folder = Path(os.environ.get(SERVICE_ACCOUNT_VARIABLE) or SERVICE_ACCOUNT)
        if not (folder / "token").exists():
            raise KubernetesApiError(
                f"{folder / 'token'} is missing: the pod has no token of its service account "
                "(automountServiceAccountToken is false)"
            )
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder)

    @property
    def namespace(self) -> str:
        """The namespace of this pod."""
        try:
            return (self._folder / "namespace").read_text(encoding="utf-8").strip() or "default"
        except OSError:
            return "default"

    def get(self, place: Place) -> dict[str, Any]:
        """Return an object, or the list of those that `place` selects.

        :raises KubernetesApiError: see there.
        """
        return self._request("GET", "get" if place.name else "list", place)

    def delete(self, place: Place, *, uid: str = "") -> None:
        """Ask for an object's deletion, in the background; one that is gone is no error.

        :param uid: delete only the object with this uid, not a later one of the same name.
        :raises KubernetesApiError: see there.
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._request("DELETE", "delete", place, options)
        except KubernetesApiError as error:
            if error.status not in (404, 409):
                raise

    def _request(self, method: str, verb: str, place: Place, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._token()}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self._url + place.path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise _refused(error, verb, place) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise KubernetesApiError(
                f"Kubernetes' API at {self._url} does not answer ({verb} {place}: {reason})"
            ) from (error)

    def _token(self) -> str:
        try:
            # Read anew each time: Kubernetes replaces it every hour or so.
            return (self._folder / "token").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise KubernetesApiError(f"{self._folder / 'token'} cannot be read ({error.strerror})") from error


class Place:
    """Where an object lies, or where those lie that a label selector selects.

    :param group: the API group, empty for the core's.
    :param resource: the plural, as roles name it.
    """

    def __init__(
        self,
        group: str,
        version: str,
        resource: str,
        namespace: str,
        name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.group, self.version, self.resource = group, version, resource
        self.namespace, self.name = namespace, name
        self.labels = dict(labels or {})

    @property
    def path(self) -> str:
        """Path and query of the request."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", self.namespace, self.resource, *([self.name] if self.name else [])]
        path = "/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)
        if not self.labels:
            return path
        selector = ",".join(f"{key}={value}" for key, value in self.labels.items())
        return f"{path}?{urllib.parse.urlencode({'labelSelector': selector})}"

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{kind} {self.namespace}/{self.name}" if self.name else f"{kind} in {self.namespace}"


def _refused(error: urllib.error.HTTPError, verb: str, place: Place) -> KubernetesApiError:
    try:
        answer = json.loads(error.read())
    except (OSError, ValueError, http.client.HTTPException):
        answer = {}
    answer = answer if isinstance(answer, dict) else {}
    text = f"Kubernetes' API answers {verb} {place} with {error.code}: {answer.get('message') or error.reason}"
    if error.code == 403:
        rule = f"{{apiGroups: ['{place.group}'], resources: [{place.resource}], verbs: [{verb}]}}"
        text += f". Add this line to the rules of the service account's Role: - {rule}"
    return KubernetesApiError(text, error.code, str((answer.get("details") or {}).get("name", "")))


def patiently(
    call: Callable[[], _Answer], *, timeout_s: float, sleep: Callable[[float], object], clock: Callable[[], float]
) -> _Answer:
    """Return what `call` returns, trying again while the API is out of order.

    :raises KubernetesApiError: it refuses, or it did not answer for so long.
    """
    deadline, delay = clock() + timeout_s, 0.5
    while True:
        try:
            return call()
        except KubernetesApiError as error:
            if not error.passing or clock() + delay > deadline:
                raise
        sleep(delay)
        delay = min(delay * 2, 5.0)
