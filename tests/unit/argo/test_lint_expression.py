"""The small languages: cron lines, durations, expressions, depends."""

import pytest

from airflow_provider_raynode.argo.lint.condition import selector_problem, when_problem
from airflow_provider_raynode.argo.lint.cron import cron_problem, timezone_problem
from airflow_provider_raynode.argo.lint.depends import Ancestors, cycle, depends
from airflow_provider_raynode.argo.lint.duration import argo_duration_problem, go_duration_problem, quantity_problem
from airflow_provider_raynode.argo.lint.expression import Reference, expression
from airflow_provider_raynode.argo.lint.tags import Tag, tags, unclosed

GOOD_CRON = [
    "* * * * *", "*/5 * * * *", "0 0 1 1 0", "0-30/10 8-18 * * mon-fri", "0 0 ? jan,JUL ?", "5,10,15 0 31 12 6",
    "0 6 * * SUN", "1/2 * * * *", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly",
    "@every 1h30m", "@every 90s", "TZ=Europe/Berlin 0 6 * * *", "CRON_TZ=UTC @daily", "0  0\t* * *",
]  # fmt: skip

BAD_CRON = {
    "": "0 fields",
    "* * * *": "4 fields, 5 are needed",
    "0 * * * * *": "seconds or years have no place",
    "60 * * * *": "minute 60 is out of 0-59",
    "* 24 * * *": "hour 24 is out of 0-23",
    "* * 0 * *": "day of month 0 is out of 1-31",
    "* * 32 * *": "day of month 32 is out of 1-31",
    "* * * 13 *": "month 13 is out of 1-12",
    "* * * 0 *": "month 0 is out of 1-12",
    "* * * * 7": "write Sunday as 0",
    "* * * * 1-7": "write Sunday as 0",
    "* * * * 5#2": "#, L and W are not known",
    "* * L * *": "#, L and W are not known",
    "* * 15W * *": "#, L and W are not known",
    "* * * * 5L": "#, L and W are not known",
    "*/0 * * * *": "a step is a whole number above 0",
    "*/x * * * *": "a step is a whole number above 0",
    "1/2/3 * * * *": "a step is a whole number above 0",
    "5-1 * * * *": "write 5-59,0-1",
    "* * * * fri-mon": "write fri-6,0-mon",
    "1-2-3 * * * *": "too many hyphens",
    "-1 * * * *": "is no number",
    "a * * * *": "is no number",
    "* * * foo *": "is no number or a name (jan-dec)",
    "* * * * sunday": "is no number or a name (sun-sat)",
    "mon * * * *": "is no number",
    ", * * * *": "is empty",
    "@reboot": "is no descriptor",
    "@every": "is no descriptor",
    "@every 1d": "write 24h",
    "@every 5": "is no duration",
    "TZ=Mars/Base 0 0 * * *": "is no time zone",
}


@pytest.mark.parametrize("line", GOOD_CRON)
def test_cron_lines_that_argo_takes(line):
    assert cron_problem(line) is None


@pytest.mark.parametrize("line", BAD_CRON)
def test_cron_lines_that_argo_refuses(line):
    assert BAD_CRON[line] in (cron_problem(line) or "taken")


@pytest.mark.parametrize("name", ["../etc/passwd", "Berlin", "UTC+1", "/etc/localtime", "Europe"])
def test_time_zones_that_are_none(name):
    assert "is no time zone" in (timezone_problem(name) or "taken")


@pytest.mark.parametrize("text", ["0", "30s", "1h30m", "1.5h", "300ms", ".5s", "2h0m1s", "5us", "+3s"])
def test_durations_of_go(text):
    assert go_duration_problem(text) is None
    assert argo_duration_problem(text) is None


@pytest.mark.parametrize("text", ["", "5", "1d", "2w", "h", "1h 30m", "1.h.", "1H", "one"])
def test_texts_that_go_does_not_take_as_durations(text):
    assert go_duration_problem(text)


def test_argo_reads_a_whole_number_as_seconds():
    assert argo_duration_problem("10") is None
    assert "negative" in str(argo_duration_problem("-10"))
    assert "negative" in str(argo_duration_problem("-1m"))


@pytest.mark.parametrize("text", ["1", "0.5", "500m", "2Gi", "1e3", "1.5Ti", "100k", "3E", ".5", "5Mi", "2M"])
def test_quantities(text):
    assert quantity_problem(text) is None


@pytest.mark.parametrize("text", ["", "1GB", "2gi", "1 Gi", "a", "1K", "1mi", "0x1"])
def test_texts_that_are_no_quantities(text):
    assert quantity_problem(text)


EXPRESSIONS = {
    "tasks['a'].outputs.parameters.state == 'success'": [("tasks", "a", "outputs", "parameters", "state")],
    'tasks["a-b"]?.status': [("tasks", "a-b", "status")],
    "inputs.parameters['x'] + \"{}\"": [("inputs", "parameters", "x")],
    "item.a['b'].c > 1 and not (item.d in ['x', 'y'])": [("item", "a", "b", "c"), ("item", "d")],
    "item not in [1, 2, 3]": [("item",)],
    "workflow.parameters.x matches '^a.*[(]$'": [("workflow", "parameters", "x")],
    "{'a': 1, b: {}, (inputs.parameters.k): [1]}": [("inputs", "parameters", "k")],
    "true ? inputs.parameters.a : nil ?? `raw ' text`": [("inputs", "parameters", "a")],
    "let x = inputs.parameters.a; x + x": [("inputs", "parameters", "a")],
    "if retries == '0' { 'a' } else { 'b' }": [("retries",)],
    "1..3": [],
    "-1.5e3 ** 2 % 0xff": [],
    "[1, 2, 3][1:2]": [],
    "'it\\'s'": [],
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_and_what_they_refer_to(text):
    read = expression(text)
    assert read.problem is None
    assert [reference.parts for reference in read.references] == EXPRESSIONS[text]


def test_functions_and_predicates_are_told_apart():
    read = expression("filter(tasks.a.x, {# > 1 and .age < limit}) | map(sprig.trim(#.b))")
    assert read.problem is None
    assert Reference(("tasks", "a", "x")) in read.references
    assert Reference(("filter",), called=True) in read.references
    assert Reference(("limit",), in_closure=True) in read.references
    assert Reference(("sprig", "trim"), called=True) in read.references


def test_an_index_that_is_computed_is_not_whole():
    read = expression("tasks[inputs.parameters.x].status")
    assert Reference(("tasks",), whole=False) in read.references


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        "": "it is empty",
        "'a": "quote before 'a' is not closed",
        "a.": "after '.' comes a name",
        "a[": "it ends where a value is expected",
        "a['b'": "'[' is not closed",
        "(a": "'(' is not closed",
        "f(a": "'(' is not closed",
        "{a: 1": "'{' is not closed",
        "a)": "')' closes nothing",
        "a == ": "it ends where",
        "== a": "'==' stands where a value is expected",
        "a b": "an operator is missing",
        "a = b": "an operator is missing",
        "a ? b": "':' is missing",
        "a & b": "'&' has no meaning",
        "a @ b": "'@' has no meaning",
        "in": "'in' stands where",
        "(" * 5000: "nested too deep",
    }.items(),
)
def test_expressions_that_are_none(text, problem):
    assert problem in (expression(text).problem or "taken")


@pytest.mark.parametrize("text", ["true", "a == b", "\"a b\" != 'c'", "1 < 2 && !(x in (y, z))", "a =~ 'b'", "!false"])
def test_conditions(text):
    assert when_problem(text) is None


@pytest.mark.parametrize(
    "text", ["a in (b,c), d == e", "status.phase == Done", "!x", "x", "n > 3", "a notin (b)", "a="]
)
def test_selectors(text):
    assert selector_problem(text) is None


@pytest.mark.parametrize("text", ["", "a is b", "a == b c", "a in b", "a in (b", "a == b,,c"])
def test_texts_that_are_no_selectors(text):
    assert selector_problem(text)


def test_tags():
    assert tags("a {{ x.y }} {{= 1 }}{{item}}}") == [Tag("x.y", False), Tag("1", True), Tag("item", False)]
    assert unclosed("{{a}} {{b") == "{{b"
    assert unclosed("{{a}} }} {b}") is None


def test_depends_names_results():
    read = depends("(a.Succeeded || a.Skipped) && !b-1.Failed && c")
    assert read.problems == []
    assert read.results == {"a": {"Succeeded", "Skipped"}, "b-1": {"Failed"}, "c": set()}


def test_ancestors_reach_through_all_that_comes_before():
    known = Ancestors({"a": [], "b": ["a"], "c": ["b"], "d": ["a"], "e": ["c", "d"]})
    assert [name for name in "abcde" if known.includes("e", name)] == ["a", "b", "c", "d"]
    assert not known.includes("d", "b")


def test_a_cycle_behind_a_long_row_is_found():
    edges = {f"t{index}": [f"t{index + 1}"] for index in range(5000)}
    assert cycle(edges) is None
    edges["t4999"] = ["t4997"]
    assert cycle(edges) == ["t4997", "t4998", "t4999", "t4997"]
