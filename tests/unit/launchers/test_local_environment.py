"""The runtime environment of the embedded Ray, as its driver is started with it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.exceptions import ClusterError, ConfigError
from airflow_provider_raynode.launchers._local_environment import LocalEnvironment, local_environment, pythonpath


def content(folder: str | Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_folders_are_copied_by_the_rules_of_an_upload(tmp_path: Path) -> None:
    write(tmp_path / "work" / "table.csv", "a")
    write(tmp_path / "work" / "big.bin")
    write(tmp_path / "work" / ".gitignore", "*.log")
    write(tmp_path / "work" / "x.log")
    write(tmp_path / "mod" / "__init__.py")
    write(tmp_path / "one.py")
    asked = {
        "working_dir": str(tmp_path / "work"),
        "py_modules": [str(tmp_path / "mod"), str(tmp_path / "one.py")],
        "excludes": ["*.bin"],
        "env_vars": {"A": "1"},
        "worker_process_setup_hook": "mod.fn",
    }
    made = local_environment(asked, tmp_path / "run")
    assert made.working_dir is not None
    assert content(made.working_dir) == {"table.csv", ".gitignore"}
    mod, one, work = made.import_path
    assert (content(mod), content(one), work) == ({"mod/__init__.py"}, {"one.py"}, str(made.working_dir))
    assert made.env_vars == {"RAY_CHDIR_TO_TRIAL_DIR": "0", "A": "1"}
    assert made.for_ray() == {
        "working_dir": f"local://{work}",
        "py_modules": [f"local://{mod}", f"local://{one}"],
        "worker_process_setup_hook": "mod.fn",
    }
    write(made.working_dir / "table.csv", "changed by a trial")
    assert (tmp_path / "work" / "table.csv").read_text() == "a"


def test_archives_and_uris(tmp_path: Path) -> None:
    for name, files in {
        "work.zip": ["top/a.txt", "top/b.txt"],
        "mods.zip": ["top/mod_a/__init__.py"],
        "mine-1.0-py3-none-any.whl": ["mine/__init__.py", "mine-1.0.data/purelib/extra.py"],
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for each in files:
                archive.writestr(each, "")
    with tarfile.open(tmp_path / "work.tar.gz", "w:gz") as tar:
        tar.add(write(tmp_path / "t" / "c.txt"), "c.txt")
    modules = [f"file://{tmp_path}/mods.zip", str(tmp_path / "mine-1.0-py3-none-any.whl"), f"local://{tmp_path}/t"]
    made = local_environment({"working_dir": str(tmp_path / "work.zip"), "py_modules": modules}, tmp_path / "run")
    assert made.working_dir is not None
    assert content(made.working_dir) == {"top/a.txt", "top/b.txt"}
    zipped, wheel, in_place, _ = made.import_path
    assert content(zipped) == {"mod_a/__init__.py"}
    assert {"mine/__init__.py", "extra.py"} <= content(wheel)
    assert in_place == str(tmp_path / "t")
    for name, kept in {"work.zip": {"a.txt", "b.txt"}, "work.tar.gz": {"c.txt"}}.items():
        made = local_environment({"working_dir": f"file://{tmp_path / name}"}, tmp_path / f"run-{name}")
        assert made.working_dir is not None
        assert content(made.working_dir) == kept


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"working_dir": "/no/such"}, ConfigError, "working_dir: /no/such does not exist"),
        ({"working_dir": __file__}, ConfigError, "neither a folder nor a .zip"),
        ({"py_modules": ["/no/such"]}, ConfigError, "py_modules: /no/such does not exist"),
        ({"py_modules": ["/etc/hostname"]}, ConfigError, "neither a folder nor a .py or .whl"),
        ({"working_dir": "local:///no/such"}, ConfigError, "names no folder of this machine"),
        ({"working_dir": "file:///no/such.zip?token=secret"}, ClusterError, "file:///no/such.zip cannot be fetched"),
    ],
)
def test_what_is_not_there(tmp_path: Path, asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        local_environment(asked, tmp_path)


def test_a_broken_archive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.zip cannot be unpacked"):
        local_environment({"working_dir": str(write(tmp_path / "a.zip", "no zip"))}, tmp_path / "run")


def test_variables_are_expanded_as_ray_does() -> None:
    assert LocalEnvironment().for_ray() == {}
    own = LocalEnvironment(
        env_vars={"PATH": "/mine:${PATH}", "A": "$HOME/x", "B": "${A}", "C": "${NOT_THERE}-", "D": "$not_there"}
    )
    expanded = own.expanded({"PATH": "/bin", "HOME": "/h", "KEPT": "1"})
    assert expanded == {
        "PATH": "/mine:/bin", "HOME": "/h", "KEPT": "1", "A": "/h/x", "B": "/h/x", "C": "-", "D": "$not_there"
    }  # fmt: skip


def test_the_order_of_the_import_path() -> None:
    assert LocalEnvironment().for_ray() == {}
    own = LocalEnvironment(modules=("/modules",), working_dir=Path("/work"))
    assert pythonpath(own, "/a:/b:", ["/site", "/a"]) == "/modules:/work:/a:/b:/site"
