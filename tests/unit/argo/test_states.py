"""States from the records that pods leave, and from the rules where no pod ran."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_raynode.argo.expansion import index_outputs, map_indexes
from airflow_provider_raynode.argo.records import RunStore, TaskRecord
from airflow_provider_raynode.argo.states import RunStates
from airflow_provider_raynode.catalog import Catalog

RUN = "run.1"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(Catalog(str(tmp_path)), "states", RUN)


def left(store: RunStore, task_id: str, state: str, map_index: int = -1, **fields: Any) -> None:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    store.write_record(
        TaskRecord(
            dag_id="states",
            run_id=RUN,
            task_id=task_id,
            map_index=map_index,
            state=state,  # type: ignore[arg-type]
            started=started,
            **{"try_number": 1, **fields},
        )
    )


def plain(task_id: str, **options: Any) -> Any:
    @task(task_id=task_id, **options)
    def function(*values: Any) -> Any:
        return 1

    return function


def test_what_no_pod_ran_is_what_its_rule_says(store: RunStore) -> None:
    with DAG("states") as dag:
        a = plain("a")()
        b = plain("b")(a)
        c = plain("c")(b)
        a >> plain("d", trigger_rule="all_done")()
        c >> plain("e", trigger_rule="all_done")()
    left(store, "a", "failed")
    states = RunStates(dag, store)
    assert [states.state(each) for each in "abc"] == ["failed", "upstream_failed", "upstream_failed"]
    assert states.decide("d") == "run"
    assert states.state("d") == "failed", "it was to run, and no pod of it ever began"


@pytest.mark.parametrize("cut_off", ["running", "up_for_retry"])
def test_a_pod_that_was_killed_has_failed(store: RunStore, cut_off: str) -> None:
    with DAG("states") as dag:
        plain("b")(plain("a")())
    left(store, "a", cut_off)
    assert RunStates(dag, store).state("a") == "failed"
    assert RunStates(dag, store).decide("b") == "upstream_failed"


def test_a_skip_list_counts_whatever_the_rule(store: RunStore) -> None:
    with DAG("states") as dag:

        @task.branch
        def branch() -> str:
            return "a"

        branch() >> [plain("a")(), plain("b", trigger_rule="all_done")()]
    left(store, "branch", "success", skipped=(("b", -1),))
    states = RunStates(dag, store)
    assert states.decide("a") == "run"
    assert states.decide("b") == "skipped"


def test_mapped_instances(store: RunStore) -> None:
    with DAG("states") as dag:
        source = plain("source")()

        @task
        def each(x: int) -> int:
            return x

        mapped = each.expand(x=source)
        plain("reduce", trigger_rule="none_failed")(mapped)
        plain("strict")(mapped)
    left(store, "source", "success")
    store.set_xcom("source", -1, "return_value", [1, 2, 3])
    left(store, "each", "success", 0)
    left(store, "each", "skipped", 1)
    states = RunStates(dag, store)
    assert states.instances("each") == {0: "success", 1: "skipped", 2: "failed"}
    left(store, "each", "success", 2)
    states = RunStates(dag, store)
    assert states.decide("reduce") == "run"
    assert states.decide("strict") == "skipped"
    assert states.decide_expansion("each") == ("run", [0, 1, 2])


def test_an_empty_expansion_is_skipped_and_a_missing_one_fails(store: RunStore) -> None:
    with DAG("states") as dag:
        source = plain("source")()

        @task
        def each(x: int) -> int:
            return x

        plain("after")(each.expand(x=source))
    left(store, "source", "success")
    states = RunStates(dag, store)
    assert states.decide_expansion("each") == ("upstream_failed", [])
    store.set_xcom("source", -1, "return_value", [])
    states = RunStates(dag, store)
    assert states.decide_expansion("each") == ("skipped", [])
    assert states.instances("each") == {-1: "skipped"}
    assert states.decide("after") == "skipped"


def test_lengths_of_what_can_be_expanded_over(store: RunStore) -> None:
    with DAG("states") as dag:
        one, two = plain("one")(), plain("two")()

        @task
        def each(x: Any, y: Any = None) -> None: ...

        each.override(task_id="product").expand(x=one, y=two)
        each.override(task_id="zip").expand(x=one.zip(two))
        each.override(task_id="longest").expand(x=one.zip(two, fillvalue=0))
        each.override(task_id="concat").expand(x=one.concat(two))
        each.override(task_id="map").expand(x=one.map(str))
        each.override(task_id="kwargs").expand_kwargs(two)
        each.override(task_id="literal").partial(y=one).expand(x=[1, 2])
    store.set_xcom("one", -1, "return_value", [1, 2, 3])
    store.set_xcom("two", -1, "return_value", [{"x": 1}, {"x": 2}])
    found = {
        task_id: len(map_indexes(dag, task_id, store) or ())
        for task_id in dag.task_ids
        if dag.get_task(task_id).is_mapped
    }
    assert found == {"product": 6, "zip": 2, "longest": 3, "concat": 5, "map": 3, "kwargs": 2, "literal": 2}
    assert index_outputs(dag, "one") == {"indexes-map": "map"}
    assert index_outputs(dag, "two") == {"indexes": "kwargs"}


def test_in_a_mapped_group_only_the_same_index_counts(store: RunStore) -> None:
    with DAG("states") as dag:

        @task_group
        def group(x: int) -> Any:
            return plain("last")(plain("first")(x))

        plain("after", trigger_rule="none_failed")(group.expand(x=[1, 2]))
    left(store, "group.first", "success", 0)
    left(store, "group.first", "failed", 1)
    left(store, "group.last", "success", 0)
    states = RunStates(dag, store)
    assert states.instances("group.last") == {0: "success", 1: "upstream_failed"}
    assert states.decide("after") == "upstream_failed"


def test_a_store_keeps_what_it_is_given(store: RunStore) -> None:
    for index in (2, 0, 10):
        store.set_xcom("each", index, "a key/with ünïcode", {"index": index})
    assert store.map_indexes("each") == [0, 2, 10]
    assert store.xcom_indexes("each", "a key/with ünïcode") == [0, 2, 10]
    assert store.xcom_keys("each", 2) == ["a key/with ünïcode"]
    assert store.xcom("each", 2, "a key/with ünïcode") == (True, {"index": 2})
    store.clear_xcoms("each", 2)
    assert store.xcom("each", 2, "a key/with ünïcode") == (False, None)
    store.store_set("each", 0, "job", 1)
    assert store.store_get("each", 0, "job") == (True, 1)
    assert store.store_keys("each", 0) == ["job"]
    store.store_clear("each", 0)
    assert store.store_get("each", 0, "job") == (False, None)


def joined() -> DAG:
    with DAG("states") as dag:

        @task.branch
        def branch() -> str:
            return "b"

        branch() >> [a := plain("a")(), b := plain("b")()]
        [a, b] >> plain("join")()
    return dag


def test_a_skip_that_came_first_skips(store: RunStore) -> None:
    left(store, "branch", "success", skipped=(("a", -1),))
    left(store, "b", "failed")
    assert RunStates(joined(), store).decide("join") == "skipped"


def test_a_failure_that_came_first_fails(store: RunStore) -> None:
    with DAG("states") as dag:
        plain("first")() >> (late := plain("late", trigger_rule="one_failed")())
        [plain("b")(), late] >> plain("join")()
    left(store, "first", "success")
    left(store, "b", "failed")
    assert RunStates(dag, store).state("late") == "skipped"
    assert RunStates(dag, store).decide("join") == "upstream_failed"


def test_tries_come_one_after_another(store: RunStore) -> None:
    with DAG("states") as dag:
        plain("first")() >> (late := plain("late", trigger_rule="one_failed")())
        [plain("b", retries=3)(), late] >> plain("join")()
    left(store, "first", "success")
    left(store, "b", "failed", try_number=4)
    assert RunStates(dag, store).decide("join") == "skipped"
    left(store, "b", "failed", try_number=4, first_try=4)
    assert RunStates(dag, store).decide("join") == "upstream_failed", "only the tries since argo retry count"


def test_in_a_mapped_group_each_index_has_its_own_first(store: RunStore) -> None:
    with DAG("states") as dag:

        @task_group
        def group(x: int) -> None:
            early, late = plain("early")(x), plain("late")(plain("between")(x))
            [early, late] >> plain("join", trigger_rule="all_success")()
            # So that the file shows that a task may be skipped.
            plain("rule", trigger_rule="none_skipped")(x) >> dag.task_dict["group.join"]

        group.expand(x=[0, 1])
    for index, (early, late) in enumerate([("skipped", "failed"), ("failed", "skipped")]):
        left(store, "group.early", early, index)
        left(store, "group.between", "success", index)
        left(store, "group.late", late, index)
        left(store, "group.rule", "success", index)
    states = RunStates(dag, store)
    assert [states.decide("group.join", index) for index in (0, 1)] == ["skipped", "upstream_failed"]


def test_a_chain_longer_than_pythons_stack(store: RunStore) -> None:
    with DAG("states") as dag:
        last = plain("first")()
        for number in range(1200):
            following = plain(f"t{number}")()
            last >> following
            last = following
        last >> plain("end", trigger_rule="one_success")()
    left(store, "first", "failed")
    assert RunStates(dag, store).decide("end") == "upstream_failed"
    left(store, "first", "skipped")
    assert RunStates(dag, store).decide("end") == "skipped"
    left(store, "end", "running")
    assert RunStates(dag, store).decide("end") == "skipped", "a record of an earlier pod of its own changes nothing"
