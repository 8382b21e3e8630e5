"""Argo names from Airflow ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_raynode.argo.names import RESERVED, argo_name, unique_names, workflow_name

_ARGO = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
IDS = st.text(st.sampled_from("ab1_-.ßN"), min_size=1, max_size=250)


@pytest.mark.parametrize(
    ("task_id", "name"),
    [
        ("generate_dataset", "generate-dataset"),
        ("search.tuning.fan_out", "search-tuning-fan-out"),
        ("plain", "plain"),
        ("1st", "t-1st"),
        ("not", "t-not"),
        ("Matches", "t-Matches"),
        ("_private_", "private"),
        ("___", "task"),
        ("größe", "gr-e"),
    ],
)
def test_a_name_stays_near_the_id(task_id: str, name: str) -> None:
    assert argo_name(task_id) == name


def test_ids_that_meet_in_one_name_get_a_hash_each() -> None:
    names = unique_names(["a_b", "a-b", "a.b", "c"])
    assert names["c"] == "c"
    assert len({names["a_b"], names["a-b"], names["a.b"]}) == 3
    assert all(re.fullmatch(r"a-b-[0-9a-f]{6}", names[each]) for each in ("a_b", "a-b", "a.b"))


def test_a_name_of_the_exports_own_is_not_taken() -> None:
    names = unique_names(["all_done", "b", "b_plan", "b-rayjob"], taken=("all-done",))
    assert names["all_done"] != "all-done"
    assert names["b_plan"] != "b-plan"
    assert names["b-rayjob"] != "b-rayjob"


@given(st.lists(IDS, unique=True, max_size=20))
def test_names_are_argos_and_unique(ids: list[str]) -> None:
    names = unique_names(ids)
    assert len(set(names.values())) == len(ids)
    for name in names.values():
        assert _ARGO.fullmatch(name)
        assert name.lower() not in RESERVED
        assert len(f"{name}-rayjob") <= 128


@given(IDS, st.booleans())
def test_a_workflows_name_fits_kubernetes(dag_id: str, cron: bool) -> None:
    name = workflow_name(dag_id, cron=cron)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= (52 if cron else 63)
