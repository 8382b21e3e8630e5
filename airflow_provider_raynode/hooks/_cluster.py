"""What a Ray cluster is: its versions, nodes and resources, read from its dashboard."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.hooks._http import ClusterRefusedError, RayHttp, not_ray

# What this provider has been run against: minor versions from the first to the last.
OLDEST_RAY = (2, 60)
NEWEST_RAY = (2, 60)


@dataclass(frozen=True)
class RayNodeInfo:
    """An alive node of a cluster.

    :param ip: the address by which the other nodes know it.
    :param hostname: its host name, empty where the dashboard does not know it yet.
    :param resources: Ray's resources in Ray's units: CPU and GPU by number, memory and object_store_memory in bytes.
    """

    node_id: str
    ip: str
    hostname: str
    is_head: bool
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterInfo:
    """A cluster as it is now.

    :param python_version: of the head node, as `3.11.7`; None where the dashboard does not tell.
    :param resources: the sum over the nodes, see `RayNodeInfo`.
    :param is_this_host: whether every alive node is this very machine, so that a folder here is visible there; None
        where a cluster that has just begun does not tell yet.
    """

    ray_version: str
    python_version: str | None
    nodes: tuple[RayNodeInfo, ...]
    resources: dict[str, float]
    is_this_host: bool | None


def read_ray_version(http: RayHttp, *, retry: bool = True) -> str:
    """Return the version of Ray of the server at the address.

    :raises ClusterError: the server cannot be reached, refuses, or is not a Ray dashboard.
    """
    try:
        answer = http.get_json("/api/version", retry=retry)
    except ClusterRefusedError as error:
        if error.status in (404, 405, 501):
            raise ClusterError(not_ray(http.settings, f"/api/version answered {error.status}")) from error
        raise
    version = answer.get("ray_version") if isinstance(answer, dict) else None
    if not isinstance(version, str):
        raise ClusterError(not_ray(http.settings, "/api/version has no ray_version"))
    return version


def read_cluster(http: RayHttp, *, retry: bool = True) -> ClusterInfo:
    """Return the cluster as its dashboard describes it.

    :raises ClusterError: the server cannot be reached, refuses, or is not a Ray dashboard.
    """
    ray_version = read_ray_version(http, retry=retry)
    metadata = http.get_json("/api/v0/cluster_metadata", retry=retry)
    listed = http.get_json("/api/v0/nodes", retry=retry, detail="1", limit="10000")
    summary = http.get_json("/nodes", retry=retry, view="summary")
    try:
        python_version = metadata["data"].get("pythonVersion")
        hostnames = {node["raylet"].get("nodeId"): node.get("hostname") for node in summary["data"]["summary"]}
        nodes = tuple(
            RayNodeInfo(
                node_id=node["node_id"],
                ip=node["node_ip"],
                hostname=hostnames.get(node["node_id"]) or "",
                is_head=bool(node["is_head_node"]),
                # Ray marks nodes by resources of their own: `node:<ip>`, `node:__internal_head__`.
                resources={k: v for k, v in (node["resources_total"] or {}).items() if not k.startswith("node:")},
            )
            for node in listed["data"]["result"]["result"]
            if node["state"] == "ALIVE"
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{http.settings.address}: Ray {ray_version} describes its nodes in an unknown way"
        ) from error
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.resources.items():
            total[name] = total.get(name, 0.0) + amount
    return ClusterInfo(
        ray_version=ray_version,
        python_version=python_version,
        nodes=nodes,
        resources=total,
        is_this_host=_are_here(nodes),
    )


def version_problem(ray_version: str) -> str | None:
    """Return what is wrong with a cluster's version of Ray for this provider, None where nothing is."""
    parts = ray_version.split(".")[:2]
    minor = tuple(int(part) for part in parts if part.isdigit())
    if len(minor) != 2 or OLDEST_RAY <= minor <= NEWEST_RAY:
        return None
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST_RAY, NEWEST_RAY))
    supported = oldest if oldest == newest else f"{oldest} to {newest}"
    remedy = "upgrade the cluster" if minor < OLDEST_RAY else "upgrade airflow-provider-raynode"
    return f"the cluster runs Ray {ray_version}, this provider supports Ray {supported}: {remedy}"


def _are_here(nodes: tuple[RayNodeInfo, ...]) -> bool | None:
    # The dashboard's reporter tells a node's host name some seconds after the node is there.
    if not all(_is_here(node) for node in nodes if node.hostname):
        return False
    return True if nodes and all(node.hostname for node in nodes) else None


def _is_here(node: RayNodeInfo) -> bool:
    """Return whether a node is this machine: by name, and by an address that this machine can listen on.

    The name alone may be repeated elsewhere, and the address of a forwarded cluster may be 127.0.0.1.
    """
    if node.hostname != socket.gethostname():
        return False
    family = socket.AF_INET6 if ":" in node.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((node.ip, 0))
        except OSError:
            return False
    return True
