"""Which folders a DAG file may import from, where no Airflow deployment says so.

No import of Airflow here: it is used before the environment of a run is made.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow_provider_raynode.config._section import did_you_mean


def make_importable(file: Path) -> None:
    """Put the folders of a DAG file on the import path, as Airflow does with its DAG folder.

    Which folder that is in a deployment, the file does not say: it may be the file's own, or one above. So these follow
    each other: the file's folder, the one around its packages, a folder above called `dags`, and Airflow's own
    `dags_folder` where the file lies in it.
    """
    folders = [file.parent]
    around = file.parent
    while (around / "__init__.py").is_file() and around != around.parent:
        around = around.parent
    folders.append(around)
    root = next((folder for folder in file.parents if folder.name == "dags"), None)
    configured = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER", "").strip()
    roots = [root, Path(configured).expanduser() if configured else None]
    folders += [folder for folder in roots if folder is not None and file.is_relative_to(folder)]
    for each in folders:
        if str(each) not in sys.path:
            sys.path.append(str(each))


def no_such_file(file: Path) -> str:
    """Return what is to be said of a DAG file that is not there, with the nearest one of its folder."""
    if file.is_dir():
        return "is a folder; give the path of a DAG file"
    others = [each.name for each in file.parent.glob("*.py")] if file.parent.is_dir() else []
    return f"no such file{did_you_mean(file.name, others)} give the path of a DAG file"
