"""CatalogRef: the small JSON dict that stands for an object of the catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from airflow_provider_raynode.exceptions import CatalogError

_FIELDS = ("uri", "kind", "sha256", "size", "created")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")


class CatalogRef(dict[str, Any]):
    """A reference to an object of the catalog, as plain JSON: what goes through XCom in place of the data.

    A dict with exactly these keys, which are attributes as well: `uri`; `kind` (the serializer); `sha256` (64 hex
    digits) and `size` (bytes) of the stored object; `created` (ISO 8601, UTC). A task may return it as it is.

    :raises CatalogError: a key is missing, unknown, or has a value of a wrong form.
    """

    uri: str
    kind: str
    sha256: str
    size: int
    created: str

    def __init__(self, *, uri: str, kind: str, sha256: str, size: int, created: str) -> None:
        super().__init__(uri=uri, kind=kind, sha256=sha256, size=size, created=created)
        if problem := _problem(self):
            raise CatalogError(f"not a catalog reference: {problem}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"CatalogRef has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (dict(self),)

    @property
    def path(self) -> Any:
        """The object as a path of universal-pathlib; `catalog.load` verifies what it reads, this does not."""
        from upath import UPath

        return UPath(self["uri"])

    @classmethod
    def from_xcom(cls, value: Any) -> Self:
        """Return the reference that a task pushed.

        :raises CatalogError: `value` is something else; the message says what.
        """
        if not isinstance(value, Mapping):
            raise CatalogError(
                f"expected a catalog reference (a dict with {', '.join(_FIELDS)}), got {type(value).__name__}: "
                "pass what catalog.put returned"
            )
        if problem := _problem(value):
            raise CatalogError(f"not a catalog reference: {problem}")
        return cls(**{name: value[name] for name in _FIELDS})

    @staticmethod
    def is_ref(value: Any) -> bool:
        """Whether `value` is a reference: a mapping with exactly its keys and well-formed values."""
        return isinstance(value, Mapping) and not _problem(value)


def _rebuild(fields: dict[str, Any]) -> CatalogRef:
    return CatalogRef(**fields)


def _problem(value: Mapping[str, Any]) -> str | None:
    missing = [name for name in _FIELDS if name not in value]
    if missing:
        return f"{', '.join(missing)} missing in {sorted(map(str, value))[:10]}"
    if extra := sorted(str(name) for name in value if name not in _FIELDS):
        return f"unknown {', '.join(extra[:5])}"
    for name in ("uri", "kind", "sha256", "created"):
        if not isinstance(value[name], str) or not value[name]:
            return f"{name} must be text, got {value[name]!r:.80}"
    if not _SHA256.fullmatch(value["sha256"]):
        return f"sha256 must be 64 hex digits, got {value['sha256']!r:.80}"
    if not _KIND.fullmatch(value["kind"]):
        return f"kind must be a lower-case name, got {value['kind']!r:.80}"
    if isinstance(value["size"], bool) or not isinstance(value["size"], int) or value["size"] < 0:
        return f"size must be a number of bytes, got {value['size']!r:.80}"
    return None
