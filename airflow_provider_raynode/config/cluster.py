"""Where the node runs and where its data lies: the sections `ray_cluster` and `catalog`."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from airflow_provider_raynode.config._later import Later
from airflow_provider_raynode.config._section import Problem, Section, did_you_mean
from airflow_provider_raynode.config._values import Switch, Text

if TYPE_CHECKING:
    from airflow_provider_raynode.config.kuberay import KubeRay
    from airflow_provider_raynode.config.runtime_env import RuntimeEnv
else:
    RuntimeEnv = Annotated[Section, Later("airflow_provider_raynode.config.runtime_env:RuntimeEnv")]
    KubeRay = Annotated[Section, Later("airflow_provider_raynode.config.kuberay:KubeRay")]

_ADDRESS = re.compile(
    r"((?i:https?|ray)://)?(?P<host>\[[^\s/@?#\]]+\]|[^\s/:@?#\[\]]+)(:(?P<port>[^\s/:@?#]*))?(?P<path>/[^\s?#]*)?"
)
_LAST_PORT = 65535
_ADDRESSES = "http(s)://host:8265, ray://host:10001, host:port, auto or local"


def _address(value: str) -> str:
    text = value.strip()
    if text in ("auto", "local"):
        return text
    parts = _ADDRESS.fullmatch(text)
    if parts is not None and (parts[1] or (parts["port"] is not None and parts["path"] is None)):
        port = parts["port"]
        if port is None or (port.isascii() and port.isdigit() and 0 < int(port) <= _LAST_PORT):
            return text
        raise ValueError(f"{value!r} is not an address of Ray: its port is {port!r}, expected 1 to {_LAST_PORT}")
    if "@" in value:
        # The value stays out of the message: it may hold a password.
        raise ValueError("holds a user or a password: put the token into the Airflow connection")
    raise ValueError(
        f"{value!r} is not an address of Ray{did_you_mean(value, ('auto', 'local'))} allowed: {_ADDRESSES}"
    )


# The hook, which resolves the address, checks it further.
Address = Annotated[Text, AfterValidator(_address)]


class RayCluster(Section):
    """The cluster that the node runs on."""

    address: Address | None = Field(
        default=None,
        description=f"{_ADDRESSES}; left out: the Airflow connection, and without one an embedded Ray on this machine",
    )
    runtime_env: RuntimeEnv | None = Field(default=None, description="what the job's processes need")
    kuberay: KubeRay | None = Field(
        default=None,
        description="a Ray cluster of the node's own, for `raynode argo export --ray rayjob`; unused in Airflow",
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what the embedded Ray cannot honour, where the file says that it is the embedded one."""
        if self.address == "local" and self.runtime_env is not None:
            from airflow_provider_raynode.config.runtime_env import embedded_problems

            given = self.runtime_env.model_dump(mode="json", exclude_unset=True)
            yield from ((("runtime_env", *loc), message) for loc, message in embedded_problems(given))


class CatalogSection(Section):
    """Where the node's inputs and outputs are kept."""

    uri: Text | None = Field(
        default=None,
        description="absolute path or URI (s3://, gs://) of the catalog; left out: the connection's, then the default",
    )
    shared: Switch = Field(
        default=False, description="whether the folder of a file catalog is mounted on every node of the cluster"
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a path that another machine would read otherwise."""
        if self.uri is not None and "://" not in self.uri and not self.uri.startswith("/"):
            yield ("uri",), f"{self.uri!r} is neither an absolute path (/…) nor a URI (s3://bucket/prefix)"
