"""Airflow's trigger rules as pure functions of the states of what lies upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

Decision = Literal["run", "skipped", "upstream_failed"]

_FAILED = frozenset(("failed", "upstream_failed"))
# What a rule decides once a single upstream task instance is in one of these states; else it waits for all of them.
_SETTLED_BY_ONE: dict[tuple[str, str], frozenset[str]] = {
    ("all_success", "upstream_failed"): _FAILED,
    ("all_success", "skipped"): frozenset(("skipped",)),
    ("all_failed", "skipped"): frozenset(("success", "skipped")),
    ("one_success", "run"): frozenset(("success",)),
    ("one_failed", "run"): _FAILED,
    ("one_done", "run"): frozenset(("success", "failed")),
    ("none_failed", "upstream_failed"): _FAILED,
    ("none_failed_min_one_success", "upstream_failed"): _FAILED,
    ("none_skipped", "skipped"): frozenset(("skipped",)),
    ("all_skipped", "skipped"): frozenset(("success", *_FAILED)),
    ("all_done_min_one_success", "skipped"): frozenset(("skipped",)),
}


def decide(rule: str, upstream: Iterable[str], *, setups: Iterable[str] = ()) -> Decision:
    """Return what a trigger rule makes of a task whose upstream task instances have all ended.

    After `TriggerRuleDep` of Airflow 3.3 (airflow/ti_deps/deps/trigger_rule_dep.py) with every instance done.

    :param rule: the rule's name, `all_success`.
    :param upstream: the states of the direct upstream task instances: success, failed, skipped, upstream_failed.
    :param setups: the states of those among them that belong to setup tasks.
    """
    states = list(upstream)
    if not states:
        return "run"
    count = Counter(states)
    success, skipped = count["success"], count["skipped"]
    failed, every = count["failed"] + count["upstream_failed"], len(states)
    match rule:
        case "all_success":
            return "upstream_failed" if failed else "skipped" if skipped else "run"
        case "all_failed":
            return "skipped" if success or skipped else "run"
        case "one_success":
            return "run" if success else "skipped" if skipped == every else "upstream_failed"
        case "one_failed":
            return "run" if failed else "skipped"
        case "one_done":
            return "run" if success or count["failed"] else "skipped"
        case "none_failed":
            return "upstream_failed" if failed else "run"
        case "none_failed_min_one_success":
            return "upstream_failed" if failed else "run" if success else "skipped"
        case "none_skipped":
            return "skipped" if skipped else "run"
        case "all_skipped":
            return "run" if skipped == every else "skipped"
        case "all_done_min_one_success":
            return "skipped" if skipped else "run" if success else "upstream_failed"
        case "all_done_setup_success":
            return _after_setups(list(setups))
        case "all_done" | "always":
            return "run"
    raise ValueError(f"the trigger rule {rule!r} is not known")


def settled_in(rule: str, decision: str, upstream: Iterable[tuple[str, int]]) -> int:
    """Return the pass of Airflow's scheduler after which a rule could decide as it did; 0 without any upstream.

    :param decision: what it decided: run, skipped or upstream_failed.
    :param upstream: the states of the direct upstream task instances, with the passes in which they ended.
    """
    ended = list(upstream)
    one = _SETTLED_BY_ONE.get((rule, decision), frozenset())
    return min((at for state, at in ended if state in one), default=max((at for _, at in ended), default=0))


def constrain(setups: Iterable[str]) -> Decision:
    """Return what the setups further up make of a task between them and their teardown: all must have succeeded."""
    return decide("all_success", setups)


def _after_setups(setups: list[str]) -> Decision:
    if not setups or "success" in setups:
        return "run"
    return "skipped" if all(state == "skipped" for state in setups) else "upstream_failed"
