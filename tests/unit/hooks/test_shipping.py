"""What goes to the cluster with a job: packages and the runtime environment."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import parse_wheel_filename

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks import _package
from airflow_provider_raynode.hooks._package import Package, folder_package, own_package
from airflow_provider_raynode.hooks._runtime_env import STOP_ENV_VARS, check_local_files, merged, packaged


def names(package: Package) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(package.data)).namelist()


def tree(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_this_package_is_a_module_of_python_files() -> None:
    listed = names(own_package())
    assert "airflow_provider_raynode/__init__.py" in listed and "airflow_provider_raynode/spec.py" in listed
    assert all(name.startswith("airflow_provider_raynode/") and name.endswith(".py") for name in listed)
    assert own_package() is own_package()
    assert len(own_package().data) < 1_000_000


def test_equal_content_gives_equal_packages(tmp_path: Path) -> None:
    first = tree(tmp_path / "a" / "mod", x_DOT_py="1", sub__y_DOT_py="2")
    second = tree(tmp_path / "b" / "mod", sub__y_DOT_py="2", x_DOT_py="1")
    os.utime(second / "x.py", (1, 1))
    assert folder_package(first, as_module=True) == folder_package(second, as_module=True)
    (second / "x.py").write_text("3")
    assert folder_package(first, as_module=True).name != folder_package(second, as_module=True).name


def test_layout_and_exclusions(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "work",
        _DOT_gitignore="*.log\n/build\n",
        main_DOT_py="",
        a_DOT_log="",
        build__x_DOT_py="",
        sub___DOT_rayignore="secret.txt\n",
        sub__secret_DOT_txt="",
        sub__kept_DOT_txt="",
        sub__build__kept_DOT_py="",
        data__big_DOT_bin="",
    )
    assert {p.name for p in root.iterdir()} >= {".gitignore", "sub"}
    kept = [".gitignore", "main.py", "sub/.rayignore", "sub/build/kept.py", "sub/kept.txt"]
    assert names(folder_package(root, as_module=False, excludes=["data/"])) == kept
    assert names(folder_package(root, as_module=True, excludes=["data/"])) == [f"work/{name}" for name in kept]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = tree(tmp_path / "work", a__x_DOT_py="")
    (root / "a" / "up").symlink_to(root)
    (root / "b").symlink_to(root / "a")
    assert names(folder_package(root, as_module=False)) == ["a/x.py", "b/x.py"]


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_package, "MAX_BYTES", 2 << 20)
    root = tree(tmp_path / "work", a_DOT_py="")
    (root / "model.bin").write_bytes(os.urandom(3 << 20))
    with pytest.raises(ConfigError, match=r"more than 2 MiB zipped.*model.bin \(3 MiB\).*excludes, .gitignore"):
        folder_package(root, as_module=False)


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        (None, None, {}),
        ({"pip": ["a"]}, None, {"pip": ["a"]}),
        ({"pip": ["a"]}, {"pip": ["b"]}, {"pip": ["b"]}),
        ({"env_vars": {"A": "1", "B": "1"}}, {"env_vars": {"B": "2"}}, {"env_vars": {"A": "1", "B": "2"}}),
        ({"pip": ["a"], "env_vars": {"A": "1"}}, {"image_uri": "i"}, {"image_uri": "i", "env_vars": {"A": "1"}}),
        ({"image_uri": "i"}, {"env_vars": {"A": "1"}}, {"image_uri": "i", "env_vars": {"A": "1"}}),
        ({"image_uri": "i"}, {"pip": ["a"]}, {"pip": ["a"]}),
        ({"pip": ["a"]}, {"pip": None}, {"pip": ["a"]}),
    ],
)
def test_merging(default: dict[str, Any] | None, own: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert merged(default, own) == expected


def test_a_plain_job() -> None:
    environment, packages = packaged({})
    assert environment == {"env_vars": STOP_ENV_VARS, "py_modules": [own_package().uri]}
    assert packages == [own_package()]
    assert own_package().uri.startswith("gcs://_ray_pkg_")


def test_the_users_part_is_kept(tmp_path: Path) -> None:
    tree(tmp_path, work__x_DOT_txt="", requirements_DOT_txt="# why\nnumpy\n\npandas>2\n")
    (tmp_path / "mod").mkdir()
    (tmp_path / "mod" / "__init__.py").write_text("")
    environment, packages = packaged(
        {
            "working_dir": str(tmp_path / "work"),
            "py_modules": ["s3://bucket/m.zip", str(tmp_path / "mod")],
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "5", "A": "b"},
            "pip": str(tmp_path / "requirements.txt"),
            "excludes": ["*.x"],
            "config": {"eager_install": True},
        }
    )
    own, work, module = packages
    assert environment == {
        "working_dir": work.uri,
        "py_modules": [own.uri, "s3://bucket/m.zip", module.uri],
        "env_vars": {
            "RAY_JOB_STOP_SIGNAL": "SIGINT",
            "RAY_JOB_STOP_WAIT_TIME_S": "5",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",
            "A": "b",
        },
        "pip": ["numpy", "pandas>2"],
        "config": {"eager_install": True},
    }


def test_requirements_that_include_others(tmp_path: Path) -> None:
    tree(tmp_path, a_DOT_txt="numpy\n-r sub/b.txt # more\n--requirement=c.txt\n", sub__b_DOT_txt="-r ../a.txt\nscipy\n")
    tree(tmp_path, c_DOT_txt="-i https://index\npandas @ https://host/p.whl\n")
    for pip in (str(tmp_path / "a.txt"), {"packages": str(tmp_path / "a.txt"), "pip_check": False}):
        environment, _ = packaged({"pip": pip})
        lines = environment["pip"]["packages"] if isinstance(pip, dict) else environment["pip"]
        assert lines == ["numpy", "scipy", "-i https://index", "pandas @ https://host/p.whl"]


@pytest.mark.parametrize("line", ["-e .", "./pkg", "-c limits.txt", "--find-links=wheels", "file:///x.whl"])
def test_requirements_that_name_files_of_this_machine(tmp_path: Path, line: str) -> None:
    tree(tmp_path, a_DOT_txt=line)
    with pytest.raises(ConfigError, match=r"runtime_env.uv: .*a.txt: .* names a file of this machine"):
        packaged({"uv": str(tmp_path / "a.txt")})


def test_excludes_without_a_folder_have_no_effect(tmp_path: Path) -> None:
    check_local_files({"excludes": ["*.bin"], "working_dir": str(tmp_path)})
    for environment in ({"excludes": ["*.bin"]}, {"excludes": ["*.bin"], "py_modules": ["s3://b/m.zip"]}):
        with pytest.raises(ConfigError, match="excludes has no effect"):
            check_local_files(environment)


@pytest.mark.parametrize(
    ("name", "build"), [("mine-1.0-py3-none-any.whl", "0"), ("mine-1.0-7b-cp311-cp311-linux_x86_64.whl", "7b")]
)
def test_two_wheels_of_one_name_do_not_meet_on_the_cluster(tmp_path: Path, name: str, build: str) -> None:
    wheel, uris = tmp_path / name, []
    for content in (b"one", b"two", b"one"):
        wheel.write_bytes(content)
        environment, _ = packaged({"py_modules": [str(wheel)]})
        uris.append(environment["py_modules"][1])
    assert uris[0] == uris[2] != uris[1]
    said, version, tag, platforms = parse_wheel_filename(uris[0].removeprefix("gcs://"))
    assert (said, str(version), platforms) == ("mine", "1.0", parse_wheel_filename(name)[3])
    assert f"{tag[0]}{tag[1]}".startswith(f"{build}_")


def test_with_an_image_nothing_is_shipped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    environment, packages = packaged({"container": {"image": "i"}, "env_vars": {"A": "1"}})
    assert packages == []
    assert environment == {"container": {"image": "i"}, "env_vars": {**STOP_ENV_VARS, "A": "1"}}
    assert "must have airflow-provider-raynode installed" in caplog.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"image_uri": "i", "pip": ["a"]}, "pip cannot be beside image_uri"),
        ({"working_dir": "/no/such"}, "runtime_env.working_dir: /no/such does not exist"),
        ({"working_dir": __file__}, "is neither a folder nor a .zip"),
        ({"py_modules": ["/no/such"]}, "runtime_env.py_modules: /no/such does not exist"),
        ({"pip": "/no/such.txt"}, "runtime_env.pip: /no/such.txt does not exist"),
        ({"env_vars": {"A": 1}}, "env_vars must map names to text: quote numbers"),
    ],
)
def test_wrong_environments(environment: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        packaged(environment)
