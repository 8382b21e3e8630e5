"""CPU, memory and GPUs of a pod's container, as requests and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.argo.settings._words import collected, mapping
from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import NonNegativeInteger, Text, shown

DEFAULT_GPU = "nvidia.com/gpu"
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([-+]?[0-9]{1,2}))?")
_BYTES = ("memory", "ephemeral-storage")


def amount(quantity: str) -> Decimal | None:
    """Return what a quantity of Kubernetes (`500m`, `4Gi`, `1e3`) counts, or None where it is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        return None
    number, suffix, exponent = match.groups()
    if exponent:
        return Decimal(number) * Decimal(10) ** int(exponent)
    if suffix in _BINARY:
        return Decimal(number) * Decimal(1024) ** _BINARY[suffix]
    return Decimal(number) * Decimal(10) ** _DECIMAL[suffix or ""]


def quantity(resource: str, value: Any) -> str | None:
    """Return the quantity as text, null as it is.

    :raises ValueError: Kubernetes does not take it, or it is a thousandth of a byte.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{shown(value)} is not a quantity such as 2, 500m or 4Gi")
    text = (
        f"{value:d}" if isinstance(value, int) else f"{Decimal(repr(value)):f}" if isinstance(value, float) else value
    )
    text = text.removesuffix(".0") if isinstance(value, float) else text.strip()
    if "{{" in text:
        return text
    counted = amount(text)
    if counted is None:
        raise ValueError(f"{shown(value)} is not a quantity such as 2, 500m or 4Gi{_nearest(text)}")
    if resource in _BYTES and counted != int(counted):
        raise ValueError(f"{shown(value)} is not a whole number of bytes; 512m is half a byte: 512Mi or 512M is meant")
    return text


def _nearest(text: str) -> str:
    match = re.fullmatch(r"([0-9.]+)\s*([kmgtpe])(i?)b?", text, re.IGNORECASE)
    if match is None:
        return ""
    number, letter, binary = match.groups()
    suffix = (letter.upper() + "i") if binary else ("k" if letter in "kK" else letter.upper())
    return f", did you mean '{number}{suffix}'?"


def _quantities(value: Any) -> Any:
    if value is None:
        return None
    given = mapping(value)
    made = collected("resources", quantity, [((name,), (name, each)) for name, each in given.items()])
    return dict(zip(given, made, strict=True))


Quantities = Annotated[dict[str, Any], BeforeValidator(_quantities)]
Cpu = Annotated[str, BeforeValidator(lambda value: quantity("cpu", value))]
Memory = Annotated[str, BeforeValidator(lambda value: quantity("memory", value))]


class PodResources(Section):
    """What the container gets. The short keys are both request and limit; `requests` and `limits` go before them."""

    cpu: Cpu | None = Field(default=None, description="CPUs, such as `2` or `500m`")
    memory: Memory | None = Field(default=None, description="memory, such as `4Gi`; a plain number is bytes")
    gpus: NonNegativeInteger | None = Field(default=None, description="whole GPUs; 0 takes inherited ones away")
    gpu_resource: Text | None = Field(
        default=None, description=f"what a GPU is called on the cluster; left out: `{DEFAULT_GPU}`"
    )
    requests: Quantities | None = Field(default=None, description="Kubernetes' requests, by resource")
    limits: Quantities | None = Field(default=None, description="Kubernetes' limits, by resource")

    def problems(self) -> Iterator[Problem]:
        """Yield a request above its limit, and a GPU that is said twice."""
        yield from resource_problems(self.layer())

    def layer(self) -> dict[str, Any]:
        """Return what is said, nulls included, in the form that overrides are merged in."""
        said: dict[str, Any] = {"requests": {}, "limits": {}}
        for name in ("cpu", "memory"):
            if name in self.model_fields_set:
                said["requests"][name] = said["limits"][name] = getattr(self, name)
        for name in ("requests", "limits"):
            if name in self.model_fields_set:
                own = getattr(self, name)
                said[name] = None if own is None else {**said[name], **own}
        said.update({name: getattr(self, name) for name in ("gpus", "gpu_resource") if name in self.model_fields_set})
        return {name: each for name, each in said.items() if each != {}}


def resource_problems(layer: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what in merged resources Kubernetes would refuse."""
    requests, limits = layer.get("requests") or {}, layer.get("limits") or {}
    for name, request in requests.items():
        limit = limits.get(name)
        if request is None or limit is None:
            continue
        least, most = amount(request), amount(limit)
        if least is not None and most is not None and least > most:
            yield ("requests", name), f"{request} is above the limit {limit}"
    gpu = layer.get("gpu_resource") or DEFAULT_GPU
    if layer.get("gpus") and limits.get(gpu) is not None:
        yield ("limits", gpu), "stands beside gpus: say the number once"


def resource_fields(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return Kubernetes' `resources` of merged resources."""
    limits = dict(layer.get("limits") or {})
    if layer.get("gpus"):
        # For such a resource Kubernetes takes the limit as the request.
        limits[layer.get("gpu_resource") or DEFAULT_GPU] = str(layer["gpus"])
    return {name: each for name, each in (("requests", dict(layer.get("requests") or {})), ("limits", limits)) if each}
