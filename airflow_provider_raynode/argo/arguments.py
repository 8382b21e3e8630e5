"""The arguments of `raynode argo …`; the pods parse them too, so this imports nothing else."""

from __future__ import annotations

import argparse

KINDS = ("auto", "workflow", "template", "cron")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo export`."""
    parser.add_argument("dag_file", metavar="DAG_FILE", help="path of the DAG file")
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    add_dags_folder(parser)
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
    parser.add_argument("--pipeline-file", required=True, metavar="FILE", help="the DAG file")
    add_dags_folder(parser)
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    parser.add_argument("--step-name", required=True, metavar="TASK", help="id of the task")
    parser.add_argument("--run-id", required=True, help="id of the run: tasks of one run share it")
    parser.add_argument("--configuration-file", default="", metavar="FILE", help="settings of the runner (YAML)")
    parser.add_argument("--ray-config-file", default="", metavar="FILE", help="Ray config in the place of the node's")
    parser.add_argument(
        "--map-variable",
        default="{}",
        metavar="JSON",
        help='which instance of a mapped task: {"map_index": 2}, or its map variables by name: {"dataset": "wine"}',
    )
    parser.add_argument(
        "--map-index", default="", metavar="N", help='the same by its number: short for {"map_index": N}'
    )
    parser.add_argument("--tag", default="", help="a label for the task's record")
    parser.add_argument("--parameters-file", default="", metavar="FILE", help="the run's params (YAML or JSON)")
    _add_run_file(parser)
    parser.add_argument("--logical-date", default="", metavar="ISO", help="date that the run is for")
    parser.add_argument("--scheduled-time", default="", metavar="ISO", help="time that the cron schedule asked for")
    parser.add_argument("--run-after", default="", metavar="ISO", help="when the run was submitted; default: now")
    parser.add_argument("--retries", default="0", metavar="N", help="earlier tries of this node, Argo's {{retries}}")
    parser.add_argument("--max-retries", type=int, metavar="N", help="how often Argo tries again; default: the task's")
    parser.add_argument("--structure", default="", metavar="HASH", help="refuse a DAG of another structure")
    parser.add_argument("--outputs", default="", metavar="FOLDER", help="where to write Argo's output parameters")
    parser.add_argument(
        "--decide",
        choices=("controller", "pod"),
        default="controller",
        help="who applies the trigger rule: Argo already has (the default), or this call does",
    )
    _add_record_runs(parser, "the DAG's runs are recorded when they have succeeded: prev_…_success may be asked for")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="run nothing: decide what becomes of the task or group, and count its map indexes",
    )
    parser.add_argument("--ray", choices=("submit", "rayjob"), default="submit", help="how a Ray node's job runs")


def _add_run_file(parser: argparse.ArgumentParser) -> None:
    what = "file of the run's parameters as Argo has them: base64 of a JSON object with a text for each"
    parser.add_argument("run_file", nargs="?", default="", metavar="RUN_FILE", help=what)


def add_run_callbacks_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo run-callbacks`."""
    parser.add_argument("--pipeline-file", required=True, metavar="FILE", help="the DAG file")
    add_dags_folder(parser)
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    parser.add_argument("--run-id", required=True, help="id of the run")
    _add_record_runs(parser, "record that the run has succeeded, for later runs of the DAG")
    parser.add_argument("--status", required=True, help="how the workflow ended, Argo's {{workflow.status}}")
    parser.add_argument("--configuration-file", default="", metavar="FILE", help="settings of the runner (YAML)")
    parser.add_argument("--parameters-file", default="", metavar="FILE", help="the run's params (YAML or JSON)")
    _add_run_file(parser)
    for name in ("--logical-date", "--scheduled-time", "--run-after"):
        parser.add_argument(name, default="", metavar="ISO", help="as in run-task")
    parser.add_argument("--structure", default="", metavar="HASH", help="structure of the exported DAG")
    parser.add_argument(
        "--end-ray-jobs", default="", metavar="UID", help="first end the RayJobs of the workflow with this uid"
    )


def add_end_ray_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo end-ray-jobs`."""
    parser.add_argument("--workflow-uid", required=True, metavar="UID", help="Argo's {{workflow.uid}}")
    parser.add_argument("--status", default="", help="how the workflow ended, Argo's {{workflow.status}}")


def add_make_way_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode argo make-way`."""
    parser.add_argument("--name", required=True, help="name of the RayJob that is about to be applied")
    parser.add_argument("--spec-sha256", required=True, metavar="HEX", help="digest of the spec that it runs")


def add_dags_folder(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where a DAG file's imports begin."""
    parser.add_argument(
        "--dags-folder",
        metavar="FOLDER",
        help="the folder that the DAG file's imports begin in; default: Airflow's, or the nearest above called dags",
    )


def _add_record_runs(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--record-runs", action="store_true", help=text)
