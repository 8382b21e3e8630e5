"""What all templates have, said once in `spec.templateDefaults`.

Argo lays each template over the defaults by a strategic merge (`mergedTemplateDefaultsInto` in its operator.go):
mappings key by key, lists of named things by their name, other lists whole; of the defaults' bodies only the one of the
template's own type counts. Nothing can be taken away again, so what some pod does not have is no default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Lists of a template and its container that are merged by this key; other lists are replaced.
MERGE_KEYS = {
    "env": "name",
    "initContainers": "name",
    "sidecars": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
}

_BODIES = ("container", "script")


def defaults_for(wanted: dict[str, Any], templates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what of `wanted` each template has too, if with another value."""
    for template in templates:
        wanted = _shared(wanted, template)
    return wanted


def without_defaults(template: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return what is left to say of a template; its body stays, if empty, since it makes the template's type."""
    found = {key: _rest(value, defaults.get(key), key) for key, value in template.items()}
    return {key: value for key, value in found.items() if key in _BODIES or value not in (None, {}, [])}


def as_run(template: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return what Argo makes of a template: the bodies of other types are no defaults for it."""
    mine = {key: value for key, value in defaults.items() if key not in _BODIES or key in template}
    return dict(_over(template, mine))


def _over(template: Any, defaults: Any, key: str = "") -> Any:
    if isinstance(template, dict) and isinstance(defaults, dict):
        more = {name: value for name, value in template.items() if name not in defaults}
        return {**{name: _over(template.get(name), value, name) for name, value in defaults.items()}, **more}
    if isinstance(template, list) and isinstance(defaults, list) and key in MERGE_KEYS:
        over = {each[MERGE_KEYS[key]]: each for each in template}
        kept = [_over(over.pop(each[MERGE_KEYS[key]], None), each) for each in defaults]
        return [*kept, *over.values()]
    return defaults if template is None else template


def _shared(wanted: Any, full: Any, key: str = "") -> Any:
    if isinstance(wanted, dict) and isinstance(full, dict):
        found = {name: _shared(value, full[name], name) for name, value in wanted.items() if full.get(name) is not None}
        return {name: value for name, value in found.items() if value not in ({}, [])}
    if isinstance(wanted, list) and isinstance(full, list) and key in MERGE_KEYS:
        theirs = {each[MERGE_KEYS[key]]: each for each in full}
        return [each for each in wanted if _covers(theirs.get(each[MERGE_KEYS[key]]), each)]
    return wanted


def _covers(over: Any, base: Any) -> bool:
    """Whether nothing of `base` would be left over beside `over` where it is merged with it."""
    if isinstance(over, dict) and isinstance(base, dict):
        return all(name in over and _covers(over[name], value) for name, value in base.items())
    return over is not None


def _rest(full: Any, default: Any, key: str) -> Any:
    if full == default:
        return {} if isinstance(full, dict) else None
    if isinstance(full, dict) and isinstance(default, dict):
        found = {name: _rest(value, default.get(name), name) for name, value in full.items()}
        return {name: value for name, value in found.items() if value not in (None, {}, [])}
    if isinstance(full, list) and isinstance(default, list) and key in MERGE_KEYS:
        theirs = {each[MERGE_KEYS[key]]: each for each in default}
        return [each for each in full if each != theirs.get(each[MERGE_KEYS[key]])]
    return full
