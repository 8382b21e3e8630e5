"""Sealing and opening secrets, what a worker gets of them, and that nothing it shows holds one."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime.masking import Mask, MaskedError, MaskedStream, without_secrets
from airflow_provider_raynode.runtime.secrets import (
    KEY_VARIABLE,
    LIMIT,
    NodeConnection,
    NodeSecrets,
    SecretName,
    SecretsError,
    seal,
    secret_texts,
    unseal,
)
from airflow_provider_raynode.spec import SealedSecrets

ID = "raynode-dag-node-0123456789abcdef-a1"
PASSWORD = "correct horse/battery@staple"
TOKEN = "tok-4242-ünïcode"
VALUES: dict[str, Any] = {
    "conn:my_db": {
        "conn_type": "postgres",
        "host": "db.example",
        "login": "me",
        "password": PASSWORD,
        "port": 5432,
        "schema": "sales",
        "extra": {"token": TOKEN, "verify": True, "keyfile": '{"private_key": "line one of it\\nline two of it"}'},
    },
    "var:api_key": "sk-0123456789abcdef",
    "var:settings": '{"inner": "a secret in JSON", "level": 3}',
}
NAMES = ("conn:my_db as MY_DB_URI", "var:api_key", "var:api_key as MY_API_KEY", "var:settings")


# -- sealing -----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_what_is_sealed_comes_back(values: dict[str, Any]) -> None:
    data, key = seal(values, ID)
    assert unseal(data, key, ID) == values


def test_the_file_and_the_key_alone_say_nothing() -> None:
    data, key = seal(VALUES, ID)
    raw = base64.urlsafe_b64decode(key)
    assert len(raw) == len(data) and (len(data) - 32) % 256 == 0
    for half in (data, raw, key.encode()):
        assert not any(text.encode() in half for text in secret_texts(VALUES))
    again, other_key = seal(VALUES, ID)
    assert again != data and other_key != key, "a pad is used once"


def test_the_length_of_the_file_does_not_tell_the_length_of_a_password() -> None:
    sizes = {len(seal({"var:pin": "x" * length}, ID)[0]) for length in range(1, 200)}
    assert len(sizes) == 1


@pytest.mark.parametrize("position", [0, 31, 32, 100, -1])
def test_an_altered_file_is_refused(position: int) -> None:
    data, key = seal(VALUES, ID)
    altered = bytearray(data)
    altered[position] ^= 1
    with pytest.raises(SecretsError, match="altered"):
        unseal(bytes(altered), key, ID)


def test_what_does_not_belong_together_is_refused() -> None:
    data, key = seal(VALUES, ID)
    _, other_key = seal(VALUES, ID)
    for wrong in ((data, other_key, ID), (data, key, ID.replace("a1", "a2")), (data[:-1], key, ID), (b"", key, ID)):
        with pytest.raises(SecretsError, match="do not belong together"):
            unseal(*wrong)
    for text in ("", "not base64!", "ü", key[:-1]):
        with pytest.raises(SecretsError) as caught:
            unseal(data, text, ID)
        assert KEY_VARIABLE in str(caught.value)


def test_too_much_names_the_largest() -> None:
    values = {"var:small": "x" * 1000, "var:model": "y" * LIMIT, "var:other": "z" * 2000}
    with pytest.raises(ConfigError, match=rf"more than the {LIMIT}.*the largest is var:model with {LIMIT + 2} bytes"):
        seal(values, ID)


def test_the_largest_that_is_allowed_fits_into_an_environment_variable() -> None:
    room = LIMIT - len(json.dumps({"var:a": ""}, separators=(",", ":")))
    data, key = seal({"var:a": "x" * room}, ID)
    code = f"import os; print(len(os.environ[{KEY_VARIABLE!r}]))"
    child = subprocess.run([sys.executable, "-c", code], env={KEY_VARIABLE: key}, capture_output=True, text=True)
    assert child.stdout.strip() == str(len(key)), child.stderr
    assert len(unseal(data, key, ID)["var:a"]) == room


# -- on the worker -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SealedSecrets, Catalog]]:
    """The secrets as a job delivers them: a file in the catalog, the key in the environment."""
    catalog = Catalog(str(tmp_path))
    data, key = seal(VALUES, ID)
    uri = f"{catalog.uri}/attempt_1/secrets-0.bin"
    catalog.write_bytes(uri, data)
    monkeypatch.setenv(KEY_VARIABLE, key)
    for name in ("MY_DB_URI", "MY_API_KEY"):
        monkeypatch.setenv(name, "")  # so that what `export` sets is gone after the test
    yield SealedSecrets(uri=uri, names=NAMES), catalog


@pytest.fixture
def secrets(sealed: tuple[SealedSecrets, Catalog]) -> NodeSecrets:
    return NodeSecrets(sealed[0], ID, sealed[1])


def test_connections_and_variables(secrets: NodeSecrets) -> None:
    connection = secrets.connection("my_db")
    assert (connection.conn_id, connection.conn_type, connection.host) == ("my_db", "postgres", "db.example")
    assert (connection.login, connection.password, connection.port, connection.schema) == (
        "me",
        PASSWORD,
        5432,
        "sales",
    )
    assert connection.extra == VALUES["conn:my_db"]["extra"]
    assert secrets.variable("api_key") == "sk-0123456789abcdef"
    assert secrets.variable("settings", deserialize_json=True) == {"inner": "a secret in JSON", "level": 3}
    with pytest.raises(SecretsError, match="api_key is not JSON") as caught:
        secrets.variable("api_key", deserialize_json=True)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_environment_variables_that_are_asked_for(secrets: NodeSecrets) -> None:
    secrets.export()
    assert os.environ["MY_API_KEY"] == "sk-0123456789abcdef"
    assert os.environ["MY_DB_URI"] == secrets.connection("my_db").uri


def test_exported_values_are_not_in_the_environment_that_proc_shows(sealed: tuple[SealedSecrets, Catalog]) -> None:
    code = f"""
from pathlib import Path
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.secrets import NodeSecrets
from airflow_provider_raynode.spec import SealedSecrets
import os
NodeSecrets(SealedSecrets(uri={sealed[0].uri!r}, names={NAMES!r}), {ID!r}, Catalog({sealed[1].uri!r})).export()
assert os.environ["MY_API_KEY"] == {VALUES["var:api_key"]!r}
print({VALUES["var:api_key"]!r}.encode() in Path("/proc/self/environ").read_bytes())
"""
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc on this system")
    env = {name: value for name, value in os.environ.items() if name != "MY_API_KEY"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert child.stdout == "False\n", child.stderr


def test_they_are_read_once_and_not_before_they_are_asked_for(
    sealed: tuple[SealedSecrets, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = NodeSecrets(sealed[0], ID, sealed[1])
    assert secrets.variable("api_key")
    sealed[1].delete(sealed[0].uri)
    monkeypatch.delenv(KEY_VARIABLE)
    assert secrets.connection("my_db").password == PASSWORD


def test_deleted_already(sealed: tuple[SealedSecrets, Catalog]) -> None:
    secrets = NodeSecrets(sealed[0], ID, sealed[1])
    sealed[1].delete(sealed[0].uri)
    with pytest.raises(SecretsError, match="deleted already"):
        secrets.variable("api_key")


def test_without_the_key(secrets: NodeSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(SecretsError, match=f"{KEY_VARIABLE} is not set"):
        secrets.export()


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("connection", "my_dB", "did you mean 'conn:my_db'"),
        ("variable", "api_kay", "did you mean 'var:api_key'"),
        ("variable", "my_db", r"it declares 'conn:my_db', which context\(\).connection\('my_db'\) returns"),
        ("connection", "zzz", "It declares: conn:my_db, var:api_key, var:settings"),
    ],
)
def test_not_declared(secrets: NodeSecrets, kind: str, key: str, message: str) -> None:
    with pytest.raises(SecretsError, match=message):
        getattr(secrets, kind)(key)


def test_a_value_that_no_environment_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(str(tmp_path))
    data, key = seal({"var:binary": "zero\0byte"}, ID)
    catalog.write_bytes(f"{catalog.uri}/s.bin", data)
    monkeypatch.setenv(KEY_VARIABLE, key)
    sealed = SealedSecrets(uri=f"{catalog.uri}/s.bin", names=("var:binary as BINARY",))
    with pytest.raises(SecretsError, match=r"var:binary cannot be the environment variable BINARY"):
        NodeSecrets(sealed, ID, catalog).export()


def test_no_repr_and_no_pickle_holds_a_value(secrets: NodeSecrets, sealed: tuple[SealedSecrets, Catalog]) -> None:
    connection = secrets.connection("my_db")
    mask = Mask(secret_texts(VALUES))
    for shown in (repr(connection), repr(secrets), str(secrets), repr(vars(connection)["host"])):
        assert mask(shown) == shown
    assert "my_db" in repr(connection) and "db.example" in repr(connection)
    pickled = pickle.dumps(secrets)
    assert not mask.is_in(pickled)
    assert pickle.loads(pickled).variable("api_key") == "sk-0123456789abcdef", "it leads to the values"
    with pytest.raises(SecretsError, match=r"my_db is not pickled"):
        pickle.dumps({"connection": connection})
    with pytest.raises(Exception, match="my_db is not pickled"):
        sealed[1].put({"model": connection}, "model", kind="pickled")


# -- masking -----------------------------------------------------------------------------------------------------------


def test_every_value_is_masked_however_it_is_written(secrets: NodeSecrets) -> None:
    assert secrets.mask("sk-0123456789abcdef") == "sk-0123456789abcdef", "nothing is decrypted yet"
    connection = secrets.connection("my_db")
    assert secrets.mask(connection.uri).startswith("postgres://me:***@db.example:5432/sales?__extra__=")
    for text in (
        f"password={PASSWORD}",
        repr(connection.extra),
        json.dumps(connection.extra),
        connection.uri,
        json.dumps({"key": connection.extra["keyfile"]}),
        "a secret in JSON",
        "line two of it",
        os.environ[KEY_VARIABLE],
    ):
        masked = secrets.mask(text)
        assert "***" in masked
        for secret in (PASSWORD, TOKEN, "ncode", "a secret in JSON", "line one", "line two", os.environ[KEY_VARIABLE]):
            assert secret not in masked


def test_short_values_and_plain_words_are_left_alone() -> None:
    mask = Mask(["abc", "", "true", "None", "abcd"])
    assert mask("abc is true and None, 123 abcd") == "abc is true and None, 123 ***"


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    assert Mask(["secret", "secret-and-more"])("x secret-and-more secret") == "x *** ***"


def streamed(pieces: list[str], mask: Mask) -> str:
    out = io.StringIO()
    stream = MaskedStream(out, lambda: mask)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    stream.release()
    return out.getvalue()


@given(st.lists(st.sampled_from(["a", "b", "ab", "abab", "ba", "abba", "x", "\n"]), max_size=12), st.data())
def test_a_secret_in_pieces_is_masked_as_a_whole_one_is(parts: list[str], data: st.DataObject) -> None:
    mask = Mask(["abab", "abba", "babba", "ababx\nab"])
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    shown = streamed(pieces, mask)
    assert mask(shown) == shown, "no secret is left"
    assert shown == mask(text)


def test_what_cannot_be_a_secret_is_written_at_once() -> None:
    out = io.StringIO()
    stream = MaskedStream(out, lambda: Mask(["secret"]))
    stream.write("epoch 1")
    assert out.getvalue() == "epoch 1"
    stream.write(" se")
    assert out.getvalue() == "epoch 1 "
    stream.write("ven\n")
    assert out.getvalue() == "epoch 1 seven\n"
    stream.writelines(["secret\n", "se"])
    stream.release()
    stream.write("cret secret")
    assert out.getvalue() == "epoch 1 seven\n***\nsecret ***", "after its release only whole secrets are seen"
    assert not stream.closed and stream.getvalue() == out.getvalue(), "the rest is the stream's own"


def test_prints_logs_and_warnings_of_every_thread(secrets: NodeSecrets, capsys: pytest.CaptureFixture[str]) -> None:
    logger, before = logging.getLogger("test_secrets"), io.StringIO()
    handler = logging.StreamHandler(before)
    logger.addHandler(handler)
    factory, streams = logging.getLogRecordFactory(), (sys.stdout, sys.stderr)

    def work() -> None:
        print("password", secrets.connection("my_db").password)
        print(secrets.variable("api_key"), end="", file=sys.stderr)
        logger.warning("with %s and %d", PASSWORD, 5)
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            logger.exception("failed")

    try:
        with secrets.masked_output():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    finally:
        logger.removeHandler(handler)
    assert (sys.stdout, sys.stderr) == streams and logging.getLogRecordFactory() is factory
    shown = capsys.readouterr()
    assert shown.out == "password ***\n"
    assert shown.err.startswith("***")
    assert before.getvalue().startswith("with *** and 5\nfailed\nTraceback")
    assert "ValueError: ***" in before.getvalue()
    assert PASSWORD not in before.getvalue() + shown.err


class WithRequest(Exception):
    def __init__(self, request: Any) -> None:
        super().__init__("refused")
        self.request = request


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_an_error_without_a_secret_stays_itself() -> None:
    error = raised(ValueError("plain"), KeyError("cause"))
    assert without_secrets(error, Mask([PASSWORD])) is error


@pytest.mark.parametrize(
    "error",
    [
        raised(ValueError(f"cannot log in with {PASSWORD}")),
        raised(ValueError("wrapped"), KeyError(PASSWORD)),
        SystemExit(f"no login with {PASSWORD}"),
        WithRequest({"Authorization": f"Bearer {PASSWORD}"}),
        WithRequest(threading.Lock()),
        WithRequest(NodeConnection("my_db", password=PASSWORD)),
    ],
    ids=["message", "cause", "exit", "attribute", "cannot be pickled", "connection"],
)
def test_an_error_with_a_secret_is_replaced(error: BaseException) -> None:
    mask = Mask([PASSWORD])
    safe = without_secrets(error, mask)
    assert isinstance(safe, MaskedError)
    assert str(safe).startswith(f"{type(error).__name__}: ")
    assert PASSWORD not in str(safe) and not mask.is_in(pickle.dumps(safe))
    assert safe.__traceback__ is error.__traceback__, "Ray still shows the function's own lines"


# -- names -------------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert SecretName.parse("conn:my_db") == SecretName("conn", "my_db")
    assert SecretName.parse("var:api key as API_KEY") == SecretName("var", "api key", "API_KEY")
    assert SecretName.parse("var:a:b/c").key == "a:b/c"
