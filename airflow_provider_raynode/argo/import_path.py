"""Which folders a DAG file may import from, and where it lies in its DAGs folder.

No import of Airflow here: it is used before the environment of a run is made.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path, PurePosixPath

from airflow_provider_raynode.exceptions import DagFileError

_VARIABLE = "AIRFLOW__CORE__DAGS_FOLDER"


def make_importable(file: Path, dags_folder: str | Path | None = None) -> None:
    """Put the folders of a DAG file on the import path, as Airflow does with its DAGs folder.

    The DAGs folder comes first where it is known. The file's own folder and the one around its packages follow: that
    a file lies at the top of its DAGs folder is the usual case where nothing is said.
    """
    folders = [] if (root := dags_root(file, dags_folder)) is None else [root]
    folders.append(file.parent)
    around = file.parent
    while (around / "__init__.py").is_file() and around != around.parent:
        around = around.parent
    folders.append(around)
    for each in folders:
        if str(each) not in sys.path:
            sys.path.append(str(each))


def dags_root(file: Path, dags_folder: str | Path | None = None) -> Path | None:
    """Return the DAGs folder that a file lies in, None where nothing says which.

    It is the one that is given; else Airflow's own, of its environment variable or its `airflow.cfg`; else the nearest
    folder above that is called `dags`.

    :raises DagFileError: the folder that is given does not hold the file.
    """
    file = file.expanduser().absolute()
    if dags_folder:
        folder = Path(dags_folder).expanduser().absolute()
        if (found := _around(file, folder)) is None:
            why = "does not hold" if folder.is_dir() else "is no folder, and cannot hold"
            raise DagFileError(f"--dags-folder: {dags_folder} {why} {file}: name a folder above the DAG file")
        return found
    for configured in (os.environ.get(_VARIABLE, "").strip(), _of_airflow_cfg()):
        if configured and (found := _around(file, Path(configured).expanduser().absolute())) is not None:
            return found
    return next((folder for folder in file.parents if folder.name == "dags"), None)


def below_root(file: Path, root: Path | None) -> PurePosixPath:
    """Return the folder of a DAG file below its DAGs folder: `.` where it lies at the top."""
    file = file.expanduser().absolute()
    return PurePosixPath() if root is None else PurePosixPath(file.parent.relative_to(root).as_posix())


def no_such_file(file: Path) -> str:
    """Return what is to be said of a DAG file that is not there, with the nearest one of its folder."""
    if file.is_dir():
        return "is a folder; give the path of a DAG file"
    others = [each.name for each in file.parent.glob("*.py")] if file.parent.is_dir() else []
    # The models of the config are much to import, and a pod seldom needs them.
    from airflow_provider_raynode.config._section import did_you_mean

    return f"no such file{did_you_mean(file.name, others)} give the path of a DAG file"


def import_remedy(error: BaseException, file: Path, dags_folder: str | Path | None = None) -> str:
    """Return what helps against an import that failed: empty where that was not it, or no folder above has it."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    name = error.name.partition(".")[0]
    found = [each for each in file.parents if (each / name).is_dir() or (each / f"{name}.py").is_file()]
    if not found:
        return ""
    root = dags_root(file, dags_folder)
    now = "no DAGs folder is known" if root is None else f"the DAGs folder is {root}"
    return f"; {now}, and {name} lies in {found[0]}: give --dags-folder {found[0]}, or set {_VARIABLE}"


def _around(file: Path, folder: Path) -> Path | None:
    """Return a folder as one of the file's parents, through links as well; None where it is none."""
    if file.is_relative_to(folder):
        return folder
    return next((each for each in file.parents if each.exists() and folder.exists() and each.samefile(folder)), None)


def _of_airflow_cfg() -> str:
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    parser = configparser.RawConfigParser()
    try:
        parser.read(os.environ.get("AIRFLOW_CONFIG") or home / "airflow.cfg", encoding="utf-8")
        return parser.get("core", "dags_folder", fallback="").strip().replace("{AIRFLOW_HOME}", str(home))
    except (configparser.Error, OSError, UnicodeDecodeError):
        return ""
