"""What a node's function returns, by name: `returns=[pickled("model"), metric("accuracy")]`. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_raynode.exceptions import ConfigError

ReturnKind = Literal["auto", "metric", "json", "pickled", "parquet", "numpy", "file", "directory"]


class Return(BaseModel):
    """One named value of the function's returned dict and how it is kept.

    `auto`: a number, a boolean or a short string is a metric; what JSON can hold is kept as JSON; the rest is pickled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=128)
    kind: ReturnKind = "auto"


def declared_as(name: str, kind: ReturnKind) -> Return:
    """Return the output of that name; the node checks names, so that its error says where.

    :raises ConfigError: it is no name.
    """
    try:
        return Return(name=name, kind=kind)
    except ValidationError:
        raise ConfigError(
            f"returns: {name!r:.80} is no name of an output: letters, digits, '_', '.' and '-', at most 128, beginning "
            "with a letter, a digit or '_'"
        ) from None


def pickled(name: str) -> Return:
    """Keep the returned value `name` as a pickle in the catalog; its reference is in the node's `outputs`."""
    return Return.model_construct(name=name, kind="pickled")


def json_value(name: str) -> Return:
    """Keep the returned value `name` as JSON in the catalog; public as `airflow_provider_raynode.json`."""
    return Return.model_construct(name=name, kind="json")


def metric(name: str) -> Return:
    """Report the returned value `name`, a number, as a metric of the trial."""
    return Return.model_construct(name=name, kind="metric")
