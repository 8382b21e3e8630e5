"""Names: on their way through Tune, and those of the config held against what trials report; without Ray running."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.names import (
    COUNTERS,
    arrived,
    is_tunes_own,
    key_of,
    reported_in,
    travelling,
)
from airflow_provider_raynode.runtime.references import ReportCheck, references, unheeded
from airflow_provider_raynode.runtime.stop import build_stop

ODD = ["done", "config", "config/x", "__duplicate__", "raynode_outputs", "raynode:done", "raynode:raynode:x", "", "a/b",
       "größe", "training_iteration"]  # fmt: skip


def test_every_name_that_tune_uses_is_known() -> None:
    from ray.tune import result

    found = {*result.AUTO_RESULT_KEYS, *result.DEBUG_METRICS, *result.DEFAULT_EXPERIMENT_INFO_KEYS}
    found |= {result.DONE, result.SHOULD_CHECKPOINT, result.RESULT_DUPLICATE, result.TRIAL_INFO, result.DEFAULT_METRIC}
    found |= {result.TIMESTEPS_THIS_ITER, result.EPISODES_THIS_ITER, result.STDOUT_FILE}
    assert all(map(is_tunes_own, found)), [name for name in found if not is_tunes_own(name)]


@pytest.mark.parametrize("name", ODD)
def test_a_name_comes_out_as_it_went_in(name: str) -> None:
    assert arrived(travelling(name)) == name
    assert not is_tunes_own(travelling(name))


def test_no_two_names_meet() -> None:
    assert len(set(map(travelling, ODD))) == len(ODD)


def test_what_the_function_reported_of_a_result() -> None:
    result = {travelling("done"): 0.5, "done": False, "pid": 7, "score": 1, "training_iteration": 3, "__x__": 1}
    assert reported_in(result) == {"done": 0.5, "score": 1, "training_iteration": 3}


def test_a_config_means_the_counters_of_tune_and_else_what_is_reported() -> None:
    assert key_of("training_iteration") == "training_iteration"
    assert key_of("done") == travelling("done")


# -- bounds --------------------------------------------------------------------------------------------------------


def search(**tune: Any) -> RayTune:
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    section = RayConfig.load(
        {"ray_tune": {"metric": "loss", "mode": "min", "search_space": space, **tune}}, source="test"
    ).ray_tune
    assert section is not None
    return section


@pytest.mark.parametrize(
    ("mode", "result", "ends"),
    [
        ("min", {"loss": 1.0}, False),
        ("min", {"loss": 0.2}, True),
        ("min", {"loss": 0.1}, True),
        ("max", {"loss": 0.1}, False),
        ("max", {"loss": 0.2}, True),
        ("min", {"loss": float("nan")}, False),
        ("max", {"loss": float("inf")}, True),
        ("min", {"loss": float("-inf")}, True),
        ("min", {"loss": None}, False),
        ("min", {"other": 0.1}, False),
        ("min", {"loss": 1.0, "acc": 0.9}, True),
        ("min", {"loss": 1.0, "acc": 0.1}, False),
        ("min", {"loss": 1.0, "training_iteration": 5}, True),
        ("min", {"loss": 1.0, "done": True}, False),
        ("min", {"loss": 1.0, "raynode:done": True}, True),
    ],
)
def test_a_bound_on_the_metric_is_reached_in_its_direction(mode: str, result: dict[str, Any], ends: bool) -> None:
    stop = {"loss": 0.2, "acc": 0.5, "training_iteration": 5, "done": 1}
    bounds = build_stop(search(mode=mode, stop=stop))
    assert bounds is not None
    assert bounds("t", result) is ends
    assert not bounds.stop_all()


def test_a_search_without_bounds() -> None:
    assert build_stop(search()) is None


# -- what the config refers to -------------------------------------------------------------------------------------


def test_every_place_that_names_a_reported_value() -> None:
    found = references(
        search(
            stop={"loss": 1, "training_iteration": 3},
            checkpoint={"checkpoint_score_attribute": "acc"},
            reuse_actors=False,
            scheduler={"type": "resource_changing", "base_scheduler": {"type": "asha", "time_attr": "epoch"}},
        )
    )
    assert {(each.key, each.name) for each in found} == {
        ("ray_tune.stop.loss", "loss"),
        ("ray_tune.stop.training_iteration", "training_iteration"),
        ("ray_tune.checkpoint.checkpoint_score_attribute", "acc"),
        ("ray_tune.scheduler.base_scheduler.time_attr", "epoch"),
    }


STOP = {"stop": {"acc": 1}}
SCORE = {"checkpoint": {"checkpoint_score_attribute": "acc"}}


def asha(**more: Any) -> dict[str, Any]:
    return {"scheduler": {"type": "asha", "time_attr": "epoch", **more}}


ASHA = {"scheduler": "asha"}
PBT = {
    "scheduler": {
        "type": "pbt",
        "time_attr": "epoch",
        "hyperparam_mutations": {"x": {"type": "uniform", "low": 0, "high": 1}},
    }
}


@pytest.mark.parametrize(
    ("config", "reports", "message"),
    [
        (STOP, [{"loss": 1}], None),
        (STOP, [{"loss": 1, "ac": 1}, {"loss": 1, "ac": 1}], r"ray_tune\.stop\.acc: no report has 'acc' \(did you mean "
         r"'ac'\?\); reported: ac, loss; Tune itself counts: .*training_iteration"),
        (STOP, [{"loss": 1, "acc": 0}, {"loss": 1}, {"loss": 1}], None),
        (STOP, [{"loss": 1}, {"loss": 1, "acc": 0.5}], None),
        (STOP, [{"loss": 1, "acc": "high"}], r"ray_tune\.stop\.acc: 'acc' must be a number, got str: 'high'"),
        (STOP, [{"loss": 1, "acc": None}, {"loss": 1, "acc": 1}], None),
        ({"stop": {"traning_iteration": 3}}, [{"loss": 1}] * 2, "did you mean 'training_iteration'"),
        ({"stop": {"timestamp": 3}}, [{"loss": 1, "timestamp": 3}], "Tune's own counter"),
        ({"stop": {"training_iteration": 3}}, [{"loss": 1}] * 4, None),
        ({"stop": {"done": 3}}, [{"loss": 1, "done": 1}] * 2, None),
        (asha(), [{"loss": 1}], None),
        (asha(), [{"loss": 1}] * 2, r"ray_tune\.scheduler\.time_attr: no report has 'epoch'"),
        (asha(), [{"loss": 1, "epoch": 1}, {"loss": 1}], r"no report has 'epoch'"),
        (asha(), [{"loss": 1, "epoch": 2}, {"loss": 1, "epoch": 1}], r"went from 2 to 1"),
        (asha(), [{"loss": 1, "epoch": 2}, {"loss": 1, "epoch": 2}], r"went from 2 to 2"),
        (asha(), [{"loss": 1, "epoch": "first"}], r"must count up, got 'first'"),
        (asha(), [{"loss": 1, "epoch": True}], r"must count up, got True"),
        (asha(), [{"loss": 1, "epoch": float("nan")}], r"must count up, got nan"),
        (PBT, [{"loss": 1}], r"ray_tune\.scheduler\.time_attr: no report has 'epoch'"),
        (SCORE, [{"loss": 1}, {"loss": 1}], r"checkpoint_score_attribute: no report has 'acc'"),
    ],
)  # fmt: skip
def test_a_report_against_the_config(
    config: dict[str, Any], reports: list[dict[str, Any]], message: str | None
) -> None:
    check = ReportCheck(references(search(**config)))
    for metrics in reports[:-1]:
        check.check(metrics, {})
    if message is None:
        check.check(reports[-1], {})
        return
    with pytest.raises(RayNodeError, match=message):
        check.check(reports[-1], {})


def test_an_output_is_no_bound() -> None:
    check = ReportCheck(references(search(**STOP)))
    with pytest.raises(RayNodeError, match=r"ray_tune\.stop\.acc: 'acc' is not reported as a number, but as a dict"):
        check.check({"loss": 1}, {"acc": {"val": 1}})


def test_a_checkpoint_has_its_score() -> None:
    check = ReportCheck(references(search(**SCORE)))
    with pytest.raises(RayNodeError, match="no report has 'acc'"):
        check.check({"loss": 1}, {}, checkpoint=True)
    with pytest.raises(RayNodeError, match="must be a number, got NoneType"):
        ReportCheck(references(search(**SCORE))).check({"loss": 1, "acc": None}, {}, checkpoint=True)


def test_what_is_returned_repeats_the_last_time() -> None:
    check = ReportCheck(references(search(**asha())))
    check.check({"loss": 1, "epoch": 2}, {})
    check.check({"loss": 1, "epoch": 2}, {}, last=True)


# -- what had no effect --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "result", "checkpoints", "message"),
    [
        (STOP, {"loss": 1, "training_iteration": 1}, 0, "ray_tune.stop.acc had no effect: no report has 'acc'"),
        (STOP, {"loss": 1, "acc": 1, "training_iteration": 1}, 0, None),
        (ASHA, {"loss": 1, "training_iteration": 1}, 0, "ASHAScheduler had nothing to stop"),
        (ASHA, {"loss": 1, "training_iteration": 9}, 0, None),
        (asha(grace_period=9), {"loss": 1, "epoch": 4, "training_iteration": 4}, 0, "before grace_period (9)"),
        ({"scheduler": "median"}, {"loss": 1, "training_iteration": 1}, 0, "MedianStoppingRule had nothing to stop"),
        ({"scheduler": "hyperband"}, {"loss": 1, "training_iteration": 9}, 0, "a paused trial begins anew"),
        ({"scheduler": "hyperband"}, {"loss": 1, "training_iteration": 9}, 2, None),
        (PBT, {"loss": 1, "epoch": 9, "training_iteration": 9}, 0, "ran without checkpoints"),
        (PBT, {"loss": 1, "epoch": 9, "training_iteration": 9}, 3, None),
        (PBT, {"loss": 1, "epoch": 4, "training_iteration": 4}, 3, "before perturbation_interval (5)"),
        (PBT, {"loss": 1, "epoch": 1, "training_iteration": 1}, 0, "had nothing to change"),
        ({"scheduler": "fifo"}, {"loss": 1, "training_iteration": 1}, 0, None),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_told(
    config: dict[str, Any], result: dict[str, Any], checkpoints: int, message: str | None
) -> None:
    warnings = unheeded(search(**config), [result], checkpoints)
    assert (message is None) == (not warnings), warnings
    assert message is None or message in warnings[0]
    assert unheeded(search(**config), [], 0) == []


def test_the_counters_are_those_of_a_functions_trial() -> None:
    assert "training_iteration" in COUNTERS
    assert "timesteps_total" not in COUNTERS, "a function has none unless it reports its own"
