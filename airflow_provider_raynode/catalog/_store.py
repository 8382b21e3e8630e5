"""The catalog: objects on a filesystem, written atomically, verified before they are read."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from airflow_provider_raynode.catalog._base import UnfitError
from airflow_provider_raynode.catalog._kinds import serializer_for, serializer_of
from airflow_provider_raynode.catalog._layout import node_path, safe_segment
from airflow_provider_raynode.catalog._ref import CatalogRef
from airflow_provider_raynode.exceptions import CatalogError

_CHUNK = 1 << 20
_DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hdfs": "pyarrow"}
# Where an object can be written on the condition that there is none.
_EXCLUSIVE = ("s3", "gs", "gcs")


class Catalog:
    """A store of objects below one root.

    `put` writes below the catalog's prefix and returns a reference; `load` takes a reference and verifies size and
    sha256 before it reads the value. A pickle is loaded only from below the root, or from a trusted root. Writes are
    atomic: a reader finds the whole object or none, and a name that is put again is replaced as a whole (references to
    its earlier content then fail with a message that says so).

    :param uri: the root: an absolute path, or a URI that fsspec knows (`file:///…`, `s3://bucket/…`, `gs://…`,
        `memory://…`).
    :param prefix: the folder below the root that `put` and `get_ref` work in.
    :param filesystem: the fsspec filesystem to use; default: made from the URI.
    :param storage_options: arguments for the filesystem that is made from the URI.
    :param trusted: further roots whose pickles may be loaded.
    :raises CatalogError: the URI is relative, or its driver is not installed.
    """

    def __init__(
        self,
        uri: str,
        *,
        prefix: str = "",
        filesystem: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        trusted: tuple[str, ...] = (),
    ) -> None:
        self.uri = normalise(uri)
        self.prefix = _relative(prefix)
        self.trusted = tuple(normalise(each) for each in trusted)
        self._storage_options = dict(storage_options or {})
        self._filesystem = filesystem
        self._guard: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"Catalog({self.prefix_uri!r})"

    # -- places ----------------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        """Whether the catalog is a folder of this machine."""
        return self.uri.startswith("/")

    @property
    def prefix_uri(self) -> str:
        """URI of the folder that `put` writes to."""
        return f"{self.uri}/{self.prefix}" if self.prefix else self.uri

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        if self._filesystem is None:
            self._filesystem = _filesystem(self.uri, self._storage_options)
        return self._filesystem

    def filesystem_of(self, uri: str) -> tuple[Any, str]:
        """Return the fsspec filesystem that has a URI, and the URI's path there; one below the root has the catalog's.

        :raises CatalogError: the URI is relative, or its driver is not installed.
        """
        uri = normalise(uri)
        filesystem = self.filesystem if self._holds(uri) else _filesystem(uri, {})
        return filesystem, str(filesystem._strip_protocol(uri))

    def node_prefix(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """Return the URI of a task's or node's folder: `<catalog>/<dag_id>/<run_id>/<task id>/<map_index>`."""
        return f"{self.uri}/{node_path(dag_id, run_id, task_id, map_index)}"

    def at(self, prefix: str) -> Catalog:
        """Return the same catalog with another folder: a URI below the root, or a path relative to the root."""
        if self._holds(prefix):
            prefix = normalise(prefix)[len(self.uri) :]
        elif "://" in prefix or prefix.startswith("/"):
            raise CatalogError(f"{prefix} is not below the catalog {self.uri}")
        return self._with_prefix(prefix)

    def child(self, name: str) -> Catalog:
        """Return the same catalog with a folder below this one's."""
        return self._with_prefix(posixpath.join(self.prefix, name))

    def guarded(self, guard: Callable[[], None]) -> Catalog:
        """Return the same catalog, which calls `guard` before an object gets its name or is deleted.

        Where `guard` raises a CatalogError, that is raised, and nothing has changed.
        """
        same = self._with_prefix(self.prefix)
        same._guard = guard
        return same

    def _with_prefix(self, prefix: str) -> Catalog:
        same = Catalog(
            self.uri,
            prefix=prefix,
            filesystem=self._filesystem,
            storage_options=self._storage_options,
            trusted=self.trusted,
        )
        same._guard = self._guard
        return same

    # -- objects ---------------------------------------------------------------------------------------------------

    def put(self, value: Any, name: str | None = None, *, kind: str | None = None) -> CatalogRef:
        """Store `value` and return its reference.

        :param value: any object; a `pathlib.Path` stands for the file or folder there.
        :param name: name below the prefix, for `get_ref`; without one, the object gets a name of its own.
        :param kind: the serializer; default: the one that holds the value best.
        :raises CatalogError: the value does not fit the kind, or the storage refuses.
        """
        serializer = serializer_for(value) if kind is None else serializer_of(kind)
        label = safe_segment(name) if name is not None else uuid.uuid4().hex
        uri = f"{self.prefix_uri}/{serializer.name_for(label, value)}"

        def dump(stream: BinaryIO) -> None:
            try:
                serializer.dump(value, stream)
            except (OSError, CatalogError):
                raise
            except UnfitError as error:
                where = f"{name or 'the value'}{error.path}"
                raise CatalogError(
                    f"{where} {error.reason}; it cannot be stored as {serializer.kind} ({uri})"
                ) from None
            except Exception as error:
                raise CatalogError(
                    f"{uri}: a {type(value).__module__}.{type(value).__qualname__} cannot be stored as "
                    f"{serializer.kind}: {type(error).__name__}: {error}"
                ) from error

        return self._put(uri, dump, name, serializer.kind)

    def put_stream(self, dump: Callable[[BinaryIO], Any], name: str, *, kind: str) -> CatalogRef:
        """Store what `dump` writes as an object of a kind, and return its reference: for what no process holds whole.

        :param dump: writes what the kind's serializer reads to the stream that it is given.
        :raises CatalogError: the storage refuses.
        """
        serializer = serializer_of(kind)
        return self._put(f"{self.prefix_uri}/{serializer.name_for(safe_segment(name), None)}", dump, name, kind)

    def _put(self, uri: str, dump: Callable[[BinaryIO], Any], name: str | None, kind: str) -> CatalogRef:
        sha256, size = self._write(uri, dump)
        ref = CatalogRef(uri=uri, kind=kind, sha256=sha256, size=size, created=_now())
        if name is not None:
            self.write_bytes(self._ref_uri(self.prefix, name), _json(ref))
        return ref

    def load(self, ref: Mapping[str, Any]) -> Any:
        """Return the value of a reference; its size and digest are verified first.

        :raises CatalogError: not a reference, the object is gone, truncated or altered, its kind is unknown here, or a
            pickle lies outside the catalog and its trusted roots.
        """
        checked = CatalogRef.from_xcom(ref)
        uri = normalise(checked["uri"])
        serializer = serializer_of(checked["kind"])
        if serializer.runs_code and not self._trusts(uri):
            raise CatalogError(
                f"{uri} is a {serializer.kind} object outside the catalog {self.uri}: loading it could run "
                "foreign code. If you trust that storage, add its root to [raynode] trusted_catalogs"
            )
        data = self._read(uri)
        if len(data) != checked["size"] or hashlib.sha256(data).hexdigest() != checked["sha256"]:
            raise CatalogError(
                f"{uri} is not what its reference names ({len(data)} bytes, expected {checked['size']}, or another "
                "digest): it was replaced, truncated or altered since. Run the task that made it again"
            )
        try:
            return serializer.load(data, posixpath.basename(uri))
        except Exception as error:
            raise CatalogError(
                f"{uri} is intact but cannot be loaded as {serializer.kind} here: {type(error).__name__}: {error}"
            ) from error

    def get_ref(self, name: str, *, task_id: str | None = None, map_index: int = -1) -> CatalogRef:
        """Return the reference of what was last put under `name`.

        :param name: the name that `put` was given.
        :param task_id: another task or node of the same run; default: this one.
        :param map_index: that task's map index.
        :raises CatalogError: nothing was put under that name.
        """
        prefix = self.prefix
        if task_id is not None:
            segments = prefix.split("/")
            if len(segments) < 4:
                raise CatalogError(f"get_ref(task_id=…) needs a run's folder, and {self.prefix_uri} is none")
            prefix = "/".join([*segments[:2], safe_segment(task_id), str(int(map_index))])
        import json

        uri = self._ref_uri(prefix, name)
        if not self.exists(uri):
            raise CatalogError(f"nothing was put as {name!r} below {self.uri}/{prefix}")
        return CatalogRef.from_xcom(json.loads(self.read_bytes(uri)))

    def _ref_uri(self, prefix: str, name: str) -> str:
        return "/".join(part for part in (self.uri, prefix, f"{safe_segment(name)}.ref.json") if part)

    # -- bytes -----------------------------------------------------------------------------------------------------

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write an object below the root atomically, replacing one that is there."""
        self._write(uri, lambda stream: stream.write(data))

    def create_bytes(self, uri: str, data: bytes) -> bool:
        """Write an object below the root where there is none; return False, and write nothing, where there is one.

        Of several that create one name together, one gets True: see `creates_exclusively`.
        """
        path = self._inside(uri)
        if self._guard is not None:
            self._guard()
        with _errors(uri, writing=True):
            try:
                if self.is_local:
                    _create_local(Path(path), data)
                elif self.creates_exclusively:
                    self._create_remote(path, data)
                elif self.exists(uri):
                    return False
                else:
                    self.filesystem.pipe_file(path, data)
            except FileExistsError:
                return False
        return True

    def _create_remote(self, path: str, data: bytes) -> None:
        try:
            self.filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            raise
        except Exception as error:
            # "Precondition failed" has as many names as there are storages.
            self.filesystem.invalidate_cache()
            if self.filesystem.exists(path):
                raise FileExistsError(path) from error
            raise

    @property
    def creates_exclusively(self) -> bool:
        """Whether the storage itself sees to it that `create_bytes` creates a name once."""
        if self.is_local:
            return True
        write = getattr(self.filesystem, "_pipe_file", self.filesystem.pipe_file)
        return self.uri.partition("://")[0] in _EXCLUSIVE and "mode" in inspect.signature(write).parameters

    def rewrite_bytes(self, uri: str, data: bytes) -> None:
        """Replace an object by one of the same length.

        On this machine in its place, which takes no room on a full disk and no sync; elsewhere as `write_bytes`.
        """
        if not self.is_local:
            self.write_bytes(uri, data)
            return
        path = self._inside(uri)
        with _errors(uri, writing=True):
            descriptor = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, data, 0)
            finally:
                os.close(descriptor)

    def read_bytes(self, uri: str) -> bytes:
        """Return an object below the root.

        :raises CatalogError: there is none, or it cannot be read.
        """
        self._inside(uri)
        return bytes(self._read(normalise(uri)))

    def exists(self, uri: str) -> bool:
        """Whether an object or a folder is there."""
        path = self._inside(uri)
        with _errors(uri):
            if not self.is_local:
                self.filesystem.invalidate_cache()
            return bool(self.filesystem.exists(path))

    def list(self, uri: str) -> list[str]:
        """Return the URIs of what lies directly in a folder, sorted; empty where there is no such folder."""
        path = self._inside(uri)
        root = normalise(uri)
        with _errors(uri):
            if not self.is_local:
                self.filesystem.invalidate_cache()
            if not self.filesystem.isdir(path):
                return []
            names = (posixpath.basename(entry.rstrip("/")) for entry in self.filesystem.ls(path, detail=False))
        return sorted(f"{root}/{name}" for name in names if name and not name.startswith(".tmp-"))

    def delete(self, uri: str) -> None:
        """Remove an object, or a folder with all below it; what is not there is no error."""
        path = self._inside(uri)
        if normalise(uri) == self.uri:
            raise CatalogError(f"{self.uri} is the catalog's root: it is not deleted as a whole")
        if self._guard is not None:
            self._guard()
        with _errors(uri), suppress(FileNotFoundError):
            self.filesystem.rm(path, recursive=True)

    # -- below the surface -----------------------------------------------------------------------------------------

    def _holds(self, uri: str) -> bool:
        if "://" not in uri and not uri.startswith("/"):
            return False
        return _is_below(normalise(uri), self.uri)

    def _trusts(self, uri: str) -> bool:
        if not any(_is_below(uri, root) for root in (self.uri, *self.trusted)):
            return False
        if not uri.startswith("/"):
            return True
        # A link inside the folder must not lead out of it.
        real = os.path.realpath(uri)
        return any(_is_below(real, os.path.realpath(root)) for root in (self.uri, *self.trusted) if root[0] == "/")

    def _inside(self, uri: str) -> str:
        """Return the filesystem's path of a URI below the root."""
        if not self._holds(uri):
            raise CatalogError(f"{uri} is not below the catalog {self.uri}")
        return str(self.filesystem._strip_protocol(normalise(uri)))

    def _write(self, uri: str, dump: Callable[[BinaryIO], Any]) -> tuple[str, int]:
        path = self._inside(uri)
        with _errors(uri, writing=True):
            if self.is_local:
                return _write_local(Path(path), dump, self._guard)
            # One put of a finished file: an object store shows an object only when it is whole.
            with tempfile.NamedTemporaryFile(prefix="raynode-") as scratch:
                stream = _Hashing(scratch)
                dump(stream)  # type: ignore[arg-type]
                scratch.flush()
                if self._guard is not None:
                    self._guard()
                self.filesystem.put_file(scratch.name, path)
            return stream.hexdigest(), stream.size

    def _read(self, uri: str) -> bytearray:
        with _errors(uri):
            if uri.startswith("/"):
                return _read_local(uri)
            filesystem, path = self.filesystem_of(uri)
            return bytearray(filesystem.cat_file(path))


class _Hashing:
    """A stream that counts and hashes what passes to another."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else data
        self._sha256.update(view)
        self._stream.write(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        self._stream.flush()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Leave the stream below open: its owner closes it."""

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _write_local(
    path: Path, dump: Callable[[BinaryIO], Any], guard: Callable[[], None] | None = None
) -> tuple[str, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        with scratch.open("xb") as file:
            stream = _Hashing(file)
            dump(stream)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if guard is not None:
            guard()
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return stream.hexdigest(), stream.size


def _create_local(path: Path, data: bytes) -> None:
    """Write a file whole under its name, unless there is one.

    :raises FileExistsError: there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        scratch.write_bytes(data)
        try:
            path.hardlink_to(scratch)
        except FileExistsError:
            raise
        except OSError:  # a filesystem without hard links: a reader may see the file before it is filled
            with path.open("xb") as file:
                file.write(data)
    finally:
        scratch.unlink(missing_ok=True)


def _read_local(path: str) -> bytearray:
    with Path(path).open("rb", buffering=0) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        view = memoryview(data)
        done = 0
        while done < len(data) and (count := file.readinto(view[done:])):
            done += count
        view.release()
        del data[done:]
        return data


def normalise(uri: str) -> str:
    """Return a catalog URI in the one form that it is compared in: an absolute path, or `protocol://path`.

    :raises CatalogError: relative, or with `..` in it.
    """
    text = str(uri)
    if text.startswith(("file://", "local://")):
        text = text.split("://", 1)[1]
        if not text.startswith("/"):
            raise CatalogError(f"{uri}: a file URI needs an absolute path, file:///path")
    protocol, mark, path = text.partition("://")
    if not mark:
        if not text.startswith("/"):
            raise CatalogError(
                f"catalog: {uri!r} is relative: give an absolute path or a URI such as s3://bucket/prefix"
            )
        protocol, path = "", text
    if ".." in path.split("/"):
        raise CatalogError(f"{uri}: '..' is not allowed in a catalog URI")
    if not mark:
        return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    return f"{protocol}://" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _is_below(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(root if root.endswith("/") else f"{root}/")


def _relative(prefix: str) -> str:
    parts = [part for part in prefix.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CatalogError(f"{prefix}: '..' is not allowed in a catalog path")
    return "/".join(parts)


def _filesystem(uri: str, storage_options: Mapping[str, Any]) -> Any:
    import fsspec

    protocol = uri.partition("://")[0] if "://" in uri else "file"
    try:
        return fsspec.filesystem(protocol, **storage_options)
    except ImportError as error:
        driver = _DRIVERS.get(protocol, f"the fsspec driver of {protocol}")
        raise CatalogError(f"{uri}: {driver} is not installed here: pip install {driver}") from error
    except ValueError as error:
        raise CatalogError(f"{uri}: fsspec knows no protocol {protocol!r}; use a path, s3://, gs://…") from error


def _json(ref: CatalogRef) -> bytes:
    import json

    return json.dumps(ref, sort_keys=True).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _errors(uri: str, *, writing: bool = False) -> Iterator[None]:
    """Turn the errors of every storage into one that names the URI and what to do."""
    try:
        yield
    except CatalogError:
        raise
    except FileNotFoundError as error:
        raise CatalogError(
            f"{uri} does not exist: it was never written, or was deleted; run the task that makes it again"
        ) from error
    except PermissionError as error:
        verb = "write" if writing else "read"
        raise CatalogError(f"no permission to {verb} {uri}: give this process's user access to the catalog") from error
    except IsADirectoryError as error:
        raise CatalogError(f"{uri} is a folder, not an object") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CatalogError(
                f"the storage is full: {uri} could not be written; free space or move the catalog"
            ) from error
        if error.errno == errno.EROFS:
            raise CatalogError(f"{uri} lies on a read-only filesystem: choose another catalog") from error
        raise CatalogError(f"{uri}: {type(error).__name__}: {error}") from error
    except Exception as error:
        # botocore, gcsfs and others raise errors of their own; a user needs the place with them.
        raise CatalogError(f"{uri}: {type(error).__module__}.{type(error).__name__}: {error}") from error
