"""What a node's work is: what has to be the same for a later attempt to go on with an earlier one's. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_raynode.catalog import CatalogRef
from airflow_provider_raynode.spec import NodeSpec, digest

# Of a training: how its failures and its log are handled; what is trained stays the same.
_HOW_TRAINED = {"failure", "logging", "report_timeout_s"}


def changes(before: NodeSpec, after: NodeSpec) -> list[str]:
    """Return what differs between the work of two specs, in the author's words; references count by content.

    Where the work is done (cluster, catalog, run time limits) and how often a trial is tried again is not part of it.
    """
    one, two = work_of(before), work_of(after)
    if before.config.work != after.config.work:
        return [f"the kind of work (from a {before.config.work} to a {after.config.work})"]
    return [name for name in dict.fromkeys([*two, *one]) if one.get(name) != two.get(name)]


def work_of(spec: NodeSpec) -> dict[str, str]:
    """Return the digest of each part of a node's work, by its name in the author's words."""
    search = spec.config.ray_tune.model_dump(mode="json", exclude={"failure"}) if spec.config.ray_tune else {}
    if "policy_file" in (search.get("scheduler") or {}):
        # The same file has another path on another machine.
        search["scheduler"]["policy_file"] = search["scheduler"]["policy_file"].rpartition("/")[2]
    training = spec.config.ray_train.model_dump(mode="json", exclude=_HOW_TRAINED) if spec.config.ray_train else {}
    function = spec.code.function_sha256 or _content(spec.function.pickle or {}) or spec.function.import_path
    over = spec.config.ray_map
    parts: dict[str, Any] = {
        "the function": function,
        "op_kwargs": _content(spec.op_kwargs),
        "op_args": _content(list(spec.op_args)),
        "the entrypoint": None if spec.entrypoint is None else spec.entrypoint.model_dump(mode="json"),
        "parameters": spec.context.parameters,
        "returns": [declared.model_dump() for declared in spec.returns],
        "default_resources": spec.config.default_resources.model_dump(mode="json"),
        **{f"ray_tune.{name}": value for name, value in search.items()},
        **{f"ray_train.{name}": value for name, value in training.items()},
        # What says which calls there are; how they are run may change from attempt to attempt.
        **({"ray_map.over": over.over, "ray_map.batch_size": over.batch_size} if over is not None else {}),
    }
    return {name: digest(json.dumps(value, sort_keys=True, default=str).encode()) for name, value in parts.items()}


def _content(value: Any) -> Any:
    if CatalogRef.is_ref(value):
        return value["sha256"]
    if isinstance(value, Mapping):
        return {key: _content(item) for key, item in value.items()}
    return [_content(item) for item in value] if isinstance(value, list) else value
