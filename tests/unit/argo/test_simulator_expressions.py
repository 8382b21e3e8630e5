"""The simulator's evaluator of expr-lang and its replacement of tags."""

from __future__ import annotations

from typing import Any

import pytest
from argo_simulator.errors import ExpressionError, TemplateError
from argo_simulator.expressions import evaluate, identifiers
from argo_simulator.substitution import replace

ENV = {
    "tasks": {
        "a-b": {"status": "Succeeded", "outputs": {"parameters": {"state": "success"}}},
        "c": {"status": "Failed"},
    },
    "n": "3",
    "items": [1, 2],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tasks['a-b'].status == 'Succeeded' && tasks['a-b'].outputs.parameters.state == 'success'", True),
        ("tasks.c.status in ['Failed', 'Error']", True),
        ("tasks.c.status not in ['Failed', 'Error']", False),
        ("not (tasks.c.status in ['Failed'])", False),
        ("!(lower('X') == 'x') or true", True),
        ("tasks.c.outputs == nil", True),
        ("tasks.c.outputs?.parameters ?? 'none'", "none"),
        ("asInt(n) + 2 * 3 - 4 / 2", 7.0),
        ("(asInt(n) + 1) % 2", 0),
        ("-asInt(n) < 0 ? 'below' : 'above'", "below"),
        ("items[1] + len(items)", 4),
        ("'a,b,' contains ',b,'", True),
        ("'abc' startsWith 'a' and 'abc' endsWith 'c' and 'abc' matches '^a.c$'", True),
        ("1 in items", True),
        ("true == 1", False),
        ('{"a": 1}.a', 1),
        ("fromJSON('[1, 2]')[0]", 1),
        ("toJson(items)", "[1,2]"),
        ("string(2.0)", "2"),
        ("'it''s' == 'x'", None),
    ],
)
def test_evaluates_as_expr_does(text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ExpressionError):
            evaluate(text, ENV)
    else:
        assert evaluate(text, ENV) == value


@pytest.mark.parametrize(
    "text",
    [
        "unknown == 1",
        "true || unknown",
        "tasks.z.status == 'x'",
        "'a' < 1",
        "'a' && true",
        "1 +",
        "",
        "nil contains 'a'",
    ],
)
def test_errors(text: str) -> None:
    """An unknown top name fails when the expression compiles, even in a branch that is not taken."""
    with pytest.raises(ExpressionError):
        evaluate(text, ENV)


def test_a_branch_that_is_not_taken_is_not_evaluated() -> None:
    assert evaluate("false && tasks.z.status == 'x'", ENV) is False
    assert evaluate("true ? 1 : tasks.z.status", ENV) == 1


def test_identifiers_have_every_dotted_path() -> None:
    assert identifiers("tasks['a'].status == 'x' && len(n)") == {"tasks", "tasks.a", "tasks.a.status", "n"}


def test_simple_tags_are_escaped_for_json_and_unknown_ones_stay() -> None:
    assert replace({"a": "{{x}} {{ds}} {{ x }}"}, {"x": 'say "hi"\n'}) == {"a": 'say "hi"\n {{ds}} say "hi"\n'}


def test_a_control_character_makes_invalid_json_as_strconv_quote_does() -> None:
    with pytest.raises(TemplateError, match="invalid JSON"):
        replace({"a": "{{x}}"}, {"x": "\x01"})


def test_a_lone_opening_is_an_error() -> None:
    with pytest.raises(TemplateError, match="end tag"):
        replace({"a": "{{ x"}, {"x": "1"})


def test_expressions_give_json_and_unresolved_ones_stay() -> None:
    variables = {"inputs.parameters.n": "2", "tasks.a.status": "Failed"}
    assert replace("{{=asInt(inputs.parameters.n) + 1}}", variables) == "3"
    assert replace("{{=tasks['a'].status == 'Failed'}}", variables) == "true"
    assert replace("{{=tasks['z'].status == 'Failed'}}", variables) == "{{=tasks['z'].status == 'Failed'}}"
    assert replace("{{=retries + '1'}}", variables) == "{{=retries + '1'}}"


def test_strict_prefixes_must_resolve_even_where_the_expression_would_not_read_them() -> None:
    variables = {"tasks.a.status": "Failed"}
    text = "{{=tasks['a'].status == 'Succeeded' && tasks['a'].outputs.parameters.state == 'x'}}"
    assert replace(text, variables) == "false"
    with pytest.raises(TemplateError, match=r"tasks\.a\.outputs is missing"):
        replace(text, variables, strict=("tasks",))
    with pytest.raises(TemplateError, match="failed to resolve"):
        replace("{{tasks.z.status}}", variables, strict=("tasks",))


def test_absent_outputs_can_be_told_by_the_fallback_operator_only() -> None:
    variables = {"tasks.a.outputs.parameters.x": None}
    assert replace("{{=tasks.a.outputs.parameters.x ?? 'none'}}", variables, strict=("tasks",)) == "none"
    with pytest.raises(TemplateError, match="gives nil"):
        replace("{{=tasks.a.outputs.parameters.x}}", variables, strict=("tasks",))
    with pytest.raises(TemplateError, match="absent"):
        replace("{{tasks.a.outputs.parameters.x}}", variables, strict=("tasks",))
