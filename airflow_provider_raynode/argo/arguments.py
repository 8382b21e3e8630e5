"""The arguments of `raynode argo …`; the pods parse them too, so this imports nothing else."""

from __future__ import annotations

import argparse

KINDS = ("auto", "workflow", "template", "cron")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo export`."""
    parser.add_argument("dag_file", metavar="DAG_FILE", help="path of the DAG file")
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    parser.add_argument("--settings", metavar="FILE", help="settings file (YAML): image, catalog, resources, …")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write the manifests; default: stdout")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="auto",
        help="Workflow, WorkflowTemplate or CronWorkflow; auto (the default): as the DAG's schedule asks for",
    )
    parser.add_argument(
        "--ray",
        choices=("submit", "rayjob"),
        default="submit",
        help="how a Ray node's job runs: submitted by its pods as in Airflow (the default), or as a RayJob of KubeRay",
    )
    parser.add_argument(
        "--allow",
        metavar="FEATURE",
        action="append",
        default=[],
        help="export in spite of a feature that Argo has not; may be given several times",
    )


def add_lint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo lint`."""
    parser.add_argument("file", metavar="FILE", help="Argo manifests (YAML)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def add_run_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo run-task`."""
    from airflow_provider_raynode.argo import run_task

    run_task.add_run_task_arguments(parser)


def add_run_callbacks_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo run-callbacks`."""
    from airflow_provider_raynode.argo import callbacks

    callbacks.add_run_callbacks_arguments(parser)
