"""What the pods of a template can hold: Linux limits an argument and a variable, a ConfigMap the template itself.

The sizes are those with the values that the workflow's own parameters have: what a person submits may be larger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_raynode.argo.lint.context import POD_TYPES, Context, Template
from airflow_provider_raynode.argo.lint.expression import expression
from airflow_provider_raynode.argo.lint.finding import Path
from airflow_provider_raynode.argo.lint.reading import entries, mapping, text
from airflow_provider_raynode.argo.lint.references import texts
from airflow_provider_raynode.argo.lint.tags import Tag, tags, without_tags

# MAX_ARG_STRLEN, with the zero at its end.
_MOST_ARGUMENT = 131_072
_MOST_CONFIG_MAP = 1_048_576
_REMEDY = "pass it in the source of a script template, which Argo hands over as a file"


def check_pod_sizes(context: Context) -> None:
    """Add what no pod of a workflow could be started with."""
    arguments = mapping(context.spec, "arguments").get("parameters")
    values = {text(each.get("name")): str(each.get("value", "")) for _, each in entries(arguments, ())}
    defaults = Template(context.defaults, (*context.path, "templateDefaults"))
    for template in (defaults, *context.every_template):
        for place, written in _handed_over(template):
            size = _size(written, values)
            if size >= _MOST_ARGUMENT:
                context.findings.error(
                    place, f"has {size} bytes, Linux takes {_MOST_ARGUMENT - 1} in one argument or variable: {_REMEDY}"
                )
    for template in context.every_template:
        if template.kind in POD_TYPES:
            _check_template(template, defaults, values, context)


def _check_template(template: Template, defaults: Template, values: Mapping[str, str], context: Context) -> None:
    # What stands in the template itself goes before the defaults of the same place.
    own = {key for key, value in template.data.items() if not isinstance(value, dict)}
    merged = [template.data, {key: value for key, value in defaults.data.items() if key not in own}]
    size = sum(_size(written, values) for part in merged for _, written in texts(part, ()))
    if size > _MOST_CONFIG_MAP:
        context.findings.error(
            template.path,
            f"the template has {size} bytes with the values of the workflow's parameters: Argo keeps it for each pod"
            f" in a ConfigMap, of which Kubernetes takes 1 MiB ({_MOST_CONFIG_MAP} bytes): put what is large into a"
            " file or an object store, and its address into a parameter",
        )


def _handed_over(template: Template) -> Iterator[tuple[Path, str]]:
    """Yield the arguments and variables of a template's containers."""
    for place, container in _containers(template):
        for key in ("command", "args"):
            yield from texts(container.get(key), (*place, key))
        for inner, variable in entries(container.get("env"), (*place, "env")):
            if isinstance(variable.get("value"), str):
                # The kernel counts the name as well.
                yield (*inner, "value"), f"{text(variable.get('name'))}={variable['value']}"


def _containers(template: Template) -> Iterator[tuple[Path, dict[str, Any]]]:
    for kind in ("container", "script"):
        yield (*template.path, kind), mapping(template.data, kind)
    for key in ("initContainers", "sidecars"):
        yield from entries(template.data.get(key), (*template.path, key))
    containers = mapping(template.data, "containerSet").get("containers")
    yield from entries(containers, (*template.path, "containerSet", "containers"))


def _size(written: str, values: Mapping[str, str]) -> int:
    """Return how many bytes a text has once Argo has put the workflow's parameters in."""
    if "{{" not in written:
        return len(written.encode(errors="replace"))
    return len(without_tags(written, "").encode(errors="replace")) + sum(
        _tag_size(tag, values) for tag in tags(written)
    )


def _tag_size(tag: Tag, values: Mapping[str, str]) -> int:
    found = (
        [each.parts for each in expression(tag.text).references] if tag.is_expression else [tuple(tag.text.split("."))]
    )
    size = sum(_value_size(".".join(parts[2:]), values) for parts in found if parts[:2] == ("workflow", "parameters"))
    return size * 4 // 3 if "b64enc" in tag.text else size


def _value_size(name: str, values: Mapping[str, str]) -> int:
    if name in values:
        return len(values[name].encode(errors="replace"))
    # All of them, as a list or an object: about the same.
    return len(json.dumps(values, ensure_ascii=False).encode(errors="replace")) if name in ("", "json") else 0
