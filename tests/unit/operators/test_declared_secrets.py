"""Names of secrets at parse time, values from Airflow, and that Airflow masks them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.log import redact

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._secrets import mask_secrets, parse_secrets, read_secrets
from airflow_provider_raynode.runtime.secrets import NodeConnection, SecretName


def test_names() -> None:
    names = parse_secrets(["conn:my_db", "var:api_key", "var:api_key as API_KEY", "conn:my_db as MY_DB"])
    assert names == (
        SecretName("conn", "my_db"),
        SecretName("var", "api_key"),
        SecretName("var", "api_key", "API_KEY"),
        SecretName("conn", "my_db", "MY_DB"),
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["my_db"], "'my_db' is not of the form .*did you mean conn:my_db or var:my_db"),
        (["connection:my_db"], "did you mean conn:my_db"),
        (["Variable:k"], "did you mean var:k"),
        (["s3:bucket"], "'s3:bucket' is not of the form conn:CONN_ID or var:KEY"),
        (["conn:"], "'conn:' names no connection"),
        (["var: key"], "'var: key' names no variable"),
        (["conn:my db"], "names no connection"),
        (["var:k as "], "'' is not the name of an environment variable"),
        (["var:k as 1X"], "'1X' is not the name"),
        (["var:k as A as B"], "'A as B' is not the name"),
        (["var:k as PATH"], "PATH belongs to the worker's process"),
        (["var:k as RAYNODE_SECRETS_KEY"], "belongs to the worker's process"),
        (["var:{{ params.k }}"], "templates are not rendered"),
        ([3], "got int: 3"),
        (["var:k", "var:k"], "'var:k' is declared twice"),
        (["var:a as KEY", "var:b as KEY"], "var:a and var:b cannot both be KEY"),
    ],
    ids=str,
)
def test_what_names_no_secret_is_refused(entries: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_secrets(entries)


def test_values_come_from_airflow_and_are_masked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"token": "tok-7391-extra", "nested": {"key": "inner-7391-key"}, "verify": False}
    connection = {"conn_type": "postgres", "host": "db", "login": "me", "password": "pass-7391-word", "port": 5432}
    monkeypatch.setenv("AIRFLOW_CONN_SECRETS_DB", json.dumps({**connection, "schema": "s", "extra": extra}))
    monkeypatch.setenv("AIRFLOW_VAR_SECRETS_KEY", '{"api": "sk-7391-variable"}')
    values = read_secrets(parse_secrets(["conn:secrets_db", "var:secrets_key", "var:secrets_key as KEY"]))
    assert values == {
        "conn:secrets_db": {**connection, "schema": "s", "extra": extra},
        "var:secrets_key": '{"api": "sk-7391-variable"}',
    }
    for secret in ("tok-7391-extra", "inner-7391-key", "pass-7391-word", "sk-7391-variable"):
        assert redact(f"a log line with {secret} in it") == "a log line with *** in it"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conn:nobody", "the connection 'nobody' is not defined in Airflow.*airflow connections add nobody"),
        ("var:nothing", "the variable 'nothing' is not defined in Airflow.*airflow variables set nothing"),
    ],
)
def test_what_airflow_does_not_have(name: str, message: str, airflow_db: None) -> None:
    with pytest.raises(ConfigError, match=message):
        read_secrets(parse_secrets([name]))


def test_an_extra_that_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "http", "extra": "[1]"}))
    with pytest.raises(ConfigError, match="the extra of the connection 'odd' is not a JSON object"):
        read_secrets(parse_secrets(["conn:odd"]))


def test_one_that_is_missing_does_not_keep_the_others_from_being_masked(
    monkeypatch: pytest.MonkeyPatch, airflow_db: None
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_MASKED_ALONE", "value-5512-alone")
    mask_secrets(parse_secrets(["var:not_there", "var:masked_alone"]))
    assert redact("value-5512-alone") == "***"


@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "postgres", "host": "db", "login": "me", "password": "p@ss/w:rd", "port": 5432, "schema": "s"},
        {"conn_type": "google_cloud_platform", "extra": {"keyfile": {"a": 1}, "project": "p"}},
        {"conn_type": "http", "host": "https://api.example", "password": "only"},
        {"conn_type": "http", "host": "http://api.example", "port": 80},
        {"conn_type": "aws", "login": "AKIA", "password": "se+c/ret=", "extra": {"region_name": "eu-west-1"}},
        {"conn_type": "x", "port": 1},
        {"conn_type": "x", "login": "", "port": 1, "extra": {"a": "", "b": "ü &"}},
        {"conn_type": "sqlite", "schema": "a/b", "extra": {"flag": True}},
        {"host": "bare"},
    ],
    ids=str,
)
def test_the_uri_is_the_one_that_airflow_gives(fields: dict[str, Any]) -> None:
    extra = fields.get("extra")
    theirs = Connection(conn_id="c", **{**fields, "extra": json.dumps(extra) if extra else None})
    assert NodeConnection("c", **fields).uri == theirs.get_uri()
