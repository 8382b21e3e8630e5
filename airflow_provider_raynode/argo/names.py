"""Argo names from Airflow ids: the same names at export and in the pods."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow.sdk import DAG

T = TypeVar("T")
# Argo's limits: a task's or template's name, a workflow's (a Kubernetes label), a CronWorkflow's (it gets a suffix).
LONGEST_NAME = 128
LONGEST_WORKFLOW = LONGEST_LABEL = 63
LONGEST_CRON_WORKFLOW = 52
# Operators of the language of `depends`, which a task of that name would be taken for.
RESERVED = frozenset(
    (
        *("in", "not", "and", "or", "let", "if", "else", "true", "false", "nil"),
        *("matches", "contains", "startswith", "endswith"),
    )
)
# Task names of the export's own: the gate before the end, what plans an expansion, what asks for the order of events.
GATE = "all-done"
PLAN_SUFFIX = "-plan"
RAY_JOB_SUFFIX = "-rayjob"
# Template names of the export's own: the DAG, what needs no pod, the exit handler; and those of mapped task groups.
ENTRY, EMPTY, ON_EXIT = "dag", "empty", "on-exit"
OTHER_TEMPLATES = (ENTRY, EMPTY, ON_EXIT)
GROUP_PREFIX = "group-"
ORDER_SUFFIX = "-order"
_HASH = 6


def argo_name(text: str, *, longest: int = LONGEST_NAME) -> str:
    """Return `text` as one Argo name: letters, digits and `-`, as near to the text as that allows.

    What is cut gets a hash of the whole, so that long names differ where their texts do.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "task"
    if not name[0].isalpha() or name.lower() in RESERVED:
        name = f"t-{name}"
    if len(name) > longest:
        name = f"{name[: longest - _HASH - 1].rstrip('-')}-{_digest(text)}"
    return name


def own_name(node_id: str, name: str, roles: Iterable[str]) -> str:
    """Return the name of a template that is there for one node: the node's own, or with a hash of its id.

    It has one where the name could be another template's: the names of those begin with a role (`task`,
    `task-with-retries`) or `group-`, or are among `OTHER_TEMPLATES`.

    :param name: the node's, in small letters.
    """
    words = ("for", "of", "in", "with")
    others = any(name == role or name.startswith(tuple(f"{role}-{word}-" for word in words)) for role in roles)
    if others or name in OTHER_TEMPLATES or name.startswith(GROUP_PREFIX):
        return f"{name[: LONGEST_NAME - _HASH - 1]}-{_digest(node_id)}"
    return name


def shared_part(text: str) -> str:
    """Return a group's or a pool's name as a part of a template's name; where it is not plain, with a hash."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9_]{0,38}[a-z0-9])?", text):
        return text.replace("_", "-")
    return f"{argo_name(text, longest=40).lower()}-{_digest(text)}"


def label_value(text: str, *, longest: int = LONGEST_LABEL) -> str:
    """Return `text` as the value of a Kubernetes label: as it is where it is one, else near to it, with a hash."""
    if len(text) <= longest and re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?", text):
        return text
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: longest - _HASH - 1].strip("-_.")
    return f"{short}-{_digest(text)}".lstrip("-")


def unique_names(ids: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return an Argo name for each id; where two would meet (`a_b`, `a.b`), each gets a hash of its id.

    Argo takes `-` and `_` in a name for the same, and tells `A` from `a`.

    :param taken: names that none may have.
    """
    ours = (PLAN_SUFFIX, RAY_JOB_SUFFIX, ORDER_SUFFIX)
    longest = LONGEST_NAME - max(map(len, ours)) - _HASH - 1
    plain = {each: argo_name(each, longest=longest) for each in ids}
    count = Counter(plain.values())
    reserved = set(taken)

    def clashes(name: str) -> bool:
        return (
            count[name] > 1
            or name in reserved
            or any(name.endswith(end) and name[: -len(end)] in count for end in ours)
        )

    return {each: f"{name}-{_digest(each)}" if clashes(name) else name for each, name in plain.items()}


def per_dag(function: Callable[[DAG], T]) -> Callable[[DAG], T]:
    """Keep what a function returns with the DAG object, whose shape does not change once its file is loaded.

    Not an lru_cache: two DAGs of the same task ids are equal for it, whatever lies between the tasks.
    """

    @functools.wraps(function)
    def kept(dag: DAG) -> T:
        values: dict[str, Any] = vars(dag).setdefault("_raynode_argo", {})
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in values:
            values[name] = function(dag)
        found: T = values[name]
        return found

    return kept


@per_dag
def argo_names(dag: DAG) -> Mapping[str, str]:
    """Return the Argo task name of each task and of each mapped task group of a DAG, by its Airflow id."""
    return MappingProxyType(unique_names([*dag.task_ids, *mapped_group_ids(dag)], taken=(GATE,)))


@per_dag
def template_names(dag: DAG) -> Mapping[str, str]:
    """Return for each Argo task name of a DAG what a template of its own is called by: small letters, and unique.

    A pod's name has its template's in it, and Kubernetes takes no capital letters there.
    """
    longest = LONGEST_NAME - max(len(GROUP_PREFIX), len(RAY_JOB_SUFFIX)) - _HASH - 1

    def small(name: str) -> str:
        # From the name alone: another task of the DAG renames none.
        if name == name.lower():
            return argo_name(name, longest=longest)
        return f"{argo_name(name.lower(), longest=longest - _HASH - 1)}-{_digest(name)}"

    return MappingProxyType({name: small(name) for name in argo_names(dag).values()})


def mapped_group_ids(dag: DAG) -> list[str]:
    """Return the ids of the DAG's mapped task groups, in the order of the file."""
    found: dict[str, None] = {}
    for task in dag.tasks:
        for group in task.iter_mapped_task_groups():
            if group.group_id is not None:
                found[group.group_id] = None
    return list(found)


def workflow_name(dag_id: str, *, cron: bool = False) -> str:
    """Return the name of a DAG's workflow object: lower case, as Kubernetes wants it."""
    longest = LONGEST_CRON_WORKFLOW if cron else LONGEST_WORKFLOW
    return argo_name(dag_id.lower(), longest=longest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH]
