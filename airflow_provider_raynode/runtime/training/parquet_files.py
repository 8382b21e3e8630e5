"""The files of a dataset: found behind a reference, a path or a URI, proven, and opened. Imports no Ray.

A folder is one of three: a folder of a storage, a folder that the catalog holds as one archive (kind `directory`), and
a list of references. Of an archive each file is read where it lies in it.
"""

from __future__ import annotations

import hashlib
import io
import platform
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import CatalogError

# The kinds that may hold parquet.
KINDS = ("parquet", "file", "directory")
# Of a larger object of an object store the digest is not computed: it would be fetched twice.
_CHEAP = 64 << 20
_PIECE = 1 << 20


@dataclass(frozen=True)
class Source:
    """One file: where it lies, and what it was when it was found.

    :param uri: the object, `offset` where in it the file begins: above 0 in an archive.
    :param stamp: the object's tag, or its time of change: what is read later must be the same.
    :param name: for messages.
    """

    uri: str
    size: int
    stamp: str
    name: str
    offset: int = 0


def sources_of(dataset: str, value: Any, catalog: Catalog) -> list[tuple[Source, str]]:
    """Return the files of a dataset, each with its path in the folder that was given ("" for a file itself).

    :param value: a CatalogRef, a path or URI, or a list of them.
    :raises CatalogError: nothing is there, it is not what the reference names, or something in the folder is no
        parquet file.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise CatalogError(f"dataset {dataset!r} is an empty list: it needs a reference to parquet at least")
        return [each for item in value for each in sources_of(dataset, item, catalog)]
    if CatalogRef.is_ref(value):
        ref = CatalogRef.from_xcom(value)
        if ref.kind not in KINDS:
            raise CatalogError(
                f"dataset {dataset!r} is a reference of kind {ref.kind!r} ({ref.uri}), not parquet: put a DataFrame or "
                "an Arrow table, or the Path of a parquet file or of a folder of them"
            )
        return _of_object(dataset, ref.uri, catalog, ref)
    if isinstance(value, str) and ("://" in value or value.startswith("/")):
        return _of_object(dataset, value, catalog, None)
    raise CatalogError(
        f"dataset {dataset!r} is of type {type(value).__name__} ({repr(value)[:60]}): give a CatalogRef to parquet, an "
        "absolute path or a URI, or a list of them"
    )


def is_parquet(value: Any, catalog: Catalog) -> bool:
    """Whether a value of op_kwargs is a reference to parquet: a table, a file or folder of it, or a list of those."""
    if isinstance(value, list):
        return bool(value) and all(is_parquet(item, catalog) for item in value)
    if not CatalogRef.is_ref(value):
        return False
    if value["kind"] == "parquet":
        return True
    if value["kind"] == "file":
        return str(value["uri"]).lower().endswith((".parquet", ".pq"))
    if value["kind"] != "directory":
        return False
    try:
        found = _of_object("", value["uri"], catalog, CatalogRef.from_xcom(value), prove=False)
    except CatalogError:  # another kind of folder; what is wrong with it, its loading says
        return False
    return bool(found)


def _of_object(
    dataset: str, uri: str, catalog: Catalog, ref: CatalogRef | None, *, prove: bool = True
) -> list[tuple[Source, str]]:
    filesystem, path = catalog.filesystem_of(uri)
    try:
        is_folder = filesystem.isdir(path)
        info: Any = None if is_folder else filesystem.info(path)
    except FileNotFoundError:
        place = f" on host {platform.node()}" if path.startswith("/") and "://" not in uri else ""
        raise CatalogError(f"dataset {dataset!r}: there is no {uri}{place}") from None
    except Exception as error:
        raise CatalogError(f"dataset {dataset!r}: {uri} cannot be read: {type(error).__name__}: {error}") from error
    if is_folder:
        return _of_folder(dataset, uri, filesystem, path, ref)
    source = Source(uri, int(info["size"]), _stamp(info), uri)
    if ref is not None and prove:
        _prove(dataset, source, ref, catalog)
    if ref is not None and ref.kind == "directory":
        return _of_archive(dataset, source, catalog)
    return [(source, "")]


def _of_folder(dataset: str, uri: str, filesystem: Any, path: str, ref: CatalogRef | None) -> list[tuple[Source, str]]:
    root = uri.rstrip("/")
    found: list[tuple[Source, str]] = []
    filesystem.invalidate_cache()
    for full, info in sorted(filesystem.find(path, detail=True).items()):
        inner = posixpath.relpath(full, path)
        if not _is_hidden(inner):
            found.append((Source(f"{root}/{inner}", int(info["size"]), _stamp(info), f"{root}/{inner}"), inner))
    total = sum(source.size for source, _ in found)
    if ref is not None and ref.size not in (0, total):
        raise CatalogError(
            f"dataset {dataset!r}: the folder {uri} has {total} bytes in {len(found)} files, its reference says "
            f"{ref.size}: it was changed since. Run the task that made it again"
        )
    return _only_parquet(dataset, uri, found, lambda source: _magic(filesystem, filesystem._strip_protocol(source.uri)))


def _of_archive(dataset: str, archive: Source, catalog: Catalog) -> list[tuple[Source, str]]:
    found: list[tuple[Source, str]] = []
    with opened(archive, catalog) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as members:
                for member in members:
                    if member.isfile() and not _is_hidden(member.name):
                        name = f"{archive.uri}/{member.name}"
                        source = replace(archive, size=member.size, offset=member.offset_data, name=name)
                        found.append((source, member.name))
        except tarfile.TarError as error:
            raise CatalogError(f"dataset {dataset!r}: {archive.uri} is no archive of a folder: {error}") from None

        def magic(source: Source) -> bytes:
            stream.seek(source.offset)
            return bytes(stream.read(4))

        return _only_parquet(dataset, archive.uri, sorted(found, key=lambda each: each[1]), magic)


def _only_parquet(dataset: str, uri: str, found: list[tuple[Source, str]], magic: Any) -> list[tuple[Source, str]]:
    """Return the files where all are parquet: a file left out would be rows left out."""
    others = [path for source, path in found if source.size < 8 or magic(source) != b"PAR1"]
    if not found or len(others) == len(found):
        raise CatalogError(f"dataset {dataset!r}: there is no parquet file in the folder {uri}")
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise CatalogError(
            f"dataset {dataset!r}: in the folder {uri}, {', '.join(others[:3])}{more} is not parquet: take it out, or "
            "give it a name that begins with _ or ., which is passed over"
        )
    return found


def _is_hidden(path: str) -> bool:
    """Whether Hive, Spark and Arrow pass a file over: `_SUCCESS`, `_metadata`, `.part.crc`."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))


def _magic(filesystem: Any, path: str) -> bytes:
    return bytes(filesystem.cat_file(path, start=0, end=4))


def _prove(dataset: str, source: Source, ref: CatalogRef, catalog: Catalog) -> None:
    """Prove that an object is what its reference names: by its size, and by its digest where that is cheap."""
    wrong = source.size != ref.size
    if not wrong and (not _is_remote(source.uri) or source.size <= _CHEAP):
        digest = hashlib.sha256()
        with opened(source, catalog) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        wrong = digest.hexdigest() != ref.sha256
    if wrong:
        raise CatalogError(
            f"dataset {dataset!r}: {ref.uri} is not what its reference names ({source.size} bytes, expected "
            f"{ref.size}, or another digest): it was replaced, truncated or altered since. Run the task that made it "
            "again"
        )


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith(("file://", "local://"))


def _stamp(info: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "created"):
        if info.get(name) is not None:
            return f"{name} {info[name]} {info['size']}"
    return f"size {info['size']}"


@contextmanager
def opened(source: Source, catalog: Catalog) -> Iterator[Any]:
    """Open a file for reading.

    :raises CatalogError: it is gone, or another than it was when it was found.
    """
    filesystem, path = catalog.filesystem_of(source.uri)
    try:
        info = filesystem.info(path)
        if _stamp(info) != source.stamp:
            raise CatalogError(
                f"{source.name} was replaced while it was in use: a dataset must stay as it is until the training has "
                "ended"
            )
        stream = filesystem.open(path, "rb")
    except FileNotFoundError:
        place = f" on host {platform.node()}" if not _is_remote(source.uri) else ""
        raise CatalogError(f"{source.name} is not there{place}: every machine with a worker must reach it") from None
    with stream:
        yield _Part(stream, source) if source.offset else stream


class _Part(io.RawIOBase):
    """A file that lies in another one."""

    def __init__(self, stream: Any, source: Source) -> None:
        super().__init__()
        self._stream = stream
        self._first, self._size, self._at = source.offset, source.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._stream.seek(self._first + self._at)
        data = bytes(self._stream.read(left if size is None or size < 0 else min(size, left)))
        self._at += len(data)
        return data
