"""A DAG file below the DAGs folder imports from that folder, and keeps its place in the pods."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_raynode.argo.import_path import dags_root, make_importable
from airflow_provider_raynode.argo.settings import ArgoSettings
from airflow_provider_raynode.exceptions import DagFileError

DAG_FILE = """
from airflow.sdk import DAG, task
from team.util import f
from common import g

with DAG("nested", schedule=None):
    @task
    def both():
        return f() + g()
    both()
"""


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A DAGs folder that is not called so, with a package and a module of one name in two places."""
    root = tmp_path / "flows"
    (root / "team").mkdir(parents=True)
    (root / "team" / "x.py").write_text(DAG_FILE)
    (root / "team" / "util.py").write_text("from common import g\n\n\ndef f():\n    return 1 + g()\n")
    (root / "common.py").write_text("def g():\n    return 10\n")
    (root / "team" / "common.py").write_text("def g():\n    return 1000\n")
    return root


def raynode(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Call raynode in a process of its own: what is imported there is imported for good."""
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_raynode.cli", *arguments],
        env={**{k: v for k, v in os.environ.items() if k != "AIRFLOW__CORE__DAGS_FOLDER"}, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def args_of(text: str) -> list[str]:
    (manifest,) = yaml.safe_load_all(text)
    return list(manifest["spec"]["templateDefaults"]["script"]["args"])


def test_the_remedy_is_named_and_helps(flows: Path) -> None:
    file = str(flows / "team" / "x.py")
    done = raynode("argo", "export", file)
    assert done.returncode == 2
    assert "line 3: ModuleNotFoundError: No module named 'team'; no DAGs folder is known" in done.stderr
    assert f"give --dags-folder {flows}, or set AIRFLOW__CORE__DAGS_FOLDER" in done.stderr
    done = raynode("argo", "export", file, "--dags-folder", str(flows))
    arguments = args_of(done.stdout)
    assert arguments[:2] == ["--pipeline-file=/opt/raynode/dags/team/x.py", "--dags-folder=/opt/raynode/dags"]


def test_a_pod_imports_as_airflow_does(flows: Path, tmp_path: Path) -> None:
    settings = tmp_path / "argo.yaml"
    settings.write_text(yaml.safe_dump({"dag_source": {"image": {"path": str(flows)}}}))
    file = str(flows / "team" / "x.py")
    done = raynode("argo", "export", file, "--settings", str(settings), AIRFLOW__CORE__DAGS_FOLDER=str(flows))
    place = [each for each in args_of(done.stdout) if each.startswith(("--pipeline-file", "--dags-folder"))]
    assert place == [f"--pipeline-file={file}", f"--dags-folder={flows}"]
    catalog = {"AIRFLOW__RAYNODE__CATALOG": str(tmp_path / "catalog")}
    done = raynode("argo", "run-task", *place, "--step-name=both", "--run-id=r", **catalog)
    assert done.returncode == 0, done.stdout + done.stderr
    (value,) = (tmp_path / "catalog").rglob("return_value.json")
    assert value.read_text() == "21", "common is the DAGs folder's, not the one beside the file"


@pytest.mark.parametrize(
    ("env", "given", "root"),
    [
        ({}, None, None),
        ({"AIRFLOW__CORE__DAGS_FOLDER": "flows"}, None, "flows"),
        ({"AIRFLOW__CORE__DAGS_FOLDER": "elsewhere"}, None, None),
        ({"AIRFLOW__CORE__DAGS_FOLDER": "elsewhere"}, "flows", "flows"),
        ({"AIRFLOW__CORE__DAGS_FOLDER": "link"}, None, "flows"),
        ({"AIRFLOW_HOME": "home"}, None, "flows"),
    ],
)
def test_which_folder_it_is(
    env: dict[str, str], given: str | None, root: str | None, flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = flows.parent
    (folder / "link").symlink_to(flows)
    (folder / "home").mkdir()
    (folder / "home" / "airflow.cfg").write_text(f"[core]\ndags_folder = {flows}\nother = 100%\n")
    monkeypatch.delenv("AIRFLOW__CORE__DAGS_FOLDER", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(folder / "nothing"))
    for name, value in env.items():
        monkeypatch.setenv(name, str(folder / value))
    found = dags_root(flows / "team" / "x.py", folder / given if given else None)
    assert found == (None if root is None else folder / root)


def test_a_folder_called_dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__CORE__DAGS_FOLDER", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "dags" / "team" / "x.py"
    make_importable(file)
    assert sys.path[-2:] == [str(tmp_path / "dags"), str(tmp_path / "dags" / "team")]


@pytest.mark.parametrize(("folder", "why"), [("other", "does not hold"), ("nowhere", "is no folder, and cannot hold")])
def test_a_folder_that_does_not_hold_the_file(folder: str, why: str, flows: Path) -> None:
    (flows.parent / "other").mkdir()
    with pytest.raises(DagFileError, match=f"--dags-folder: .*{folder} {why} .*x.py: name a folder above the DAG file"):
        dags_root(flows / "team" / "x.py", flows.parent / folder)


GIT = {"repository": "https://git/r"}


@pytest.mark.parametrize(
    ("source", "file", "folder"),
    [
        ({"image": {}}, "/opt/raynode/dags/team/x.py", "/opt/raynode/dags"),
        ({"image": {"path": "/srv/flows/"}}, "/srv/flows/team/x.py", "/srv/flows"),
        # The path of the file's own folder, and of the file itself, are taken as well.
        ({"image": {"path": "/srv/flows/team"}}, "/srv/flows/team/x.py", "/srv/flows"),
        ({"image": {"path": "/srv/flows/team/x.py"}}, "/srv/flows/team/x.py", "/srv/flows"),
        ({"image": {"path": "/srv/x.py"}}, "/srv/x.py", "/srv"),
        ({"git": {**GIT, "path": "."}}, "/opt/raynode/dags/team/x.py", "/opt/raynode/dags"),
        ({"git": {**GIT, "path": "flows"}}, "/opt/raynode/dags/flows/team/x.py", "/opt/raynode/dags/flows"),
        ({"git": {**GIT, "path": "flows/team"}}, "/opt/raynode/dags/flows/team/x.py", "/opt/raynode/dags/flows"),
        ({"config_map": {"name": "files"}}, "/opt/raynode/dags/team/x.py", "/opt/raynode/dags"),
    ],
)
def test_the_place_in_the_pods(source: dict[str, Any], file: str, folder: str, flows: Path) -> None:
    dag_file = flows / "team" / "x.py"
    settings = ArgoSettings.load({"dag_source": source}).placed(dag_file, flows)
    assert (settings.pipeline_file(dag_file), settings.dags_folder(dag_file)) == (file, folder)


def test_a_config_map_keeps_the_places(flows: Path) -> None:
    dag_file = flows / "team" / "x.py"
    source = {"config_map": {"name": "files", "files": ["util.py", "team/common.py", "common.py"]}}
    (flows / "team" / "common.py").unlink()
    (flows / "team" / "common.py").touch()
    settings = ArgoSettings.load({"dag_source": source}).placed(dag_file, flows)
    (manifest,) = settings.manifests(dag_file)
    assert set(manifest["data"]) == {"x.py", "util.py", "team__common.py", "common.py"}
    (volume,) = [
        each for each in settings.pod_for("t", ()).template_fields()["volumes"] if each["name"] == "raynode-dag"
    ]
    items = {each["key"]: each["path"] for each in volume["projected"]["sources"][1]["configMap"]["items"]}
    assert items == {
        "x.py": "team/x.py",
        "util.py": "team/util.py",
        "team__common.py": "team/common.py",
        "common.py": "team/common.py",
    }
