"""A node's secrets on their way to the function: sealed by Airflow, opened by each worker process for itself.

The plain values are encrypted with a fresh key for every attempt. The ciphertext is a file in the attempt's folder of
the catalog, deleted when the attempt ends; the key travels with the job, in an environment variable. Neither half alone
says anything, and the values are in no spec, closure, job metadata or experiment file.

Why a one-time pad: the cluster has the standard library, Ray, pydantic and fsspec, and among them no cipher. A cipher
made of hash functions would be one of our own, to be trusted on our word. XOR with random bytes as long as the text,
used once, is proven to keep it secret, whatever an attacker computes, and is a line of code. Its price, a key as long
as the text, is small here: passwords are short, and 64 KiB in base64 still fit into one environment variable (128 KiB
on Linux). XOR keeps nobody from flipping bits, so the file begins with an HMAC-SHA256 of the submission id and the
ciphertext, under 32 further bytes of the key: it is checked before anything is decrypted, and a file of another attempt
is refused. The text is padded to a multiple of 256 bytes, so that the file's length tells little. Imports no Ray.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hmac
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import parse_qsl, quote, urlencode

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, ConfigError, RayNodeError
from airflow_provider_raynode.runtime.masking import Mask, masked_output, without_secrets
from airflow_provider_raynode.spec import SealedSecrets

KEY_VARIABLE = "RAYNODE_SECRETS_KEY"
FILE_VARIABLE = "RAYNODE_SECRETS_FILE"
LIMIT = 64 * 1024
_BLOCK = 256
_MAC = 32
_FORM = "conn:CONN_ID or var:KEY, with ' as ENV_NAME' behind it for an environment variable as well"
_OWN_VARIABLE = re.compile(r"RAY.*|LD_.*|PYTHON.*|PATH|HOME|TMPDIR")

Kind = Literal["conn", "var"]
_WORD: dict[Kind, str] = {"conn": "connection", "var": "variable"}
_KIND: dict[str, Kind] = {"conn": "conn", "var": "var"}


class SecretsError(RayNodeError):
    """A secret cannot be given to the function: not declared, gone, without its key, or altered."""


@dataclass(frozen=True)
class SecretName:
    """One entry of a node's `secrets`: a connection or variable, and the environment variable that also gets it."""

    kind: Kind
    key: str
    env: str | None = None

    @property
    def id(self) -> str:
        """`conn:my_db` or `var:api_key`: what is read, without where it goes."""
        return f"{self.kind}:{self.key}"

    @classmethod
    def parse(cls, entry: str) -> SecretName:
        """Read an entry as the author wrote it.

        :raises ConfigError: not of the form, or an environment variable that is not the author's to set.
        """
        if not isinstance(entry, str):
            raise ConfigError(f"secrets: expected text of the form {_FORM}; got {type(entry).__name__}: {entry!r:.80}")
        if "{{" in entry:
            raise ConfigError(f"secrets: {entry!r}: templates are not rendered here; write the name itself")
        source, _, env = (part.strip() for part in entry.partition(" as "))
        word, mark, key = source.partition(":")
        kind = _KIND.get(word)
        if kind is None:
            raise ConfigError(f"secrets: {entry!r} is not of the form {_FORM}{_meant(word if mark else '', source)}")
        if not key or key != key.strip() or (kind == "conn" and re.search(r"\s", key)):
            raise ConfigError(f"secrets: {entry!r} names no {_WORD[kind]}; the form is {_FORM}")
        if " as " in entry:
            _check_env(entry, env)
        return cls(kind, key, env or None)


def _meant(word: str, source: str) -> str:
    """Return a hint for an entry without a known kind."""
    if not word:
        return f" (did you mean conn:{source} or var:{source}?)"
    near = {"c": "conn", "v": "var"}.get(word[0].lower())
    return f" (did you mean {near}:{source.partition(':')[2]}?)" if near else ""


def _check_env(entry: str, env: str) -> None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env) is None:
        raise ConfigError(f"secrets: {entry!r}: {env!r} is not the name of an environment variable, such as API_KEY")
    if _OWN_VARIABLE.fullmatch(env):
        raise ConfigError(f"secrets: {entry!r}: {env} belongs to the worker's process; choose another name")


# -- sealing -----------------------------------------------------------------------------------------------------------


def seal(values: Mapping[str, Any], submission_id: str) -> tuple[bytes, str]:
    """Encrypt the secrets of an attempt with a fresh key.

    :param values: JSON values by id (`conn:my_db`: the connection's fields, `var:api_key`: the variable's text).
    :param submission_id: the attempt that they are for; no other can open them.
    :return: the content of the ciphertext file, and the key as text for an environment variable.
    :raises ConfigError: more than 64 KiB in all; the message names the largest.
    """
    text = _json(values)
    # JSON may end in spaces: they need no length beside them and no removal.
    text += b" " * (-len(text) % _BLOCK)
    if len(text) > LIMIT:
        largest = max(values, key=lambda name: len(_json(values[name])))
        raise ConfigError(
            f"secrets: {len(text)} bytes in all, more than the {LIMIT} that can travel with a job; the largest is "
            f"{largest} with {len(_json(values[largest]))} bytes: keep what is not secret in it elsewhere, such as the "
            "catalog"
        )
    key = os.urandom(len(text) + _MAC)
    ciphertext = _xor(text, key[_MAC:])
    return _mac(key, submission_id, ciphertext) + ciphertext, base64.urlsafe_b64encode(key).decode()


def unseal(data: bytes, key: str, submission_id: str) -> dict[str, Any]:
    """Decrypt what `seal` encrypted.

    :raises SecretsError: the key or the submission id is not that of `data`, or `data` was altered or cut off.
    """
    try:
        raw = base64.b64decode(key.encode(), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise SecretsError(f"{KEY_VARIABLE} is no key: it was altered on its way to this process") from None
    mac, ciphertext = data[:_MAC], data[_MAC:]
    if len(raw) != len(data) or not hmac.compare_digest(mac, _mac(raw, submission_id, ciphertext)):
        raise SecretsError(
            f"the secrets of {submission_id} are not opened: the file in the catalog and {KEY_VARIABLE} do not belong "
            "together, or one of them was altered; nothing of it is used. Run the node again"
        )
    return dict(json.loads(_xor(ciphertext, raw[_MAC:])))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _xor(data: bytes, pad: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(data, pad, strict=True))


def _mac(key: bytes, submission_id: str, ciphertext: bytes) -> bytes:
    # A submission id holds no zero byte, so what is signed reads in one way only.
    return hmac.digest(key[:_MAC], submission_id.encode() + b"\0" + ciphertext, "sha256")


def secret_texts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that must not be shown: passwords, the texts in a connection's extra, variables.

    Where a text is JSON itself, such as a variable or a service account's key, the texts in it as well.
    """
    for name, value in values.items():
        if name.startswith("conn:"):
            yield from _texts(value.get("password"))
            yield from _texts(value.get("extra"))
        else:
            yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            return
        yield from _texts(inner)


# -- on the worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeConnection:
    """An Airflow connection on a worker, where there is no Airflow: its fields, and its URI.

    The repr shows neither password nor extra. It is not pickled, so that no checkpoint or output carries it along.
    """

    conn_id: str
    conn_type: str | None = None
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    schema: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @property
    def uri(self) -> str:
        """The connection as one URI, as `Connection.get_uri()` of Airflow gives it."""
        scheme = f"{self.conn_type.lower().replace('_', '-')}:" if self.conn_type else ""
        return f"{scheme}//{self._protocol}{self._login}{self._place}{self._query}"

    @property
    def _protocol(self) -> str:
        """A protocol in the host that is not the connection's type stands before the login."""
        protocol, mark, _ = (self.host or "").partition("://")
        return protocol + mark if mark and protocol != self.conn_type else ""

    @property
    def _login(self) -> str:
        login = "" if self.login is None else quote(self.login, safe="")
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{login}{password}@" if login + password else ""

    @property
    def _place(self) -> str:
        place = quote((self.host or "").removeprefix(self._protocol), safe="")
        if self.port:
            place += f":{self.port}" if place or self._login else f"@:{self.port}"
        return place + (f"/{quote(self.schema, safe='')}" if self.schema else "")

    @property
    def _query(self) -> str:
        if not self.extra:
            return ""
        query = urlencode(self.extra)
        if self.extra != dict(parse_qsl(query, keep_blank_values=True)):
            query = urlencode({"__extra__": json.dumps(self.extra)})
        return ("?" if self.schema else "/?") + query

    def __reduce__(self) -> NoReturn:
        raise SecretsError(
            f"the connection {self.conn_id} is not pickled: it would be stored with its password. Leave it out of "
            "checkpoints and outputs, and read it with context().connection() where it is used"
        )


class NodeSecrets:
    """The secrets of a node in one worker process: decrypted at their first use, once, and kept in memory only.

    :param sealed: where the ciphertext lies, and the names.
    :param submission_id: the attempt that it was sealed for.
    :param catalog: the catalog that holds it.
    """

    def __init__(self, sealed: SealedSecrets, submission_id: str, catalog: Catalog) -> None:
        self._sealed = sealed
        self._submission_id = submission_id
        self._catalog = catalog
        self._names = tuple(SecretName.parse(entry) for entry in sealed.names)
        self._values: dict[str, Any] | None = None
        self._mask = Mask([os.environ.get(KEY_VARIABLE, "")])
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"NodeSecrets({', '.join(self._sealed.names)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what leads to the values, never the values."""
        return NodeSecrets, (self._sealed, self._submission_id, self._catalog)

    def connection(self, conn_id: str) -> NodeConnection:
        """Return a declared connection.

        :raises SecretsError: not declared, or it cannot be decrypted here.
        """
        return NodeConnection(conn_id=conn_id, **self._value("conn", conn_id))

    def variable(self, key: str, deserialize_json: bool = False) -> Any:
        """Return a declared variable as text, or as the value that its JSON stands for.

        :raises SecretsError: not declared, not JSON, or it cannot be decrypted here.
        """
        text = self._value("var", key)
        if not deserialize_json:
            return text
        try:
            return json.loads(text)
        except ValueError:  # it would carry the text along
            raise SecretsError(f"the variable {key} is not JSON: read it without deserialize_json") from None

    def export(self) -> None:
        """Set the environment variables that the names ask for: a connection's URI, a variable's text.

        :raises SecretsError: they cannot be decrypted here, or the system takes no such text in its environment.
        """
        os.environ.update(self.environment())

    def environment(self) -> dict[str, str]:
        """Return the environment variables that the names ask for; see `export`."""
        found = {}
        for name in self._names:
            if name.env is None:
                continue
            text = self.connection(name.key).uri if name.kind == "conn" else self.variable(name.key)
            try:
                if b"\0" in os.fsencode(text):
                    raise ValueError
            except ValueError:
                raise SecretsError(
                    f"{name.id} cannot be the environment variable {name.env}: it holds a zero byte or is not UTF-8; "
                    f"read it with context().{_WORD[name.kind]}({name.key!r})"
                ) from None
            found[name.env] = text
        return found

    def mask(self, text: str) -> str:
        """Return `text` with `***` in the place of every secret value, and of the key."""
        return self._mask(text)

    def masked_output(self) -> AbstractContextManager[None]:
        """Mask what this process prints and logs while the context is open."""
        # Asked at each write: before the values are decrypted, the process has only the key to hide.
        return masked_output(lambda: self._mask)

    def without_secrets(self, error: BaseException) -> BaseException:
        """Return `error`, or where it carries a secret, a `MaskedError` that stands for it."""
        return without_secrets(error, self._mask)

    def _value(self, kind: Kind, key: str) -> Any:
        if not any(name.kind == kind and name.key == key for name in self._names):
            raise SecretsError(_undeclared(kind, key, self._names))
        return self._opened()[f"{kind}:{key}"]

    def _opened(self) -> dict[str, Any]:
        with self._lock:
            if self._values is None:
                key = os.environ.get(KEY_VARIABLE)
                if not key:
                    raise SecretsError(
                        f"{KEY_VARIABLE} is not set in this process, so the node's secrets cannot be decrypted: the "
                        "key comes with the job that Airflow submits, and with nothing that is started by hand"
                    )
                values = unseal(self._ciphertext(), key, self._submission_id)
                self._mask = Mask([key, *secret_texts(values)])
                self._values = values
            return self._values

    def _ciphertext(self) -> bytes:
        try:
            return self._catalog.read_bytes(self._sealed.uri)
        except CatalogError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise SecretsError(
                f"the secrets of {self._submission_id} are deleted already ({self._sealed.uri}): they are kept until "
                "the attempt ends, and this process had not read them before. Run the node again"
            ) from None


def _undeclared(kind: Kind, key: str, names: Sequence[SecretName]) -> str:
    """Return the message for a secret that the node does not declare, with the nearest one that it does."""
    message = f"the node does not declare {f'{kind}:{key}'!r} in secrets"
    other: Kind = "var" if kind == "conn" else "conn"
    if any(name.kind == other and name.key == key for name in names):
        return f"{message}; it declares '{other}:{key}', which context().{_WORD[other]}({key!r}) returns"
    own = [name.key for name in names if name.kind == kind]
    if near := difflib.get_close_matches(key, own, n=1):
        return f"{message}; did you mean {f'{kind}:{near[0]}'!r}?"
    declared = ", ".join(sorted({name.id for name in names}))
    return f"{message}: ray_node(..., secrets=[{f'{kind}:{key}'!r}]). It declares: {declared}"
