"""The JSON schema of the config file, for editors and other tools."""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode.config.ray_config import RayConfig
from airflow_provider_raynode.config.search_space import SPACE_NODE

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the config file.

    It is strict: unknown keys are refused. The rules between values (low below high, what goes with what) are beyond a
    schema; `RayConfig.load` checks them. A number that a template renders as text is no number to the schema.
    """
    schema = RayConfig.model_json_schema(mode="validation")
    nodes: dict[str, Any] = {}
    schema = _with_references(schema, nodes)
    schema["$defs"][SPACE_NODE] = nodes[SPACE_NODE]
    return {"$schema": _DIALECT, "title": "Ray config of airflow-provider-raynode", **_without_titles(schema)}


def _with_references(value: Any, nodes: dict[str, Any]) -> Any:
    """Replace the search space's nodes by references to one definition, which refers to itself."""
    if isinstance(value, list):
        return [_with_references(each, nodes) for each in value]
    if not isinstance(value, dict):
        return value
    result = {key: _with_references(each, nodes) for key, each in value.items()}
    if value.get("$comment") != SPACE_NODE:
        return result
    if "anyOf" in result:
        nodes[SPACE_NODE] = {key: each for key, each in result.items() if key != "$comment"}
    return {"$ref": f"#/$defs/{SPACE_NODE}"}


def _without_titles(schema: Any) -> Any:
    """Drop the titles that pydantic makes of field names: they say nothing, and hide the descriptions in editors."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles(each) for key, each in schema.items() if key != "title" or not isinstance(each, str)}
