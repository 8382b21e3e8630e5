"""`--conf` of `raynode run`: what it may be, and what the DAG's Params say to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Param, task

from airflow_provider_raynode.exceptions import DagFileError
from airflow_provider_raynode.run.conf import check_conf, parse_conf


def dag(params: dict[str, Any], **task_params: Any) -> DAG:
    with DAG("pipeline", schedule=None, params=params) as made:

        @task(params=task_params)
        def show() -> None: ...

        show()
    return made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{x", "--conf is not JSON"),
        ("[1]", "--conf must be a JSON object, got list"),
        ("3", "--conf must be a JSON object, got int"),
        ('{"x": NaN}', "NaN is no JSON value"),
        ('{"x": 1, "x": 2}', "the key 'x' is there twice"),
        ("nowhere.json", "not the name of a file, and there is no file 'nowhere.json'"),
        ("@nowhere", "not the name of a file, and there is no file 'nowhere'"),
    ],
)
def test_what_is_no_conf(text: str, message: str) -> None:
    with pytest.raises(DagFileError) as caught:
        parse_conf(text)
    assert message in str(caught.value)


def test_a_file_is_told_from_its_content(tmp_path: Path) -> None:
    (tmp_path / "conf.json").write_text("{}")
    with pytest.raises(
        DagFileError, match="it is the JSON itself, not the name of a file: write it as --conf"
    ) as caught:
        parse_conf(str(tmp_path / "conf.json"))
    assert f'"$(cat {tmp_path}/conf.json)"' in str(caught.value)


@pytest.mark.parametrize(
    ("conf", "messages"),
    [
        ({"who": 3}, ["--conf: 'who' is 3, which breaks the param of DAG pipeline: 3 is not of type 'string'"]),
        ({"who": "z"}, ['\'z\' is not one of [\'a\', \'b\']; allowed: {"type": "string", "enum": ["a", "b"]}']),
        ({"n": 9, "who": None}, ["--conf: 'n' is 9, which breaks the param of DAG", "--conf: 'who' is null"]),
        ({"own": "x"}, ["--conf: 'own' is \"x\", which breaks the param of task show: 'x' is not of type 'integer'"]),
    ],
)
def test_a_value_that_breaks_its_param(conf: dict[str, Any], messages: list[str]) -> None:
    made = dag(
        {"who": Param("a", type="string", enum=["a", "b"]), "n": Param(3, type="integer", maximum=5)},
        own=Param(1, type="integer"),
    )
    with pytest.raises(DagFileError) as caught:
        check_conf(made, conf)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(messages)
    assert all(any(message in line for line in lines) for message in messages)
    # What was tried is not kept.
    assert check_conf(made, {}) == [] and made.params["who"] == "a"


def test_a_param_without_a_value() -> None:
    made = dag({"who": Param(type="string")})
    with pytest.raises(DagFileError, match="the param 'who' of DAG pipeline has no default: give it a value"):
        check_conf(made, None)
    assert check_conf(made, {"who": "me"}) == []


def test_an_unknown_key_is_a_warning_where_there_are_params() -> None:
    (warning,) = check_conf(dag({"who": "a"}), {"woh": 1})
    assert warning.startswith("--conf: 'woh' is no param of pipeline. Did you mean 'who'? It has who;")
    assert check_conf(dag({}), {"woh": 1}) == []
