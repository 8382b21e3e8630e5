"""`raynode argo run-callbacks`: the callbacks of a DAG whose workflow has ended, in its exit handler."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.outcome import EXIT_FAILED, EXIT_SUCCESS, EXIT_WRONG_CALL
from airflow_provider_raynode.argo.runner_configuration import RunnerConfiguration
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

log = logging.getLogger(__name__)


def add_run_callbacks_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo run-callbacks`."""
    parser.add_argument("--pipeline-file", required=True, metavar="FILE", help="the DAG file")
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    parser.add_argument("--run-id", required=True, help="id of the run")
    parser.add_argument("--status", required=True, help="how the workflow ended, Argo's {{workflow.status}}")
    parser.add_argument("--configuration-file", default="", metavar="FILE", help="settings of the runner (YAML)")
    parser.add_argument("--parameters-file", default="", metavar="FILE", help="the run's params (YAML or JSON)")
    parser.add_argument("--parameters", default="", metavar="JSON", help="the same, as Argo's workflow.parameters.json")
    for name in ("--logical-date", "--scheduled-time", "--run-after"):
        parser.add_argument(name, default="", metavar="ISO", help="as in run-task")
    parser.add_argument("--structure", default="", metavar="HASH", help="structure of the exported DAG")


def run_callbacks_command(args: argparse.Namespace) -> int:
    """Run the callbacks that fit the status; the exit code tells whether all of them went well."""
    try:
        configuration = RunnerConfiguration.load(args.configuration_file)
        configuration.apply()
        from airflow_provider_raynode.argo.dag_file import load_dag
        from airflow_provider_raynode.argo.run_task import run_info
        from airflow_provider_raynode.argo.task_sdk import container_logs

        with container_logs(configuration.log_level):
            dag = load_dag(args.pipeline_file, args.dag_id)
            succeeded = args.status == "Succeeded"
            callbacks = dag.on_success_callback if succeeded else dag.on_failure_callback
            return _run(dag, _as_list(callbacks), run_info(dag, args), succeeded=succeeded, status=args.status)
    except RayNodeError as error:
        print(f"raynode: {error}", file=sys.stderr)
        return EXIT_WRONG_CALL


def _run(dag: DAG, callbacks: list[Callable[..., Any]], info: Any, *, succeeded: bool, status: str) -> int:
    dag_run = SimpleNamespace(
        dag_id=dag.dag_id,
        run_id=info.run_id,
        logical_date=info.dates.logical_date,
        data_interval_start=info.dates.interval_start,
        data_interval_end=info.dates.interval_end,
        run_after=info.run_after,
        conf=info.params,
        state="success" if succeeded else "failed",
    )
    context = {
        "dag": dag,
        "dag_run": dag_run,
        "run_id": info.run_id,
        "logical_date": info.dates.logical_date,
        "params": {**{name: dag.params[name] for name in dag.params}, **info.params},
        "reason": "success" if succeeded else f"task_failure ({status})",
    }
    failed = 0
    for callback in callbacks:
        try:
            callback(context)
        except Exception:
            failed += 1
            log.exception("The callback %s failed", getattr(callback, "__qualname__", callback))
    log.info("raynode: %d callbacks of %s for %s", len(callbacks), dag.dag_id, status)
    return EXIT_FAILED if failed else EXIT_SUCCESS


def _as_list(callbacks: Any) -> list[Callable[..., Any]]:
    if not callbacks:
        return []
    return list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
