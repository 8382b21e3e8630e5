"""Airflow's trigger rules as pure functions of the states of what lies upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

Decision = Literal["run", "skipped", "upstream_failed"]

EARLY_RULES = frozenset(("one_success", "one_failed", "one_done"))
"""Rules by which a task runs while some of its upstream has not ended yet."""
_FAILED = frozenset(("failed", "upstream_failed"))


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


def decide_so_far(
    rule: str, ended: Iterable[str], expected: int, *, setups: Iterable[str] = (), expected_setups: int = 0
) -> Decision | None:
    """Return what a trigger rule makes of a task while only a part of its upstream has ended; None where it waits.

    As `TriggerRuleDep` does at each look; with everything ended it says what `decide` says.

    :param ended: the states of the direct upstream task instances that have ended.
    :param expected: how many direct upstream task instances there are.
    :param setups: the states of those that belong to setup tasks, `expected_setups` their number.
    """
    states = list(ended)
    count = Counter(states)
    failed = count["failed"] + count["upstream_failed"]
    is_done = len(states) >= expected
    match rule:
        case "all_success" | "none_failed" | "none_failed_min_one_success" if failed:
            return "upstream_failed"
        case "all_success" | "none_skipped" | "all_done_min_one_success" if count["skipped"]:
            return "skipped"
        case "all_failed" if count["success"] or count["skipped"]:
            return "skipped"
        case "all_skipped" if count["success"] or failed:
            return "skipped"
        case "one_success" if count["success"]:
            return "run"
        case "one_failed" if failed:
            return "run"
        case "one_done" if count["success"] or count["failed"]:
            return "run"
        case "always":
            return "run"
    return decide(rule, states, setups=setups) if is_done else None


def outcomes(rule: str, upstream: Iterable[str], *, setups: Iterable[str] = ()) -> set[Decision]:
    """Return what a trigger rule may make of a task, whichever of its upstream task instances ends first."""
    states = set(upstream)
    if rule != "all_success":
        return {decide(rule, states, setups=setups)}
    found: set[Decision] = set()
    if states & _FAILED:
        found.add("upstream_failed")
    if "skipped" in states:
        found.add("skipped")
    return found or {"run"}


def _after_setups(setups: list[str]) -> Decision:
    if not setups or "success" in setups:
        return "run"
    return "skipped" if all(state == "skipped" for state in setups) else "upstream_failed"
