"""One run of a DAG in this process, over Airflow's own test facility."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from airflow_provider_raynode.argo.import_path import import_remedy, make_importable, no_such_file
from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.exceptions import DagFileError
from airflow_provider_raynode.operators._in_process import ends_with
from airflow_provider_raynode.run.conf import check_conf
from airflow_provider_raynode.run.environment import airflow_environment, output_to, prints_to

if TYPE_CHECKING:
    from airflow.sdk import DAG

_FRAME = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)
_OUR_WARNING = re.compile(r"(?P<place>.+?:\d+): airflow_provider_raynode\.exceptions\.\w+: (?P<text>.*)", re.DOTALL)


class _Stops:
    """SIGINT and SIGTERM: raised as KeyboardInterrupt where the run is, so that the task that runs cleans up.

    Airflow's task runner takes that for the task's failure and goes on with the run, so it is remembered here for
    `check`, which ends the run for good.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals here; put the former handlers back at the end."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt when one of the signals has come."""
        if self.received is not None:
            raise KeyboardInterrupt

    def take_over(self, task: Any) -> None:
        """Handle SIGTERM here again: Airflow's task runner has set its own, which lets the run go on."""

        def stop(number: int, frame: object) -> None:
            task.on_kill()
            self._stop(number, frame)

        signal.signal(signal.SIGTERM, stop)

    def note(self, number: int) -> None:
        """Remember a signal that a task of a node has taken, for `check`."""
        self.received = number

    def end(self, number: int) -> None:
        """End the run for a signal that a task of a node has taken."""
        self._stop(number, None)

    def _stop(self, number: int, _: object) -> None:
        self.received = number
        raise KeyboardInterrupt


def run_dag(
    file: str | Path,
    *,
    dag_id: str | None = None,
    conf: dict[str, Any] | None = None,
    verbose: bool = False,
    dags_folder: str | Path | None = None,
) -> int:
    """Run the DAG in `file` once, here, with no services; show its progress and its results on stdout.

    :param file: path of the DAG file.
    :param dag_id: which DAG, where the file holds several.
    :param conf: the run's conf, as `params` of the DAG see it.
    :param verbose: show Airflow's whole log in place of the live view.
    :param dags_folder: the folder that the file's imports begin in; else Airflow's own, or one above called `dags`.
    :return: the exit code: 0 success, 1 the run failed, 130 interrupted, 143 terminated.
    :raises DagFileError: see the class.
    """
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise DagFileError(f"{file}: {no_such_file(path)}")
    make_importable(path, dags_folder)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    stops = _Stops()
    with airflow_environment() as home, stops.handled(), ends_with(stops.end, stops.note):
        log = home / "run_logs" / f"{path.stem}-{stamp}.log"
        try:
            if verbose:
                return _run(path, dag_id, conf, sys.stdout, stops, log=None)
            with output_to(log) as terminal:
                return _run(path, dag_id, conf, terminal, stops, log=log)
        except KeyboardInterrupt:
            print("\nStopped; no Ray process of this run is left.", file=sys.stderr)
            return 128 + (stops.received or signal.SIGINT)


def _run(
    path: Path,
    dag_id: str | None,
    conf: dict[str, Any] | None,
    stream: TextIO,
    stops: _Stops,
    *,
    log: Path | None,
) -> int:
    from airflow_provider_raynode.operators._progress import observe
    from airflow_provider_raynode.run.display import RunDisplay
    from airflow_provider_raynode.run.results import place, show_results

    display = RunDisplay(stream)
    with display.waiting("Starting Airflow …") if log else contextlib.nullcontext():
        dag, warnings = _load(path, dag_id)
        warnings += check_conf(dag, conf)
    for warning in warnings:
        display.console.print(f"Warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    from airflow.sdk.listener import get_listener_manager

    from airflow_provider_raynode.run.listener import RunListener

    listener = RunListener(display, stops.check, stops.take_over)
    get_listener_manager().add_listener(listener)
    task_ids = [task.task_id for task in dag.topological_sort()]
    display.start(task_ids, f"{dag.dag_id}  ({path.name})") if log else None
    try:
        with observe(display.progress), prints_to(display.printed) if log else contextlib.nullcontext():
            dag_run = dag.test(run_conf=conf)
        stops.check()
    finally:
        display.stop()
    ended = str(getattr(dag_run.state, "value", dag_run.state))
    show_results(display.console, dag, dag_run)
    if log is not None:
        display.console.print(f"Log: {place(str(log))}", markup=False, soft_wrap=True)
    if ended == "success":
        return 0
    display.console.print(f"The run of {dag.dag_id} ended as {ended}.", style="red", markup=False)
    return 1


def _load(path: Path, dag_id: str | None) -> tuple[DAG, list[str]]:
    """Return the DAG, and what its nodes and their configs warn of."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils import db

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(tempfile.gettempdir(), collect_dags=False)
    found = {dag.dag_id: dag for dag in bag.process_file(str(path), only_if_updated=False, safe_mode=False)}
    if bag.import_errors:
        remedies = map(_import_remedy, bag.import_errors.values(), bag.import_errors)
        errors = (_import_error(text, name) for name, text in bag.import_errors.items())
        raise DagFileError("\n".join(map("".join, zip(errors, remedies, strict=True))))
    if not found:
        raise DagFileError(f"{path}: there is no DAG in this file (is the @dag function called at its end?)")
    if dag_id is None and len(found) > 1:
        raise DagFileError(f"{path} holds several DAGs: choose one with --dag-id {{{','.join(sorted(found))}}}")
    if dag_id is not None and dag_id not in found:
        near = did_you_mean(dag_id, found)
        raise DagFileError(f"{path} holds no DAG {dag_id!r}{near} it has: {', '.join(sorted(found))}")
    dag: DAG = found[dag_id] if dag_id is not None else next(iter(found.values()))
    sync_bag_to_db(bag, "dags-folder", None)
    return dag, _warnings(text for told in bag.captured_warnings.values() for text in told)


def _warnings(captured: Iterable[str]) -> list[str]:
    """Return our own warnings, each with its place, of those that Airflow has captured as texts."""
    found = (_OUR_WARNING.fullmatch(text) for text in captured)
    return list(dict.fromkeys(f"{each['place']}: {each['text']}" for each in found if each))


def _import_remedy(text: str, file: str) -> str:
    """Return what helps where a module was not found, of an import error that Airflow keeps as a text."""
    found = re.search(r"^ModuleNotFoundError: No module named '([\w.]+)'", text, re.MULTILINE)
    return import_remedy(ModuleNotFoundError(name=found[1]), Path(file)) if found else ""


def _import_error(text: str, file: str = "") -> str:
    """Return the part of an import error that its reader needs: our own errors with their place, without the stack."""
    marker = "airflow_provider_raynode.exceptions."
    _, found, rest = text.rpartition(f"\n{marker}")
    if not found:
        return text.strip()
    message = rest.partition(": ")[2].strip()
    lines = [line for frame, line in _FRAME.findall(text) if frame == file]
    return f"{file}, line {lines[-1]}: {message}" if lines and not message.startswith(file) else message
