"""Which files of a folder go along with a job, and which do not, by whose rule.

Rules are `.gitignore` and `.rayignore` in any folder, the config's `excludes`, and the folders that Ray leaves out by
default. The last that matches wins, as in git: deeper folders over higher ones, `.rayignore` over `.gitignore`, and
`excludes` over all, so that `!model.pkl` there takes back what a file of git's leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from airflow_provider_raynode.exceptions import ConfigError

# Ray's own switches, by their names: git's files are not looked at; other folders, or none, are left out by default.
IGNORE_GITIGNORE = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"
DEFAULT_EXCLUDES = "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"
_RAYS_DEFAULT = ".git,.venv,venv,__pycache__"
EXCLUDES, BY_DEFAULT = "excludes", "Ray's default (.git, .venv, venv, __pycache__)"
NO_FILE, GONE = "being no file (a socket, a link to nothing)", "having gone meanwhile"
# Of folders that are left out, so many files are counted at most; a virtual environment may have 100 000.
_MOST_COUNTED = 20_000
_SHOWN = 3


@dataclass
class LeftOut:
    """What one rule leaves out: how much, and the largest by name."""

    files: int = 0
    size: int = 0
    largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, name: str, size: int) -> None:
        """Count a file."""
        self.files += 1
        self.size += size
        self.largest = sorted([*self.largest, (size, name)], reverse=True)[:_SHOWN]

    def __str__(self) -> str:
        most = "at least " if self.files >= _MOST_COUNTED else ""
        names = ", ".join(f"{printable(name)} ({amount(size)})" for size, name in self.largest)
        rest = ", …" if self.files > len(self.largest) else ""
        return f"{most}{counted(self.files)} ({amount(self.size)}): {names}{rest}"


@dataclass
class Listing:
    """The files of a folder that go along, and what is left out, by rule.

    :param files: path and name in the package; a folder with nothing in it has a name that ends with a slash.
    """

    root: Path
    files: list[tuple[Path, str]] = field(default_factory=list)
    size: int = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def leave_out(self, rule: str, name: str, size: int = 0) -> None:
        """Note that a file is left out."""
        self.left_out.setdefault(rule, LeftOut()).add(name, size)

    def __str__(self) -> str:
        kept = sum(not name.endswith("/") for _, name in self.files)
        text = f"{self.root}: {counted(kept)} ({amount(self.size)})"
        told = [f"by {rule} {found}" for rule, found in self.left_out.items()]
        return f"{text}; left out {'; '.join(told)}" if told else text


def listed(folder: Path, *, as_module: bool, excludes: Iterable[str] = ()) -> Listing:
    """Return what of a folder goes along.

    :param as_module: keep the folder itself on top, as `py_modules` needs it; otherwise only its content.
    :param excludes: further patterns in the syntax of `.gitignore`, relative to the folder.
    :raises ConfigError: it cannot be read, or nothing of it is left.
    """
    root = folder.resolve()
    listing = Listing(folder)
    _Walk(root, f"{folder.name or root.name}/" if as_module else "", list(excludes), listing).run()
    if not listing.files:
        told = f"everything in it is left out: {listing}" if listing.left_out else "it is empty"
        raise ConfigError(f"runtime_env: nothing of {folder} would go to the job, {told}")
    return listing


class _Walk:
    """One walk through a folder, in a fixed order; a link to a folder above ends there."""

    def __init__(self, root: Path, prefix: str, excludes: list[str], listing: Listing) -> None:
        self._root, self._prefix, self._listing = root, prefix, listing
        self._excludes = GitIgnoreSpec.from_lines(excludes)
        self._takes_back = any(pattern.include is False for pattern in self._excludes.patterns)
        self._defaults = GitIgnoreSpec.from_lines(
            each for each in os.environ.get(DEFAULT_EXCLUDES, _RAYS_DEFAULT).split(",") if each.strip()
        )
        self._git = os.environ.get(IGNORE_GITIGNORE, "0") != "1"

    def run(self) -> None:
        """Fill the listing."""
        self._folder(self._root, [], frozenset(), None)

    def _folder(
        self, folder: Path, above: list[tuple[Path, str, GitIgnoreSpec]], inside: frozenset[Path], rule: str | None
    ) -> None:
        """Look at one folder.

        :param above: the rules of the folders above: their folder, their name, what they say.
        :param inside: this folder's ancestors, resolved.
        :param rule: by which rule the folder itself is left out; only `excludes` can take back what is in it.
        """
        here = above if rule is not None else [*above, *self._rules_of(folder)]
        inside = inside | {folder.resolve()}
        entries = _entries(folder)
        if not entries and rule is None and folder != self._root:
            self._listing.files.append((folder, f"{self._name(folder)}/"))
        for path in entries:
            is_folder = path.is_dir()
            why = self._rule_for(path, is_folder, here, rule)
            if not is_folder:
                self._file(path, why)
            elif path.resolve() in inside:
                continue
            elif why is None or (self._takes_back and why not in (EXCLUDES, BY_DEFAULT)) or self._own(why):
                self._folder(path, here, inside, why)
            else:
                self._count(path, why)

    def _own(self, rule: str | None) -> bool:
        """Whether `excludes` left a folder out, and may itself take back files of it."""
        return rule == EXCLUDES and self._takes_back

    def _file(self, path: Path, rule: str | None) -> None:
        name = self._name(path)
        if not path.is_file():
            # Where a rule leaves it out, it is nobody's loss.
            if rule is None:
                self._listing.leave_out(NO_FILE, name)
            return
        try:
            size = path.stat().st_size
        except OSError:
            self._listing.leave_out(GONE, name)
            return
        if rule is not None:
            self._listing.leave_out(rule, name, size)
            return
        self._listing.files.append((path, name))
        self._listing.size += size

    def _rule_for(
        self, path: Path, is_folder: bool, rules: list[tuple[Path, str, GitIgnoreSpec]], rule: str | None
    ) -> str | None:
        """Return by which rule a path is left out, None where it goes along."""
        mark = "/" if is_folder else ""
        said = self._excludes.check_file(f"{path.relative_to(self._root).as_posix()}{mark}").include
        if said is not None:
            return EXCLUDES if said else None
        if rule is not None:
            return rule
        for base, name, spec in reversed(rules):
            said = spec.check_file(f"{path.relative_to(base).as_posix()}{mark}").include
            if said is not None:
                return name if said else None
        return BY_DEFAULT if self._defaults.match_file(f"{path.name}{mark}") else None

    def _rules_of(self, folder: Path) -> Iterator[tuple[Path, str, GitIgnoreSpec]]:
        for name in (".gitignore", ".rayignore") if self._git else (".rayignore",):
            file = folder / name
            if file.is_file():
                yield folder, file.relative_to(self._root).as_posix(), _spec(file)

    def _count(self, folder: Path, rule: str) -> None:
        """Count the files of a folder that is left out as a whole."""
        left = self._listing.left_out.setdefault(rule, LeftOut())
        for top, _, names in os.walk(folder):
            for name in names:
                if left.files >= _MOST_COUNTED:
                    return
                path = Path(top, name)
                try:
                    left.add(self._name(path), path.lstat().st_size)
                except OSError:
                    left.add(self._name(path), 0)

    def _name(self, path: Path) -> str:
        return f"{self._prefix}{path.relative_to(self._root).as_posix()}"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"runtime_env: {folder} cannot be read: {error.strerror or error}") from error


def _spec(file: Path) -> GitIgnoreSpec:
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"runtime_env: {file} cannot be read: {error.strerror or error}") from error
    return GitIgnoreSpec.from_lines(text.splitlines())


def printable(name: str) -> str:
    """Return a name as a log can hold it: bytes that are no UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(files: int) -> str:
    """Return a number of files in words."""
    return "1 file" if files == 1 else f"{files} files"


def amount(size: int) -> str:
    """Return a number of bytes in the unit that reads best."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    digits = f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
    return f"{digits} {units[0] if size != 1 else 'byte'}"
