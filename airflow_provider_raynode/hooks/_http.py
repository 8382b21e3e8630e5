"""HTTP to a Ray dashboard: one session, timeouts on every call, and errors that say what is wrong and what to do."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import requests

from airflow_provider_raynode import __version__
from airflow_provider_raynode.exceptions import ClusterError, RayNodeError
from airflow_provider_raynode.hooks._settings import RaySettings

_RETRY_DELAYS_S = (0.2, 0.6)
# How often, in seconds, the connection is read anew when the cluster does not accept the token.
REFRESH_S = 5.0
# Ray answers 405 to a POST whose User-Agent looks like a browser's.
_USER_AGENT = f"airflow-provider-raynode/{__version__}"


class ClusterUnreachableError(ClusterError):
    """No answer came: the next try may succeed. Whether a request was carried out is not known."""


class ClusterRefusedError(ClusterError):
    """The cluster answered with an error.

    :param status: HTTP status.
    :param text: the body of the answer.
    """

    def __init__(self, message: str, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class _TokenAuth(requests.auth.AuthBase):
    """The connection's token, or none: without an auth object `requests` would send what a netrc file has."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class RayHttp:
    """Requests to the dashboard of one cluster.

    Proxies of the environment are honoured; redirects are errors, so that the token goes where the address says.

    :param connect_timeout_s: longest wait for a connection, in seconds.
    :param read_timeout_s: longest wait for the next bytes of an answer, in seconds.
    :param renew: reads the settings anew when the cluster does not accept the token: tokens are renewed.
    """

    def __init__(
        self,
        settings: RaySettings,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        renew: Callable[[], RaySettings] | None = None,
    ) -> None:
        self._timeout = (connect_timeout_s, read_timeout_s)
        self._renew = renew
        self._session = requests.Session()
        self._use(settings)

    def _use(self, settings: RaySettings) -> None:
        self.settings = settings
        self._read_at = time.monotonic()
        self._session.headers.clear()
        self._session.headers.update(
            {**requests.utils.default_headers(), "User-Agent": _USER_AGENT, **settings.headers}
        )
        self._session.auth = _TokenAuth(settings.token)

    def get(self, path: str, *, retry: bool = True, **params: str) -> requests.Response:
        """GET a path, again after a short wait when no answer came.

        :raises ClusterUnreachableError: no answer came.
        :raises ClusterRefusedError: the answer is an error.
        """
        for delay in _RETRY_DELAYS_S if retry else ():
            try:
                return self.send("GET", path, params=params)
            except ClusterUnreachableError:
                time.sleep(delay)
        return self.send("GET", path, params=params)

    def get_json(self, path: str, *, retry: bool = True, **params: str) -> Any:
        """GET a path whose answer is JSON.

        :raises ClusterError: see `get`; also when the answer is not JSON.
        """
        response = self.get(path, retry=retry, **params)
        try:
            return response.json()
        except ValueError:
            kind = response.headers.get("Content-Type", "no content type")
            raise ClusterError(not_ray(self.settings, f"{path} answered {kind}, not JSON")) from None

    def send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send one request, once.

        :raises ClusterUnreachableError: no answer came.
        :raises ClusterRefusedError: the answer is an error.
        """
        try:
            return self._send(method, path, arguments)
        except ClusterRefusedError as error:
            if error.status not in (401, 403) or not self._renewed():
                raise
        return self._send(method, path, arguments)

    def _renewed(self) -> bool:
        """Read the settings anew, at most every few seconds, and tell whether there is something new to try."""
        if self._renew is None or time.monotonic() - self._read_at < REFRESH_S:
            return False
        before = self.settings
        try:
            self._use(self._renew())
        except RayNodeError:
            return False
        return (self.settings.token, self.settings.headers) != (before.token, before.headers)

    def _send(self, method: str, path: str, arguments: dict[str, Any]) -> requests.Response:
        url = f"{self.settings.address}{path}"
        try:
            # `verify` is given with the request: on the session, REQUESTS_CA_BUNDLE would win over it.
            response = self._session.request(
                method, url, timeout=self._timeout, verify=self.settings.verify, allow_redirects=False, **arguments
            )
        except requests.exceptions.RequestException as error:
            message, transient = _explain(error, self.settings)
            raise (ClusterUnreachableError if transient else ClusterError)(message) from error
        if response.status_code >= 300:
            location = response.headers.get("Location", "nowhere")
            raise refusal(self.settings, path, response.status_code, response.text, location)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def not_ray(settings: RaySettings, what: str) -> str:
    """Return the message for a server that is not a Ray dashboard."""
    return (
        f"{settings.address} is not a Ray dashboard: {what}. Use the address of the cluster's dashboard, by default "
        "port 8265 of the head node"
    )


def _explain(error: requests.exceptions.RequestException, settings: RaySettings) -> tuple[str, bool]:
    """Return what went wrong and whether another try may help."""
    address, source = settings.address, settings.source
    causes = _causes(error)
    if isinstance(error, requests.exceptions.SSLError):
        return _explain_tls(causes, settings), False
    if isinstance(error, requests.exceptions.ProxyError):
        return (
            f"the HTTP proxy of the environment does not reach {address}: {causes[-1]}; add the host to NO_PROXY if it "
            "is to be reached directly"
        ), True
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"{address} ({source}) does not answer: no connection in time; is it behind a firewall?", True
    if isinstance(error, requests.exceptions.ReadTimeout):
        return f"{address} ({source}) took the request but gave no answer in time; is the head node overloaded?", True
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"{address} ({source}): the host name is not known to DNS ({causes[-1]}); check the address", True
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return (
            f"{address} ({source}) refuses the connection: no Ray dashboard listens there. Is the cluster up, the port "
            "right (8265 by default), and the dashboard bound to an address that is reached from here "
            "(ray start --dashboard-host=0.0.0.0)?"
        ), True
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"{address} ({source}): the connection broke: {causes[-1]}", True
    return f"{address} ({source}): {error}", False


def _explain_tls(causes: list[BaseException], settings: RaySettings) -> str:
    address = settings.address
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{address}: the TLS certificate cannot be verified ({cause.verify_message}). Set the connection's "
                "ca_file to the PEM file of the authority that signed it"
                + (f" (now {settings.ca_file})" if settings.ca_file else "")
            )
    if "WRONG_VERSION_NUMBER" in str(causes[-1]).upper().replace(" ", "_"):
        return f"{address}: the server speaks no TLS: use http:// in the address"
    return f"{address}: TLS fails: {causes[-1]}"


def refusal(settings: RaySettings, path: str, status: int, text: str, location: str = "nowhere") -> ClusterError:
    """Return the error for an answer that is one: what the status means here, and the remedy.

    :param location: where a redirect leads.
    """
    address, source = settings.address, settings.source
    said = _last_line(text)
    if status < 400:
        message = (
            f"{address} redirects {path} to {location}: use that address if it is the cluster's, or give the login "
            "that a proxy asks for in the connection's secret_headers"
        )
    elif status == 401 and settings.token is None:
        message = f"{address} asks for a token and {source} has none: put Ray's authentication token in its password"
    elif status == 403 or (status == 401 and settings.token is not None):
        message = (
            f"{address} does not accept the token of {source} ({status}: {said}): put the cluster's own token in the "
            "connection's password (`ray get-auth-token` prints it on the head node)"
        )
    elif status in (502, 503, 504):
        return ClusterUnreachableError(f"{address}: the proxy in front of the cluster answers {status}: {said}")
    elif status == 413:
        message = f"{address} refuses {path}: larger than what it takes in one request ({said})"
    else:
        message = f"{address} answers {status} to {path}: {said}"
    return ClusterRefusedError(message, status, text)


def _last_line(text: str) -> str:
    """Return the line of an answer that says what is wrong: the last one of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1][:500] if lines else "no message"


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and all that is below it, the first cause last."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        inner = getattr(current, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in current.args if isinstance(item, BaseException)), None)
        current = inner or current.__cause__ or current.__context__
    return found
