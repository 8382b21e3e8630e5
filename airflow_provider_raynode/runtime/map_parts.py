"""The results of a map's items: written in parts as they come, put together at its end. Imports no Ray.

A part is the results of consecutive items. Its name says which, how many of them failed, and its digest, so that the
names alone say what has been done: whoever goes on with the map needs no other state. A worker that another driver
had started, and that runs on, does no harm: its parts bear names of their own.
"""

from __future__ import annotations

import inspect
import json
import pickle
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.catalog._json import is_exact
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.runtime.pickle_list import joined, list_of
from airflow_provider_raynode.spec import NodeFailure, digest
from airflow_provider_raynode.texts import cut

_NAME = re.compile(r"(\d{10,})-(\d{10,})-(\d+)-([0-9a-f]{64})\.(json|pkl)")
# What is kept of the error of each item.
_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 2_000, 6_000


@dataclass(frozen=True, order=True)
class Part:
    """The results of the items from `first` to before `stop`, `failed` of which failed."""

    first: int
    stop: int
    failed: int
    sha256: str
    suffix: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.first:010}-{self.stop:010}-{self.failed}-{self.sha256}.{self.suffix}"

    @property
    def errors(self) -> str:
        """The name of the file with the errors of its failed items."""
        return f"{self.name}.errors"

    @property
    def range(self) -> tuple[int, int]:
        """Its items."""
        return self.first, self.stop


def part_of(name: str) -> Part | None:
    """Return the part that a file of this name holds, None where it is another file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    first, stop, failed, sha256, suffix = match.groups()
    return Part(int(first), int(stop), int(failed), sha256, suffix)


class Piece:
    """The result of one item, as text or bytes: what its function does to it later changes nothing."""

    __slots__ = ("data", "is_json")

    def __init__(self, data: bytes, *, is_json: bool) -> None:
        self.data = data
        self.is_json = is_json

    def pickled(self) -> bytes:
        """Return the pickle of the result."""
        return pickle.dumps(json.loads(self.data), protocol=5) if self.is_json else self.data


NOTHING = Piece(b"null", is_json=True)
"""The result of an item that failed."""


def piece_of(result: Any) -> Piece:
    """Return a result as JSON where that holds it exactly, else pickled.

    :raises RayNodeError: it cannot be pickled.
    """
    if is_exact(result):
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return Piece(text.encode("utf-8", "surrogatepass"), is_json=True)
    try:
        from ray import cloudpickle

        return Piece(cloudpickle.dumps(result, protocol=5), is_json=False)
    except Exception as error:
        raise RayNodeError(f"the result, {told(result)}, cannot be pickled: {type(error).__name__}: {error}") from error


def told(result: Any) -> str:
    """Return what a result is, in words, with the remedy for what cannot leave its process."""
    kind = type(result).__name__
    if inspect.iscoroutine(result):
        result.close()  # Python would warn that nobody awaited it
        return "a coroutine, since the function is `async def`: make it a plain `def`, with asyncio.run(...) inside"
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return "a generator: return list(...) of it"
    return f"a {kind}"


def write_part(folder: Catalog, first: int, pieces: Sequence[Piece], failures: Sequence[NodeFailure]) -> Part:
    """Write the results of consecutive items, and before them the errors of those that failed.

    :param folder: the catalog at the folder of the parts.
    :param first: index of the first item.
    """
    if all(piece.is_json for piece in pieces):
        suffix, data = "json", b"[" + b",".join(piece.data for piece in pieces) + b"]"
    else:
        suffix, data = "pkl", b"".join(list_of(piece.pickled() for piece in pieces))
    part = Part(first, first + len(pieces), len(failures), digest(data), suffix)
    if failures:
        entries = [_entry(failure) for failure in failures]
        text = ",".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        folder.write_bytes(f"{folder.prefix_uri}/{part.errors}", text.encode("utf-8", "backslashreplace"))
    folder.write_bytes(f"{folder.prefix_uri}/{part.name}", data)
    return part


def _entry(failure: NodeFailure) -> dict[str, Any]:
    return {
        "index": failure.item,
        "type": failure.type,
        "message": cut(failure.message, _LONGEST_MESSAGE),
        "traceback": cut(failure.traceback, _LONGEST_TRACEBACK),
    }


def errors_of(folder: Catalog, part: Part) -> list[dict[str, Any]]:
    """Return the errors of a part's failed items."""
    if not part.failed:
        return []
    data = folder.read_bytes(f"{folder.prefix_uri}/{part.errors}")
    found: list[dict[str, Any]] = json.loads(b"[" + data + b"]")
    return found


def read_part(folder: Catalog, part: Part) -> bytes:
    """Return the bytes of a part.

    :raises CatalogError: it is gone, or is not what its name says.
    """
    uri = f"{folder.prefix_uri}/{part.name}"
    data = folder.read_bytes(uri)
    if digest(data) != part.sha256:
        raise CatalogError(f"{uri} is damaged: its digest is not the one that its name says. Clear the node's task")
    return data


def whole_parts(folder: Catalog, first: int, stop: int) -> tuple[list[Part], list[str]]:
    """Return the parts of items within a range that are whole, and the names of those that are damaged."""
    parts, damaged = [], []
    names = {uri.rpartition("/")[2] for uri in folder.list(folder.prefix_uri)}
    for name in sorted(names):
        part = part_of(name)
        if part is None or not first <= part.first < part.stop <= stop:
            continue
        try:
            if part.failed and len(errors_of(folder, part)) != part.failed:
                raise CatalogError(f"{part.errors} does not have {part.failed} errors")
            read_part(folder, part)
        except (CatalogError, ValueError):
            damaged.append(name)
        else:
            parts.append(part)
    return parts, damaged


def put_results(parts: Sequence[Part], folder: Catalog, store: Catalog) -> CatalogRef:
    """Put the results of all parts together as one list, part by part, and return its reference.

    :param parts: in the order of their items, without gaps.
    :param store: the catalog at the folder of the outputs.
    """
    if all(part.suffix == "json" for part in parts):

        def as_json(stream: BinaryIO) -> None:
            _write_array(stream, (read_part(folder, part)[1:-1] for part in parts))

        return store.put_stream(as_json, "results", kind="json")

    def as_pickle(stream: BinaryIO) -> None:
        for data in joined((read_part(folder, part), part.suffix == "json") for part in parts):
            stream.write(data)

    return store.put_stream(as_pickle, "results", kind="pickled")


def put_errors(parts: Sequence[Part], folder: Catalog, store: Catalog) -> CatalogRef:
    """Put the errors of all parts together as one JSON list, and return its reference."""
    failed = [part for part in parts if part.failed]

    def dump(stream: BinaryIO) -> None:
        _write_array(stream, (folder.read_bytes(f"{folder.prefix_uri}/{part.errors}") for part in failed))

    return store.put_stream(dump, "errors", kind="json")


def failed_items(parts: Iterable[Part], folder: Catalog) -> Iterator[int]:
    """Yield the indexes of the failed items, in order."""
    for part in parts:
        yield from (entry["index"] for entry in errors_of(folder, part))


def _write_array(stream: BinaryIO, inner: Iterable[bytes]) -> None:
    """Write a JSON array, given the insides of arrays."""
    stream.write(b"[")
    begun = False
    for data in inner:
        if data:
            stream.write(b"," + data if begun else data)
            begun = True
    stream.write(b"]")
