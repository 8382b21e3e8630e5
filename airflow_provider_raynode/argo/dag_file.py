"""The live DAG of a file: the module is run as Airflow's DAG processor runs it, with no database and no scheduler."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_raynode.argo.import_path import import_remedy, make_importable, no_such_file
from airflow_provider_raynode.argo.task_sdk._dag import registering
from airflow_provider_raynode.exceptions import DagFileError, RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

_OURS = "airflow_provider_raynode."


def load_dags(path: str | Path, *, dags_folder: str | Path | None = None) -> dict[str, DAG]:
    """Return the DAGs of a file by id.

    :param dags_folder: the folder that its imports begin in; else as `import_path.dags_root` finds it.
    :raises DagFileError: there is no such file, it fails, or it holds no DAG.
    """
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise DagFileError(f"{path}: {no_such_file(file)}")
    dags = _run(file, dags_folder)
    if not dags:
        raise DagFileError(f"{file}: there is no DAG in this file (is the @dag function called at its end?)")
    return dags


def load_dag(path: str | Path, dag_id: str | None = None, *, dags_folder: str | Path | None = None) -> DAG:
    """Return the DAG of a file.

    :param dag_id: which one, where the file holds several.
    :param dags_folder: see `load_dags`.
    :raises DagFileError: see `load_dags`; or the file holds several DAGs, or no such one.
    """
    dags = load_dags(path, dags_folder=dags_folder)
    if dag_id is None:
        if len(dags) > 1:
            raise DagFileError(f"{path} holds several DAGs: choose one with --dag-id {{{','.join(sorted(dags))}}}")
        return next(iter(dags.values()))
    if dag_id not in dags:
        # The models of the config are much to import, and a pod seldom needs them.
        from airflow_provider_raynode.config._section import did_you_mean

        near = did_you_mean(dag_id, dags)
        raise DagFileError(f"{path} holds no DAG {dag_id!r}{near} it has: {', '.join(sorted(dags))}")
    return dags[dag_id]


def _run(file: Path, dags_folder: str | Path | None) -> dict[str, DAG]:
    make_importable(file, dags_folder)
    name = _module_name(file)
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with registering(name) as registered:
            loader.exec_module(module)
            return _collect(module, registered(), file)
    except (Exception, SystemExit) as error:
        if isinstance(error, RayNodeError) and str(error).startswith(str(file)):
            # A node's error begins with its place.
            raise DagFileError(str(error)) from error
        remedy = import_remedy(error, file, dags_folder)
        raise DagFileError(f"{file}: {_told(error, file)}{remedy}") from error


def _collect(module: object, registered: list[DAG], file: Path) -> dict[str, DAG]:
    from airflow.sdk import DAG

    found = [each for each in vars(module).values() if isinstance(each, DAG)]
    found += [dag for dag in registered if all(dag is not each for each in found)]
    dags: dict[str, DAG] = {}
    for dag in found:
        if dags.setdefault(dag.dag_id, dag) is not dag:
            raise DagFileError(f"two DAGs of this file are called {dag.dag_id!r}")
        dag.fileloc = str(file)
        dag.validate()
        dag.check_cycle()
    return dags


def _module_name(file: Path) -> str:
    """Return the name that Airflow gives the module: a class that one pod pickles is found under it in another."""
    digest = hashlib.sha1(str(file).encode(), usedforsecurity=False).hexdigest()
    return f"unusual_prefix_{digest}_{re.sub(r'[.-]', '_', file.stem)}"


def _told(error: BaseException, file: Path) -> str:
    """Return the error with the line of the file that it came from; our own errors speak for themselves."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f"line {lines[-1]}: " if lines else ""
    kind = "" if type(error).__module__.startswith(_OURS) else f"{type(error).__name__}: "
    return f"{where}{kind}{error}"
