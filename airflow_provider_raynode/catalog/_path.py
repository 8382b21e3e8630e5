"""The kinds `file` and `directory`: what lies on this machine's disk, kept as it is."""

from __future__ import annotations

import atexit
import io
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer


class FileSerializer(Serializer):
    """One file, byte for byte; comes back as the Path of a local copy with the same ending."""

    kind = "file"
    suffix = ""

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a Path of a file."""
        return isinstance(value, Path) and value.is_file()

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Copy the file."""
        with Path(value).open("rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)

    def load(self, data: bytearray, name: str) -> Path:
        """Write a local copy; it is removed when this process ends."""
        path = _folder() / name
        path.write_bytes(data)
        return path

    def name_for(self, name: str, value: Any) -> str:
        """Keep the file's own ending."""
        ending = "".join(Path(value).suffixes[-2:])
        return name if name.endswith(ending) else f"{name}{ending}"


class DirectorySerializer(Serializer):
    """A folder as one tar archive; comes back as the Path of a local copy. Special files and links out are refused."""

    kind = "directory"
    suffix = ".tar"

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a Path of a folder."""
        return isinstance(value, Path) and value.is_dir()

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write the archive, entries in the order of their names."""
        root = Path(value)
        if not root.is_dir():
            raise NotADirectoryError(f"{root} is not a folder")
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for path in sorted(root.rglob("*")):
                archive.add(path, arcname=path.relative_to(root).as_posix(), recursive=False)

    def load(self, data: bytearray, name: str) -> Path:
        """Unpack a local copy; it is removed when this process ends."""
        path = _folder() / name.removesuffix(self.suffix)
        path.mkdir()
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            archive.extractall(path, filter="data")
        return path


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="raynode-catalog-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_root()))
