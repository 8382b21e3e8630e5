"""The trigger rules: the cases in which they differ. The equality suite compares all of them with Airflow's own."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_raynode.argo.rules import decide, decide_so_far, outcomes


@pytest.mark.parametrize(
    ("rule", "states", "decision"),
    [
        ("all_success", "success success", "run"),
        ("all_success", "success skipped", "skipped"),
        ("all_success", "skipped failed", "upstream_failed"),
        ("all_failed", "failed upstream_failed", "run"),
        ("all_failed", "failed skipped", "skipped"),
        ("one_success", "failed success", "run"),
        ("one_success", "failed skipped", "upstream_failed"),
        ("one_success", "skipped skipped", "skipped"),
        ("one_failed", "success upstream_failed", "run"),
        ("one_failed", "success skipped", "skipped"),
        ("one_done", "upstream_failed skipped", "skipped"),
        ("one_done", "failed skipped", "run"),
        ("none_failed", "skipped skipped", "run"),
        ("none_failed_min_one_success", "skipped skipped", "skipped"),
        ("none_failed_min_one_success", "skipped success", "run"),
        ("none_skipped", "failed success", "run"),
        ("none_skipped", "failed skipped", "skipped"),
        ("all_skipped", "skipped skipped", "run"),
        ("all_skipped", "skipped success", "skipped"),
        ("all_done", "failed skipped", "run"),
        ("all_done_min_one_success", "failed success", "run"),
        ("all_done_min_one_success", "skipped success", "skipped"),
        ("all_done_min_one_success", "failed failed", "upstream_failed"),
        ("always", "failed", "run"),
    ],
)
def test_decide(rule: str, states: str, decision: str) -> None:
    assert decide(rule, states.split()) == decision


@pytest.mark.parametrize(
    ("setups", "decision"),
    [
        ("success failed", "run"),
        ("failed", "upstream_failed"),
        ("skipped", "skipped"),
        ("skipped failed", "upstream_failed"),
    ],
)
def test_a_teardown_runs_where_one_of_its_setups_did(setups: str, decision: str) -> None:
    assert decide("all_done_setup_success", ["failed", *setups.split()], setups=setups.split()) == decision


RULES = sorted({rule for rule, *_ in test_decide.pytestmark[0].args[1]})
STATES = ("success", "failed", "skipped", "upstream_failed")


@pytest.mark.parametrize("rule", RULES)
def test_what_is_decided_early_is_one_of_the_outcomes_and_the_last_look_decides_all(rule: str) -> None:
    for states in itertools.product(STATES, repeat=3):
        seen = [decide_so_far(rule, states[:count], 3) for count in range(4)]
        assert seen[3] == decide(rule, states)
        first = next(each for each in seen if each is not None)
        assert first in outcomes(rule, states), states
        # Only all_success depends on what comes first.
        assert rule == "all_success" or {each for each in seen if each is not None} == {decide(rule, states)}, states


def test_all_success_may_become_two_things() -> None:
    assert outcomes("all_success", ["success", "failed", "skipped"]) == {"upstream_failed", "skipped"}
    assert outcomes("all_success", []) == {"run"}
    assert decide_so_far("all_success", ["skipped"], 2) == "skipped"
    assert decide_so_far("all_success", ["success"], 2) is None


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="no_such_rule"):
        decide("no_such_rule", ["success"])
