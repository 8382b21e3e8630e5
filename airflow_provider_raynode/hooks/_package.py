"""Zip packages for Ray's runtime environment: this package, and the user's folders, by the digest of their content.

The layout is Ray's own (`ray/_private/runtime_env/packaging.py`, 2.60): a `working_dir` is zipped by its content, a
module of `py_modules` with its folder on top. What of a folder is left out is `_listing`'s to say.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._listing import GONE, Listing, amount, listed, printable

log = logging.getLogger(__name__)

# The dashboard answers 413 to larger uploads.
MAX_BYTES = 100 * 1024 * 1024
# The oldest time that a zip can hold: equal content gives an equal package, whenever it was checked out.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """Bytes to upload to the cluster and the name that its nodes know them by."""

    name: str
    data: bytes

    @property
    def uri(self) -> str:
        """The URI for the runtime environment."""
        return f"gcs://{self.name}"


@functools.cache
def own_package() -> Package:
    """Return this package's Python files as a module for `py_modules`; made once per process."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(path for path in root.rglob("*.py"))
    return _zipped(((path, f"{root.name}/{path.relative_to(root).as_posix()}") for path in files), root)


def folder_package(folder: Path, *, as_module: bool, excludes: Iterable[str] = ()) -> Package:
    """Return a folder as a package.

    :param as_module: keep the folder itself on top, as `py_modules` needs it; otherwise only its content.
    :param excludes: further patterns in the syntax of `.gitignore`, relative to the folder.
    :raises ConfigError: it is larger than what the cluster takes, or cannot be read.
    """
    listing = listed(folder, as_module=as_module, excludes=excludes)
    package = _zipped(listing.files, folder, listing)
    tell("goes to the cluster", listing)
    return package


def file_package(path: Path) -> Package:
    """Return a single Python file as a module for `py_modules`.

    :raises ConfigError: it cannot be read.
    """
    return _zipped([(path, path.name)], path)


def archive_package(path: Path) -> Package:
    """Return a zip or a wheel as it is; a wheel keeps the name that its installation needs, with a digest as build tag.

    The nodes know a package by its name: two wheels of one version, built from different code, would be one.

    :raises ConfigError: it is larger than what the cluster takes, or cannot be read.
    """
    data = _read(path)
    _check_size(len(data), path, [])
    return Package(_wheel_name(path, data) if path.suffix == ".whl" else _name(data), data)


def tell(what: str, listing: Listing) -> None:
    """Log what of a folder goes along, and what does not."""
    if listing.left_out:
        log.info(
            "runtime_env: a folder %s: %s. excludes: ['!name'] takes a file back, "
            "RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1 in the worker's environment all that git ignores",
            what,
            listing,
        )
    else:
        log.info("runtime_env: a folder %s as a whole: %s", what, listing)


def _zipped(files: Iterable[tuple[Path, str]], root: Path, listing: Listing | None = None) -> Package:
    """Return the files as a package; one that goes meanwhile is noted in `listing`."""
    buffer = io.BytesIO()
    sizes: list[tuple[int, str]] = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in files:
            _check_name(path, name)
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name.endswith("/"):
                entry.external_attr = 0o755 << 16 | 0x10
                archive.writestr(entry, b"")
                continue
            if listing is not None and not path.exists():
                listing.leave_out(GONE, name)
                continue
            data = _read(path)
            sizes.append((len(data), name))
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            archive.writestr(entry, data)
            _check_size(buffer.tell(), root, sizes)
    return Package(_name(buffer.getvalue()), buffer.getvalue())


def _check_name(path: Path, name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"runtime_env: the name of {printable(str(path))} is not UTF-8, and no zip can hold it: rename the file, "
            "or leave it out by excludes"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"runtime_env: {path} cannot be read: {error}") from error


def _check_size(size: int, path: Path, sizes: list[tuple[int, str]]) -> None:
    if size <= MAX_BYTES:
        return
    largest = ", ".join(f"{name} ({amount(length)})" for length, name in sorted(sizes, reverse=True)[:3])
    raise ConfigError(
        f"runtime_env: {path} is more than {MAX_BYTES >> 20} MiB zipped, which Ray does not take"
        + (f"; the largest so far: {largest}" if largest else "")
        + ". Leave out what the job does not need (excludes, .gitignore, .rayignore), put data into the catalog, or "
        "give the URI of a zip in object storage"
    )


def _wheel_name(path: Path, data: bytes) -> str:
    """Return `name-version-build-python-abi-platform.whl`; a build tag begins with a digit."""
    parts = path.stem.split("-")
    if len(parts) not in (5, 6):
        return path.name  # no wheel's name: pip says so
    build = f"{parts[2] if len(parts) == 6 else '0'}_{hashlib.sha256(data).hexdigest()[:32]}"
    return "-".join([*parts[:2], build, *parts[-3:]]) + ".whl"


def _name(data: bytes) -> str:
    return f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip"
