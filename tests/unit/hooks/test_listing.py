"""What of a folder goes along with a job, and what is said about the rest."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from pathlib import Path

import pytest

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks import _listing
from airflow_provider_raynode.hooks._listing import listed
from airflow_provider_raynode.hooks._package import folder_package
from airflow_provider_raynode.hooks._runtime_env import packaged

IGNORED = {
    ".gitignore": "*.pkl\nbuild/\n",
    "lib.py": "X = 1\n",
    "model.pkl": "weights",
    "build/out.bin": "0123456789",
    "build/keep.txt": "k",
    "sub/model.pkl": "w",
    "sub/.gitignore": "!model.pkl\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture(autouse=True)
def no_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (_listing.IGNORE_GITIGNORE, _listing.DEFAULT_EXCLUDES):
        monkeypatch.delenv(name, raising=False)


def names(root: Path, *excludes: str) -> list[str]:
    found = [name for _, name in listed(root, as_module=False, excludes=excludes).files]
    return [name for name in found if not name.endswith("ignore")]


@pytest.mark.parametrize(
    ("excludes", "kept"),
    [
        ([], ["lib.py", "sub/model.pkl"]),
        (["!model.pkl"], ["lib.py", "model.pkl", "sub/model.pkl"]),
        (["!*.pkl"], ["lib.py", "model.pkl", "sub/model.pkl"]),
        (["!/model.pkl"], ["lib.py", "model.pkl", "sub/model.pkl"]),
        (["!*.pkl", "sub/*.pkl"], ["lib.py", "model.pkl"]),
        (["sub/", "!*.pkl"], ["lib.py", "model.pkl", "sub/model.pkl"]),
        (["!build/"], ["build/keep.txt", "build/out.bin", "lib.py", "sub/model.pkl"]),
        (["!build/keep.txt"], ["build/keep.txt", "lib.py", "sub/model.pkl"]),
        (["!build/", "*.bin"], ["build/keep.txt", "lib.py", "sub/model.pkl"]),
        (["*", "!lib.py"], ["lib.py"]),
        (["# a comment", "", "sub"], ["lib.py"]),
    ],
)
def test_excludes_have_the_last_word(tmp_path: Path, excludes: list[str], kept: list[str]) -> None:
    assert names(tree(tmp_path, IGNORED), *excludes) == kept


def test_rays_own_switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, {**IGNORED, ".rayignore": "build/\n", ".venv/lib.py": "", "sub/__pycache__/a.pyc": ""})
    monkeypatch.setenv(_listing.IGNORE_GITIGNORE, "1")
    assert names(root) == ["lib.py", "model.pkl", "sub/model.pkl"]
    monkeypatch.setenv(_listing.DEFAULT_EXCLUDES, "")
    assert names(root) == [".venv/lib.py", "lib.py", "model.pkl", "sub/__pycache__/a.pyc", "sub/model.pkl"]
    monkeypatch.setenv(_listing.DEFAULT_EXCLUDES, "sub")
    assert names(root) == [".venv/lib.py", "lib.py", "model.pkl"]


def test_what_ray_leaves_out_by_default_can_be_had_by_name_only(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a.pkl": "", ".git/b.pkl": "", ".venv/c.pkl": ""})
    assert names(root, "!*.pkl") == ["a.pkl"]
    assert names(root, "!.venv/") == [".venv/c.pkl", "a.pkl"]


def test_it_says_how_much_is_left_out_and_by_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    root = tree(tmp_path / "assets", {**IGNORED, "data/a.csv": "1,2", "data/.rayignore": "a.csv\n"})
    (root / "model.pkl").write_bytes(b"x" * 3_000_000)
    _, packages = packaged({"working_dir": str(root), "excludes": ["lib.py"]})
    kept = zipfile.ZipFile(io.BytesIO(packages[-1].data)).namelist()
    assert kept == [".gitignore", "data/.rayignore", "sub/.gitignore", "sub/model.pkl"]
    (line,) = [record.getMessage() for record in caplog.records if "goes to the cluster" in record.getMessage()]
    assert f"{root}: 4 files" in line
    assert "by .gitignore 3 files (2.9 MiB): model.pkl (2.9 MiB), build/out.bin (10 bytes), build/keep.txt" in line
    assert "by data/.rayignore 1 file (3 bytes): data/a.csv (3 bytes)" in line
    assert "by excludes 1 file" in line
    assert "excludes: ['!name']" in line and "RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1" in line


def test_a_whole_folder_is_said_to_be_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder_package(tree(tmp_path, {"a.py": "1"}), as_module=False)
    assert "as a whole" in caplog.text and "left out" not in caplog.text


@pytest.mark.parametrize("files", [{}, {".gitignore": "*\n", "model.pkl": "w"}], ids=["empty", "all ignored"])
def test_nothing_left_is_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"nothing of .*(it is empty|by \.gitignore 2 files .*model\.pkl)"):
        listed(tree(tmp_path, files), as_module=True)


def test_odd_entries(tmp_path: Path) -> None:
    root = tree(tmp_path / "w", {"a.py": "", "empty/x": ""})
    (root / "empty" / "x").unlink()
    (root / "nowhere").symlink_to("/no/such/file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        listing = listed(root, as_module=True)
        package = folder_package(root, as_module=True)
    assert zipfile.ZipFile(io.BytesIO(package.data)).namelist() == ["w/a.py", "w/empty/"]
    assert "by being no file (a socket, a link to nothing) 2 files (0 bytes): w/s (0 bytes), w/nowhere" in str(listing)


def test_a_name_that_no_zip_can_hold(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("")
    with pytest.raises(ConfigError, match=r"name of .*bad\\udcff.txt is not UTF-8.*rename the file"):
        folder_package(tmp_path, as_module=False)


def test_a_file_that_goes_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, {"a.py": "", "b.tmp": ""})
    listing = listed(root, as_module=False)
    (root / "b.tmp").unlink()
    monkeypatch.setattr("airflow_provider_raynode.hooks._package.listed", lambda *_, **__: listing)
    package = folder_package(root, as_module=False)
    assert zipfile.ZipFile(io.BytesIO(package.data)).namelist() == ["a.py"]
    assert "by having gone meanwhile 1 file" in str(listing)


def test_counting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_listing, "_MOST_COUNTED", 3)
    root = tree(tmp_path, {"a.py": "", **{f".venv/{number}": "" for number in range(9)}})
    assert "at least 3 files" in str(listed(root, as_module=False))
