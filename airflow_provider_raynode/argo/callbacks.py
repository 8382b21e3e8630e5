"""`raynode argo run-callbacks`: what a DAG whose workflow has ended leaves to its exit handler, callbacks above all."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.airflow_options import configured
from airflow_provider_raynode.argo.outcome import EXIT_SUCCESS, EXIT_WRONG_CALL
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.records import RunStore
    from airflow_provider_raynode.argo.task_sdk import DagRunInfo

log = logging.getLogger(__name__)


def run_callbacks_command(args: argparse.Namespace) -> int:
    """Run the callbacks that fit the status. One that fails is logged: as in Airflow, the run is what it was."""
    ended = EXIT_SUCCESS
    if args.end_ray_jobs:
        # First: a callback may take its time, or hang. In this pod: of an exit handler that is a DAG, some releases of
        # Argo run no second task after `argo stop`.
        from airflow_provider_raynode.argo.end_ray_jobs import end_ray_jobs

        ended = end_ray_jobs(args.end_ray_jobs, args.status)
    return _run_callbacks(args) or ended


def _run_callbacks(args: argparse.Namespace) -> int:
    try:
        with configured(args.configuration_file):
            from airflow_provider_raynode.argo.task_sdk import container_logs, dag_callback_context, import_task_runner

            import_task_runner(own_process=True)
            from airflow_provider_raynode.argo.dag_file import load_dag
            from airflow_provider_raynode.argo.records import RunStore
            from airflow_provider_raynode.argo.run_info import run_info
            from airflow_provider_raynode.hooks.catalog import catalog_for

            with container_logs():
                dag = load_dag(args.pipeline_file, args.dag_id, dags_folder=args.dags_folder)
                succeeded = args.status == "Succeeded"
                callbacks = _as_list(dag.on_success_callback if succeeded else dag.on_failure_callback)
                log.info("raynode: %s is %s: %d callbacks", dag.dag_id, args.status, len(callbacks))
                if not callbacks and not args.record_runs:
                    return EXIT_SUCCESS
                store, info = RunStore(catalog_for(), dag.dag_id, args.run_id), run_info(dag, args)
                if args.record_runs:
                    # First, as Airflow sets the run's state before it calls anybody.
                    _record(store, info, succeeded=succeeded)
                if not callbacks:
                    return EXIT_SUCCESS
                with dag_callback_context(dag, store, info, succeeded=succeeded) as context:
                    return _run(callbacks, context)
    except RayNodeError as error:
        print(f"raynode: {error}", file=sys.stderr)
        return EXIT_WRONG_CALL


def _record(store: RunStore, info: DagRunInfo, *, succeeded: bool) -> None:
    """Record that a run succeeded; forget it where it did before and was tried again."""
    from airflow_provider_raynode.argo.earlier_runs import EarlierRuns, SucceededRun

    runs, dates = EarlierRuns(store.catalog, store.dag_id), info.dates
    if not succeeded:
        runs.remove(info.run_id, dates.logical_date)
        return
    runs.add(
        SucceededRun(
            dag_id=store.dag_id,
            run_id=info.run_id,
            logical_date=dates.logical_date,
            data_interval_start=dates.interval_start,
            data_interval_end=dates.interval_end,
            start_date=info.run_after,
            end_date=datetime.now(UTC),
            scheduled=dates.scheduled,
        )
    )


def _run(callbacks: list[Callable[..., Any]], context: dict[str, Any]) -> int:
    for callback in callbacks:
        try:
            callback(context)
        except Exception:
            log.exception("The callback %s failed", getattr(callback, "__qualname__", callback))
    return EXIT_SUCCESS


def _as_list(callbacks: Any) -> list[Callable[..., Any]]:
    if not callbacks:
        return []
    return list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
