"""The command line: `raynode …`; `airflow raynode …` runs the same functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from airflow_provider_raynode import __version__
from airflow_provider_raynode.argo.arguments import add_dags_folder
from airflow_provider_raynode.exceptions import RayNodeError


def run(args: argparse.Namespace) -> int:
    """Run a DAG here with no services; see `airflow_provider_raynode.run.dag_run.run_dag`."""
    from airflow_provider_raynode.run.conf import parse_conf
    from airflow_provider_raynode.run.dag_run import run_dag

    conf = parse_conf(args.conf)
    return run_dag(args.dag_file, dag_id=args.dag_id, conf=conf, verbose=args.verbose, dags_folder=args.dags_folder)


def config_schema(args: argparse.Namespace) -> int:
    """Print the JSON schema of the Ray config file."""
    from airflow_provider_raynode.config.command import print_schema

    print_schema()
    return 0


def config_check(args: argparse.Namespace) -> int:
    """Print the resolved config, or its errors."""
    from airflow_provider_raynode.config.command import check

    return check(args.file)


def runs(args: argparse.Namespace) -> int:
    """List the recorded runs."""
    from airflow_provider_raynode.run.records import list_runs

    return list_runs(args.dag, args.catalog, limit=args.limit, as_json=args.json)


def show(args: argparse.Namespace) -> int:
    """Print one recorded run with its trials."""
    from airflow_provider_raynode.run.records import show_run

    return show_run(args.run, args.catalog, node=args.node, attempt=args.attempt, whole=args.all)


def argo_export(args: argparse.Namespace) -> int:
    """Translate a DAG to Argo manifests; see `airflow_provider_raynode.argo.export`."""
    from airflow_provider_raynode.argo.export import command

    return command(
        args.dag_file,
        dag_id=args.dag_id,
        settings=args.settings,
        output=args.output,
        kind=args.kind,
        ray=args.ray,
        allow=args.allow,
        dags_folder=args.dags_folder,
    )


def argo_lint(args: argparse.Namespace) -> int:
    """Check Argo manifests without a cluster."""
    from airflow_provider_raynode.argo.lint import command

    return command(args.file, as_json=args.json)


def argo_run_task(args: argparse.Namespace) -> int:
    """Run one task of a DAG in a pod: what the export's containers call."""
    from airflow_provider_raynode.argo.run_task import run_task_command

    return run_task_command(args)


def argo_run_callbacks(args: argparse.Namespace) -> int:
    """Run the callbacks of a DAG whose workflow has ended: what the export's exit handler calls."""
    from airflow_provider_raynode.argo.callbacks import run_callbacks_command

    return run_callbacks_command(args)


def argo_end_ray_jobs(args: argparse.Namespace) -> int:
    """End the RayJobs of a workflow that is over: what the export's exit handler calls."""
    from airflow_provider_raynode.argo.end_ray_jobs import end_ray_jobs_command

    return end_ray_jobs_command(args)


def argo_make_way(args: argparse.Namespace) -> int:
    """End what earlier tries of a RayJob left: what the export calls before it applies one."""
    from airflow_provider_raynode.argo.end_ray_jobs import make_way_command

    return make_way_command(args)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `raynode`."""
    parser = argparse.ArgumentParser(prog="raynode", description="Ray as one composite node in Airflow")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="run a DAG here, with no services, and watch it")
    add_run_arguments(command)
    command.set_defaults(function=run)

    command = commands.add_parser("runs", help="list the recorded runs of the Ray nodes")
    add_runs_arguments(command)
    command.set_defaults(function=runs)
    command = commands.add_parser("show", help="print one recorded run, with its trials")
    add_show_arguments(command)
    command.set_defaults(function=show)

    _add_argo_commands(commands.add_parser("argo", help="Argo Workflows: export a DAG, check manifests, run a task"))

    config = commands.add_parser("config", help="the Ray config file: schema, check")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    schema = actions.add_parser("schema", help="print the file's JSON schema")
    schema.set_defaults(function=config_schema)
    check = actions.add_parser("check", help="print the resolved config of FILE, or its errors")
    add_config_check_arguments(check)
    check.set_defaults(function=config_check)
    return parser


def _add_argo_commands(parser: argparse.ArgumentParser) -> None:
    from airflow_provider_raynode.argo import arguments

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, add, function in (
        ("export", "translate a DAG to Argo manifests", arguments.add_export_arguments, argo_export),
        ("lint", "check Argo manifests without a cluster", arguments.add_lint_arguments, argo_lint),
        ("run-task", "run one task of a DAG, in a pod", arguments.add_run_task_arguments, argo_run_task),
        (
            "run-callbacks",
            "run a DAG's callbacks, when its workflow has ended",
            arguments.add_run_callbacks_arguments,
            argo_run_callbacks,
        ),
        (
            "end-ray-jobs",
            "end the RayJobs of a workflow that is over",
            arguments.add_end_ray_jobs_arguments,
            argo_end_ray_jobs,
        ),
        (
            "make-way",
            "end what earlier tries of a RayJob left, before it is applied",
            arguments.add_make_way_arguments,
            argo_make_way,
        ),
    ):
        action = actions.add_parser(name, help=text)
        add(action)
        action.set_defaults(function=function)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode run`."""
    parser.add_argument("dag_file", metavar="DAG_FILE", help="path of the DAG file")
    parser.add_argument("--dag-id", help="which DAG, where the file holds several")
    add_dags_folder(parser)
    parser.add_argument("--conf", help="the run's conf, a JSON object")
    parser.add_argument("--verbose", action="store_true", help="show Airflow's whole log in place of the live view")


def add_runs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode runs`."""
    parser.add_argument("dag", nargs="?", metavar="DAG", help="only the runs of this DAG")
    parser.add_argument("--catalog", metavar="URI", help="the catalog to look in; default: that of Airflow's config")
    parser.add_argument("--limit", type=int, default=30, help="show at most so many (30)")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode show`."""
    parser.add_argument("run", metavar="RUN", help="a run id, a submission id, or DAG/RUN/NODE[/MAP_INDEX]")
    parser.add_argument("--catalog", metavar="URI", help="the catalog to look in; default: that of Airflow's config")
    parser.add_argument("--node", metavar="ID", help="which node, where the run has several")
    parser.add_argument("--attempt", type=int, help="which attempt; default: the last")
    parser.add_argument("--all", action="store_true", help="show every trial, not the best 20")


def add_config_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raynode config check`."""
    parser.add_argument("file", metavar="FILE", help="a Ray config file (YAML)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure, 2 for wrong input."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.function(args))
    except RayNodeError as error:
        print(f"raynode: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
