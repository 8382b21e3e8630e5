"""Sections whose models are built only where a config has them: a config is read whenever Airflow parses a DAG file."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import GetJsonSchemaHandler, SerializationInfo, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from airflow_provider_raynode.config._section import Section


class Later:
    """Annotation of a field that holds a section: it stands for the section's model without building it.

    :param section: module and name of the section's class, as `module:Name`, where its module is imported later too;
        left out, it is the annotated class.
    """

    def __init__(self, section: str | None = None) -> None:
        self._name = section
        self._section: type[Section] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        if self._name is None:
            self._section = source
        return core_schema.no_info_plain_validator_function(
            self._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(dumped, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # As a union of one: the handler gives each choice its own definition.
        return handler(core_schema.union_schema([TypeAdapter(self._class()).core_schema]))

    def _class(self) -> type[Section]:
        if self._section is None:
            module, _, name = (self._name or "").partition(":")
            self._section = getattr(importlib.import_module(module), name)
        assert self._section is not None
        return self._section

    def _validated(self, value: Any) -> Section:
        return self._class().model_validate(value)


def dumped(value: Section | None, info: SerializationInfo) -> dict[str, Any] | None:
    """Return a section as data, as the model around it is asked for it."""
    if value is None:
        return None
    return value.model_dump(
        mode=info.mode,
        exclude_unset=info.exclude_unset,
        exclude_defaults=info.exclude_defaults,
        exclude_none=info.exclude_none,
    )
