"""Relative paths of a config: beside the config file, or beside the DAG file, wherever a process runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks._runtime_env import packaged
from airflow_provider_raynode.operators._resolve import load_config

RELATIVE = {
    "working_dir": "assets",
    "py_modules": ["libs/mod", "one.py", "s3://bucket/m.zip"],
    "pip": "requirements.txt",
}


def config(environment: dict[str, Any]) -> dict[str, Any]:
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    return {
        "ray_cluster": {"address": "http://127.0.0.1:8265", "runtime_env": environment},
        "ray_tune": {"metric": "score", "mode": "max", "search_space": space},
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `RELATIVE` names; the process runs in another."""
    for name in ("assets/table.csv", "libs/mod/__init__.py", "one.py", "requirements.txt", "conda.yaml"):
        path = tmp_path / "dags" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("numpy\n" if name == "requirements.txt" else "name: x\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "dags"


def environment_of(loaded: RayConfig) -> dict[str, Any]:
    assert loaded.ray_cluster.runtime_env is not None
    dumped: dict[str, Any] = loaded.ray_cluster.runtime_env.model_dump(mode="json", exclude_unset=True)
    return dumped


def test_in_a_file_they_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(config(RELATIVE)))
    monkeypatch.chdir(folder.parent)
    for path in (file, str(file), "dags/search.yaml", "elsewhere/../dags/search.yaml"):
        environment = environment_of(RayConfig.load(path))
        assert Path(environment["working_dir"]).samefile(folder / "assets")
        assert Path(environment["working_dir"]).is_absolute()
        assert len(packaged(environment)[1]) == 4  # with this package
    environment = environment_of(RayConfig.load(file))
    assert environment == {
        "working_dir": str(folder / "assets"),
        "py_modules": [str(folder / "libs/mod"), str(folder / "one.py"), "s3://bucket/m.zip"],
        "pip": str(folder / "requirements.txt"),
    }
    assert packaged(environment)[0]["pip"] == ["numpy"]
    read_again = RayConfig.model_validate(json.loads(json.dumps(RayConfig.load(file).model_dump(mode="json"))))
    assert environment_of(read_again)["working_dir"] == str(folder / "assets")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"uv": {"packages": "requirements.txt"}}, {"uv": {"packages": "{}/requirements.txt"}}),
        ({"conda": "conda.yaml"}, {"conda": "{}/conda.yaml"}),
        ({"conda": "an-environment"}, {"conda": "an-environment"}),
        ({"working_dir": "https://host/w.zip"}, {"working_dir": "https://host/w.zip"}),
        ({"working_dir": "."}, {"working_dir": "{}"}),
        ({"pip": ["numpy"]}, {"pip": ["numpy"]}),
        ({"working_dir": "/no/such"}, {"working_dir": "/no/such"}),
    ],
)
def test_each_key(folder: Path, written: dict[str, Any], found: dict[str, Any]) -> None:
    (folder / "search.yaml").write_text(yaml.safe_dump(config(written)))
    expected = json.loads(json.dumps(found).replace("{}", str(folder)))
    assert environment_of(RayConfig.load(folder / "search.yaml")) == expected


def test_a_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "search.yaml").write_text(yaml.safe_dump(config({"working_dir": "~/assets"})))
    assert environment_of(RayConfig.load(folder / "search.yaml"))["working_dir"] == str(folder / "assets")


def test_in_a_dict_they_are_relative_to_the_dag_file(folder: Path) -> None:
    dag = DAG("d", schedule=None)
    dag.fileloc = str(folder / "dag.py")
    for given in (config(RELATIVE), RayConfig.model_validate(config(RELATIVE))):
        assert environment_of(load_config(given, dag))["working_dir"] == str(folder / "assets")
    elsewhere = DAG("e", schedule=None, template_searchpath=[str(folder)])
    elsewhere.fileloc = str(folder.parent / "dag.py")
    assert environment_of(load_config(config(RELATIVE), elsewhere))["pip"] == str(folder / "requirements.txt")


def test_without_a_dag_a_dict_keeps_them(folder: Path) -> None:
    assert environment_of(RayConfig.load(config(RELATIVE))) == RELATIVE


def test_what_is_nowhere_is_said_with_the_places(folder: Path) -> None:
    wrong = {"working_dir": "asets", "py_modules": ["libs/mod", "libs/mood"]}
    (folder / "search.yaml").write_text(yaml.safe_dump(config(wrong)))
    with pytest.raises(ConfigError) as raised:
        RayConfig.load(folder / "search.yaml")
    source = folder / "search.yaml"
    assert str(raised.value).splitlines() == [
        f"{source}: ray_cluster.runtime_env.working_dir: 'asets' does not exist; looked in {folder}",
        f"{source}: ray_cluster.runtime_env.py_modules[1]: 'libs/mood' does not exist; looked in {folder}",
    ]
    dag = DAG("d", schedule=None, template_searchpath="/templates")
    dag.fileloc = str(folder / "dag.py")
    with pytest.raises(ConfigError, match=rf"working_dir: 'asets' does not exist; looked in {folder}, /templates"):
        load_config(config(wrong), dag)


def test_the_policy_of_an_earlier_search(folder: Path) -> None:
    replay = {"type": "pbt_replay", "policy_file": "one.py"}
    written = {"ray_tune": {"metric": "score", "mode": "max", "search_space": {}, "scheduler": replay}}

    def path(loaded: RayConfig) -> str:
        assert loaded.ray_tune is not None
        return str(getattr(loaded.ray_tune.scheduler, "policy_file", None))

    (folder / "search.yaml").write_text(yaml.safe_dump(written))
    assert path(RayConfig.load(folder / "search.yaml")) == str(folder / "one.py")
    replay["policy_file"] = "in_the_working_dir.txt"
    (folder / "search.yaml").write_text(yaml.safe_dump(written))
    assert path(RayConfig.load(folder / "search.yaml")) == "in_the_working_dir.txt"
