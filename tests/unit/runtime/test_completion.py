"""How much of its search a node did, and whether it may end so."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.runtime.completion import CUT_OFF, EARLY_STOPPED, FAILED, FINISHED, NOT_BEGUN, SearchEnd
from airflow_provider_raynode.spec import Completion, NodeFailure


def end(asked: int | None = 6, **failure: Any) -> SearchEnd:
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    config = RayConfig.load(
        {
            "ray_tune": {
                "metric": "score",
                "mode": "max",
                "search_space": space,
                "num_samples": 6,
                "time_budget_s": 9,
                "failure": failure,
            }
        }
    )
    assert config.ray_tune is not None
    return SearchEnd(config.ray_tune, asked)


ERROR = {"t3": NodeFailure(type="ValueError", message="diverged", traceback="Traceback: …", trial_id="t3")}


def test_all_trials() -> None:
    ending = end()
    account = ending.completion([FINISHED] * 3 + [EARLY_STOPPED] * 2 + [FAILED])
    assert (account.ending, account.whole) == ("all_trials", True)
    assert account.summary() == "1 of 6 failed, 3 finished, 2 stopped early"
    assert ending.failure(account, ERROR) is None


def test_a_time_budget_may_cut_trials_off_and_says_so() -> None:
    ending = end(asked=None)
    ending.decide("time_budget", "the time budget (ray_tune.time_budget_s: 9) was over")
    account = ending.completion([FINISHED, CUT_OFF, NOT_BEGUN])
    assert not account.whole
    assert account.summary() == "1 finished, 1 cut off"
    assert ending.failure(account, {}) is None


def test_fail_fast_fails_with_the_trials_error() -> None:
    ending = end(fail_fast=True)
    ending.trial_failed("t3")
    ending.decide("time_budget", "too late")
    account = ending.completion([FINISHED, FAILED, CUT_OFF])
    failure = ending.failure(account, ERROR)
    assert failure is not None
    assert failure.type == "FailFast"
    assert "1 of 6 failed, 1 finished, 1 cut off, 3 not begun; t3: ValueError: diverged" in failure.message
    assert (failure.trial_id, failure.traceback) == ("t3", "Traceback: …")
    raising = end(fail_fast="raise")
    raising.trial_failed("t3")
    assert raising.failure(account, ERROR) == ERROR["t3"]
    patient = end()
    patient.trial_failed("t3")
    assert not patient.decided


@pytest.mark.parametrize(
    ("statuses", "ending_is", "type_is"),
    [
        ([FINISHED] * 5, "searcher_finished", "SearchIncomplete"),
        ([FINISHED] * 5 + [NOT_BEGUN], "incomplete", "SearchIncomplete"),
        ([], "searcher_finished", "SearchIncomplete"),
    ],
)
def test_every_other_end_fails(statuses: list[str], ending_is: str, type_is: str) -> None:
    ending = end()
    account = ending.completion(statuses)
    assert account.ending == ending_is
    failure = ending.failure(account, {})
    assert failure is not None
    assert failure.type == type_is
    assert "of 6" in failure.message


def test_a_standstill_does_as_configured() -> None:
    for configured, fails in (("fail", True), ("finish", False)):
        ending = end(on_stall=configured)
        ending.decide("stalled", "nothing ran")
        failure = ending.failure(ending.completion([FINISHED] * 3), {})
        assert (failure is not None) == fails
        assert failure is None or failure.type == "SearchStalled"
        assert failure is None or "on_stall: finish" in failure.message
    ending = end(on_stall="finish")
    ending.decide("incomplete", "who knows")
    assert ending.failure(ending.completion([FINISHED] * 3), {}) is not None, "of that, the config says nothing"


def test_summary_of_nothing() -> None:
    assert Completion(asked=4).summary() == "4 of 4 not begun"
    assert Completion().summary() == "0 finished"
