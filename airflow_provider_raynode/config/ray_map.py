"""The section `ray_map`: the function runs over each item of a list, or over the rows of a table."""

from typing import Annotated, Literal

from pydantic import Field

from airflow_provider_raynode.config._later import Later
from airflow_provider_raynode.config._section import Section
from airflow_provider_raynode.config._values import (
    EmptyIsDefault,
    NonNegativeInteger,
    PositiveInteger,
    PositiveNumber,
    Text,
)
from airflow_provider_raynode.config.resources import Resources


class RayMap(Section):
    """The function runs over each item of a list, or over the rows of a table, in parallel."""

    over: Text = Field(
        description="the argument that differs from call to call: op_kwargs gives a list for it, or a CatalogRef of a "
        "list, a table or a folder of tables, and each call gets one item"
    )
    batch_size: PositiveInteger | None = Field(
        default=None,
        description="items of one call: it then gets a list of so many, or a DataFrame of so many rows, and is the "
        "item that is counted, has a result and may fail; left out: a call gets one item, a row as a dict",
    )
    max_concurrent: PositiveInteger | None = Field(
        default=None, description="calls at a time, at most; left out: as many as the resources fit on the cluster"
    )
    on_error: Literal["fail", "keep"] = Field(
        default="fail",
        description="what an item that fails does: `fail` ends the node at once, and its retry runs what is missing; "
        "`keep` goes on, with null as its result and its error in the output `errors`",
    )
    item_timeout_s: PositiveNumber | None = Field(
        default=None, description="longest time of one call in seconds, after which the item has failed"
    )
    max_retries: Annotated[NonNegativeInteger, Field(le=1000)] = Field(
        default=1,
        description="times that an item is tried again whose worker process ended while it ran alone (killed, out of "
        "memory, a lost machine); what the function raises is never tried again",
    )
    resources: Annotated[Resources, Later(), EmptyIsDefault] = Field(
        default_factory=Resources.model_construct,
        description="what one call reserves; what it leaves out is that of default_resources",
    )
