"""A DAG as Argo sees it: who decides, what is waited for, where the indexes come from, when a gate is needed."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, task_group, teardown

from airflow_provider_raynode.argo.conditions import depends_of, gate_depends, when_of
from airflow_provider_raynode.argo.graph import CycleThroughGroupError, Node, Scope, build_scopes, podless_tasks


def nodes_of(dag: DAG, scope: str | None = None) -> dict[str, Node]:
    (found,) = [each for each in build_scopes(dag) if each.id == scope]
    return {node.name: node for node in found.nodes}


def scope_of(dag: DAG) -> Scope:
    return build_scopes(dag)[0]


def plain(task_id: str, **options: Any) -> Any:
    @task(task_id=task_id, **options)
    def function(*values: Any) -> int:
        return 1

    return function


def test_the_controller_decides_from_phases_and_states() -> None:
    with DAG("controller") as dag:
        a = plain("a")()
        a >> (b := plain("b")())
        [a, b] >> plain("c")()
    node = nodes_of(dag)["c"]
    assert not node.decided_in_pod
    assert depends_of(node) == "a && b"
    assert when_of(node) == (
        "{{= tasks['a'].outputs.parameters.state == 'success' && tasks['b'].outputs.parameters.state == 'success' }}"
    )
    assert scope_of(dag).gate is None


@pytest.mark.parametrize(
    ("rule", "in_pod"),
    [
        ("all_done", False),
        ("one_failed", False),
        ("none_failed_min_one_success", False),
        ("one_success", True),
        ("always", False),
    ],
)
def test_who_decides_by_rule(rule: str, in_pod: bool) -> None:
    with DAG("rules") as dag:
        plain("a")() >> plain("b", trigger_rule=rule)()
    node = nodes_of(dag)["b"]
    assert node.decided_in_pod is in_pod
    assert depends_of(node) == {"none_failed_min_one_success": "a", "always": ""}.get(rule, "a || !a")
    assert bool(depends_of(node)) is (rule != "always")
    assert scope_of(dag).gate is not None


def test_an_empty_operator_needs_no_pod_unless_its_pod_has_to_decide() -> None:
    with DAG("podless") as dag:
        a = plain("a")()
        a >> EmptyOperator(task_id="free")
        a >> EmptyOperator(task_id="decides", trigger_rule="one_success")
        a >> EmptyOperator(task_id="calls", on_success_callback=print)
    assert podless_tasks(dag) == {"free"}


def test_where_indexes_come_from() -> None:
    with DAG("mapped") as dag:
        one, two = plain("one")(), plain("two")()

        @task
        def each(x: int, y: int = 0) -> int:
            return x

        each.override(task_id="literal").expand(x=[1, 2, 3])
        each.override(task_id="direct").expand(x=one)
        each.override(task_id="product").expand(x=one, y=two)
        mapped = each.override(task_id="rule", trigger_rule="all_done").expand(x=one)
        plain("reduce")(mapped)
    nodes = nodes_of(dag)
    assert (nodes["literal"].expansion.kind, nodes["literal"].expansion.length) == ("literal", 3)
    assert (nodes["direct"].expansion.kind, nodes["direct"].expansion.source) == ("direct", "one")
    assert nodes["product"].expansion.source == "product-plan"
    assert not nodes["product-plan"].decided_in_pod
    assert nodes["rule"].expansion.source == "rule-plan"
    assert nodes["reduce"].decided_in_pod
    assert nodes["reduce"].waits == ("rule",)


def test_a_branch_skips_what_is_directly_below_a_short_circuit_everything() -> None:
    with DAG("skips") as dag:

        @task.branch
        def branch() -> str:
            return "left"

        @task.short_circuit
        def circuit() -> bool:
            return False

        left, right = plain("left")(), plain("right")()
        join = plain("join", trigger_rule="none_failed_min_one_success")()
        branch() >> [left, right] >> join
        circuit() >> plain("x")() >> plain("y", trigger_rule="all_done")()
        other = plain("other")()
        [dag.get_task("branch"), other] >> plain("both")()
    nodes = nodes_of(dag)
    assert nodes["left"].skipped_by == ("branch",)
    assert "outputs.parameters.skip contains ',left,'" in when_of(nodes["left"])
    assert nodes["join"].skipped_by == ()
    assert nodes["y"].decided_in_pod, "all_done does not pass on that the short circuit skipped what is above"
    assert set(nodes["y"].waits) == {"x", "circuit"}
    assert nodes["both"].decided_in_pod, "a failure of `other` would hide that the branch skipped it"


def test_a_mapped_group_is_a_scope_and_what_is_below_waits_for_all_of_it() -> None:
    with DAG("groups") as dag:
        first = plain("first")()
        outside = plain("outside")()

        @task_group
        def group(x: int) -> Any:
            inner = plain("inner")(x)
            outside >> inner
            return plain("last")(inner)

        plain("after")(group.expand(x=first))
    outer, inner = nodes_of(dag), nodes_of(dag, "group")
    assert outer["group"].expansion.source == "first"
    assert outer["group"].needs == ("first",)
    assert outer["group"].waits == ("outside",)
    assert inner["group-inner"].decided_in_pod, "its upstream lies outside the sub-DAG"
    assert not inner["group-last"].decided_in_pod
    assert outer["after"].waits == ("group",)


def test_a_task_between_two_tasks_of_a_mapped_group_is_found() -> None:
    with DAG("cycle") as dag:
        between = plain("between")()

        @task_group
        def group(x: int) -> None:
            first, last = plain("first")(x), plain("last")(x)
            first >> between >> last

        group.expand(x=[1, 2])
    with pytest.raises(CycleThroughGroupError) as error:
        build_scopes(dag)
    assert error.value.args == ("group", "between")


def test_the_gate_needs_the_leaves_that_count_and_waits_for_the_rest() -> None:
    with DAG("gate") as dag:

        @setup
        def make() -> None: ...

        @teardown
        def remove() -> None: ...

        made, removed = make(), remove()
        made >> plain("work")() >> removed
        made >> removed
    gate = scope_of(dag).gate
    assert gate is not None
    assert gate.needs == ("work",)
    assert gate.waits == ("remove",)
    assert gate_depends(gate) == "work && (remove || !remove)"
    node = nodes_of(dag)["remove"]
    assert node.decided_in_pod
    assert set(node.waits) == {"make", "work"}


def test_a_skip_and_a_failure_together_are_asked_about_in_a_pod_and_nothing_else_is() -> None:
    with DAG("mixed") as dag:
        a, b = plain("a")(), plain("b")()
        [a, b] >> plain("join")()
    nodes = nodes_of(dag)
    assert list(nodes) == ["a", "b", "join-order", "join"]
    assert depends_of(nodes["join-order"]) == "!(a && b)"
    assert when_of(nodes["join-order"]) == (
        "{{= (tasks['a'].status == 'Skipped' || "
        "get(get(get(tasks['a'], 'outputs'), 'parameters'), 'state') == 'skipped' || "
        "get(get(get(tasks['b'], 'outputs'), 'parameters'), 'state') == 'skipped') }}"
    )
    assert not nodes["join"].decided_in_pod
    assert depends_of(nodes["join"]) == "(a && b) || join-order.Succeeded"
    assert when_of(nodes["join"]) == (
        "{{= tasks['join-order'].status != 'Succeeded' && "
        "get(get(get(tasks['a'], 'outputs'), 'parameters'), 'state') == 'success' && "
        "get(get(get(tasks['b'], 'outputs'), 'parameters'), 'state') == 'success' }}"
    )
    gate = scope_of(dag).gate
    assert gate is not None
    assert gate_depends(gate) == "join"


def test_where_a_skip_and_a_failure_cannot_meet_nothing_is_asked() -> None:
    with DAG("not_mixed") as dag:
        first = plain("first")()
        # What skips or fails the one does so to the other.
        first >> (second := plain("second")())
        [first, second] >> plain("below_both")()
        first >> [x := EmptyOperator(task_id="x"), y := EmptyOperator(task_id="y")] >> EmptyOperator(task_id="join")
        [x, y] >> plain("after")()
        [x, plain("other")()] >> plain("any_rule", trigger_rule="none_failed")()
    assert [name for name, node in nodes_of(dag).items() if node.kind == "order"] == []


@pytest.mark.parametrize("length", [0, 2])
def test_a_group_with_nothing_to_map_over_may_have_failed_nevertheless(length: int) -> None:
    with DAG("empty_group") as dag:
        listed, beside = plain("listed")(), plain("beside")()

        @task_group
        def literal(x: int) -> None:
            plain("work")(x)

        @task_group
        def direct(x: int) -> None:
            plain("work")(x)

        @task_group
        def alone(x: int) -> None:
            plain("work")(x)

        beside >> literal.expand(x=list(range(length)))
        beside >> direct.expand(x=listed)
        alone.expand(x=listed)
    nodes = nodes_of(dag)
    assert "alone-order" not in nodes
    assert ("literal-order" in nodes) is (length == 0)
    assert depends_of(nodes["direct-order"]) == "!(listed && beside)"
    assert when_of(nodes["direct-order"]) == (
        "{{= (tasks['listed'].status in ['Succeeded', 'Skipped'] && "
        "get(get(get(tasks['listed'], 'outputs'), 'parameters'), 'indexes') == '[]' || "
        "!(tasks['listed'].status in ['Succeeded', 'Skipped']) && (tasks['beside'].status == 'Skipped' || "
        "get(get(get(tasks['beside'], 'outputs'), 'parameters'), 'state') == 'skipped')) }}"
    )
    assert depends_of(nodes["direct"]) == (
        "(listed || direct-order.Succeeded) && !(direct-order.Failed || direct-order.Errored) && (beside || !beside)"
    )


def test_a_setup_that_the_tasks_between_do_not_pass_on_is_asked_about_in_the_pod() -> None:
    with DAG("setups") as dag:
        first = plain("first")().as_setup()
        first >> (between := plain("between")()) >> plain("after")()
        between >> plain("whatever", trigger_rule="all_done")() >> plain("late")()
    nodes = nodes_of(dag)
    decided = {name: node.waits for name, node in nodes.items() if node.decided_in_pod}
    assert decided == {"whatever": ("between", "first"), "late": ("first", "whatever")}


def test_what_a_short_circuit_skips_with_the_task_is_no_reason() -> None:
    with DAG("circuit") as dag:

        @task.short_circuit
        def circuit() -> bool:
            return False

        circuit() >> [a := plain("a")(), b := plain("b")()]
        [a, b] >> plain("join")()
    assert not any(node.decided_in_pod for node in nodes_of(dag).values())
