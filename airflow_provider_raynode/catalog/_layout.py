"""Where an object lies: `<catalog>/<dag_id>/<run_id>/<task or node id>/<map_index>/<name>`."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9_.+:=@-]")
_LONGEST = 200


def safe_segment(name: str) -> str:
    """Return `name` as one segment of a path on every storage.

    Letters, digits and `_.+:=@-` stay, so that Airflow's own ids are found under their own names. Every other character
    becomes `_`, and what was changed (also `.`, `..`, empty and over-long names) gets a hash of the original, so that
    two names never meet in one segment and no name leads elsewhere.
    """
    clean = _UNSAFE.sub("_", name)
    if clean == name and 0 < len(name) <= _LONGEST and not name.startswith("."):
        return name
    suffix = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{clean[: _LONGEST - 20].lstrip('.') or '_'}-{suffix}"


def node_path(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the folder of a task or node below the catalog's root; `map_index` is -1 where nothing is mapped."""
    return "/".join((safe_segment(dag_id), safe_segment(run_id), safe_segment(task_id), str(int(map_index))))
