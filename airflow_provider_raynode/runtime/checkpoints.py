"""Checkpoints on a worker: what was reported as one, as a folder for Ray, and back. Imports no Ray by itself."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from ray.train import Checkpoint

OBJECT_FILE = "raynode_object.pkl"
# In a checkpoint's folder: whose it is, and what was reported with it.
ORIGIN_FILE = ".raynode.json"
# Files of a checkpoint that are the node's or Ray's own.
_OWN = (ORIGIN_FILE, ".metadata.json")


def read_checkpoint(checkpoint: Checkpoint | None) -> Any:
    """Return the object in a checkpoint of Ray's, or the Path of a copy of its folder; None for none."""
    if checkpoint is None:
        return None
    from ray import cloudpickle

    with suppress(FileNotFoundError), _opened(checkpoint, OBJECT_FILE) as stream:
        return cloudpickle.load(io.BufferedReader(stream, 1 << 20))
    folder = Path(tempfile.mkdtemp(prefix="raynode-checkpoint-"))
    _copies.append(folder)
    checkpoint.to_directory(str(folder))
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
    return folder


# What this process has copied for a call of the function.
_copies: list[Path] = []


def remove_copies() -> None:
    """Remove what `read_checkpoint` has copied: the call has ended."""
    while _copies:
        shutil.rmtree(_copies.pop(), ignore_errors=True)


def into_catalog(checkpoint: Checkpoint, catalog: Catalog, name: str) -> CatalogRef:
    """Copy a checkpoint into the catalog: the object that was reported, or the folder."""
    with _as_folder(checkpoint, local=catalog.is_local) as folder:
        file = folder / OBJECT_FILE
        if not file.exists():
            return catalog.put(folder, name, kind="directory")
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        copied = catalog.put(file, f"{name}.pkl", kind="file")
        return CatalogRef(
            uri=f"{catalog.prefix_uri}/{name}.pkl",
            kind="pickled",
            sha256=sha256,
            size=file.stat().st_size,
            created=copied["created"],
        )


@contextmanager
def _as_folder(checkpoint: Checkpoint, *, local: bool) -> Iterator[Path]:
    """Give a checkpoint as a folder on this machine, without what is the node's or Ray's own.

    :param local: whether it lies on this machine anyway.
    """
    there = Path(checkpoint.path)
    if local and there.is_dir() and not any((there / name).exists() for name in _OWN):
        yield there
        return
    folder = Path(tempfile.mkdtemp(prefix="raynode-best-"))
    try:
        checkpoint.to_directory(str(folder))
        for name in _OWN:
            (folder / name).unlink(missing_ok=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def checkpoint_folder(checkpoint: Any) -> Iterator[Path]:
    """Give a folder that holds the checkpoint; Ray copies it before its `report` returns.

    :raises RayNodeError: there is no such folder, or the object cannot be pickled.
    """
    if isinstance(checkpoint, Path) or (isinstance(checkpoint, str) and Path(checkpoint).is_dir()):
        if not Path(checkpoint).is_dir():
            raise RayNodeError(f"report(checkpoint={str(checkpoint)!r}): there is no such folder")
        yield Path(checkpoint)
        return
    folder = Path(tempfile.mkdtemp(prefix="raynode-checkpoint-"))
    try:
        with (folder / OBJECT_FILE).open("wb") as stream:
            _dump(checkpoint, stream)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def origin_in(folder: Path, text: str) -> Iterator[None]:
    """Keep `text` beside the checkpoint while Ray copies it: the folder may be the function's own."""
    file = folder / ORIGIN_FILE
    try:
        with suppress(OSError):  # a folder that cannot be written to
            file.write_text(text, encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def origin_of(checkpoint: Checkpoint) -> bytes | None:
    """Return what `origin_in` kept in a checkpoint, None where there is nothing."""
    try:
        with _opened(checkpoint, ORIGIN_FILE) as stream:
            return bytes(stream.read())
    except OSError:
        return None


def _opened(checkpoint: Checkpoint, name: str) -> Any:
    filesystem: Any = checkpoint.filesystem
    return filesystem.open_input_stream(f"{checkpoint.path}/{name}")


def _dump(checkpoint: Any, stream: BinaryIO) -> None:
    from ray import cloudpickle

    try:
        cloudpickle.dump(checkpoint, stream)
    except OSError:
        raise
    except Exception as error:
        parts = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
        guilty = next((f", at {name!r} a {type(value).__name__}" for name, value in parts if not _pickles(value)), "")
        raise RayNodeError(
            f"the checkpoint, a {type(checkpoint).__name__}, cannot be pickled{guilty}: {type(error).__name__}: {error}"
        ) from error


def _pickles(value: Any) -> bool:
    from ray import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
