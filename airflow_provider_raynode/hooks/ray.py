"""RayHook: from an Airflow connection of type `ray` to a Ray cluster, over plain HTTP."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_provider_raynode.exceptions import ConfigError, RayNodeError
from airflow_provider_raynode.hooks._address import LOCAL, RAY_JOB
from airflow_provider_raynode.hooks._cluster import ClusterInfo, RayNodeInfo, read_cluster, version_problem
from airflow_provider_raynode.hooks._connection import DEFAULT_CONN_ID, mask, places, read_connection, tested_form
from airflow_provider_raynode.hooks._http import ClusterRefusedError, ClusterUnreachableError, RayHttp
from airflow_provider_raynode.hooks._jobs import RayJobs, Submission, UnknownJobError
from airflow_provider_raynode.hooks._settings import RaySettings, checked_port, settings_of

if TYPE_CHECKING:
    from airflow_provider_raynode.launchers._base import JobStatus

__all__ = [
    "ClusterInfo",
    "ClusterRefusedError",
    "ClusterUnreachableError",
    "RayHook",
    "RayNodeInfo",
    "RaySettings",
    "Submission",
    "UnknownJobError",
]

# For a connection, and for each part of an answer, when a user waits for the result.
_TEST_TIMEOUTS_S = (3.0, 10.0)


class RayHook(BaseHook):
    """Talk to the Ray cluster of a connection.

    Every method that needs the cluster raises `ClusterError` when it cannot be reached or refuses, and `ConfigError`
    when the connection is wrong. One hook belongs to one thread.

    :param ray_conn_id: id of the connection. `ray_default` may be undefined: then the address is `local`.
    :param address: address in the place of the connection's own; token, headers, TLS and the rest stay.
    """

    conn_name_attr = "ray_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "ray"
    hook_name = "Ray"

    def __init__(self, ray_conn_id: str = default_conn_name, address: str | None = None) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.address = address
        self._shown_id = ray_conn_id
        self._settings: RaySettings | None = None
        self._http: RayHttp | None = None

    def resolve(self) -> RaySettings:
        """Return where the cluster is and how to talk to it; the connection is read once per hook.

        :raises ConfigError: the connection is wrong, or a connection other than `ray_default` is not defined.
        :raises ConnectionReadError: Airflow does not tell the connection now.
        """
        return self._read() if self._settings is None else self._settings

    def get_conn(self) -> RayHttp:
        """Return the HTTP session with the cluster's dashboard.

        :raises ConfigError: the address is `local`: there is no cluster to talk to.
        """
        if self._http is None:
            settings = self.resolve()
            if settings.address == RAY_JOB:
                raise ConfigError("the job is a RayJob, which Kubernetes runs: there is no Jobs API to talk to")
            if settings.address == LOCAL:
                raise ConfigError(
                    f"{settings.source}: the address is local, an embedded Ray that has no Jobs API; give the "
                    "connection or ray_cluster.address the address of a cluster"
                )
            self._http = RayHttp(settings, renew=self._read)
        return self._http

    def cluster_info(self) -> ClusterInfo:
        """Return the cluster's versions, nodes and resources as they are now."""
        return read_cluster(self.get_conn())

    def ensure_job(self, submission: Submission) -> bool:
        """Submit a job, or attach to it when the cluster knows its submission id, whatever its state.

        Safe to call again after any failure and from several processes: one id is one job. This package and local
        folders of the runtime environment are uploaded before, once per content.

        :return: True when this call started the job, False when it was there.
        :raises ClusterError: also when the id belongs to a job with another entrypoint.
        :raises ConfigError: the runtime environment is wrong, or a local folder is missing or too large.
        """
        return RayJobs(self.get_conn()).ensure(submission)

    def get_job(self, submission_id: str) -> JobStatus | None:
        """Return the status of a job with Ray's own message, None where the cluster does not know it."""
        return RayJobs(self.get_conn()).get(submission_id)

    def stop_job(self, submission_id: str, timeout_s: float = 14.0) -> JobStatus | None:
        """Stop a job and wait until it has stopped.

        :param timeout_s: longest wait in seconds. Ray itself kills a job 8 s after it was asked to stop.
        :return: the last state that was seen, so check `state.ended`; None where the cluster does not know the job.
        """
        return RayJobs(self.get_conn()).stop(submission_id, timeout_s)

    def job_log(self, submission_id: str) -> str:
        """Return the whole log of a job; carriage returns are line ends, as Ray sends them."""
        return RayJobs(self.get_conn()).log(submission_id)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the cluster can be used and what it is, or what is wrong and the remedy.

        Plain HTTP, without importing Ray: Airflow calls this in its API server.
        """
        try:
            if (form := tested_form()) is not None:
                self._shown_id = str(form.connection_id)
                # Airflow writes the fields into a URI, which it could not read again with such a port.
                checked_port(form.port, "port", f"connection {self._shown_id}")
            settings = self.resolve()
            if settings.address == LOCAL:
                return _test_embedded(settings)
            # Someone waits for this answer: no second tries.
            connect, read = _TEST_TIMEOUTS_S
            http = RayHttp(settings, connect_timeout_s=connect, read_timeout_s=read)
            try:
                return _describe(read_cluster(http, retry=False), settings)
            finally:
                http.close()
        except RayNodeError as error:
            return False, str(error)

    def close(self) -> None:
        """Close the connections to the cluster."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _read(self) -> RaySettings:
        settings = settings_of(read_connection(self.ray_conn_id, self._shown_id), self._shown_id, self.address)
        mask(settings)
        self._settings = settings
        return settings


def _test_embedded(settings: RaySettings) -> tuple[bool, str]:
    # Where a cluster is meant, the reader has to see why there is none.
    why = "" if settings.is_defined else f" ({DEFAULT_CONN_ID} is not defined in {places(DEFAULT_CONN_ID)})"
    try:
        found = version("ray")
    except PackageNotFoundError:
        return False, f"local: Ray is not installed here; pip install 'ray[tune]' where Airflow's tasks run{why}"
    problem = version_problem(found)
    if problem is not None:
        return False, f"local: {problem}"
    return True, f"local: an embedded Ray {found}, started by the task itself{why}"


def _describe(info: ClusterInfo, settings: RaySettings) -> tuple[bool, str]:
    problem = version_problem(info.ray_version)
    if problem is not None:
        return False, f"{settings.address}: {problem}"
    shown = [f"{info.resources.get('CPU', 0):g} CPU"]
    if gpus := info.resources.get("GPU"):
        shown.append(f"{gpus:g} GPU")
    shown.append(f"{info.resources.get('memory', 0) / 2**30:.1f} GiB memory")
    nodes = "1 node" if len(info.nodes) == 1 else f"{len(info.nodes)} nodes"
    python = f", Python {info.python_version}" if info.python_version else ""
    return True, f"Ray {info.ray_version}{python} at {settings.address}: {nodes}, {', '.join(shown)}"
