"""`airflow raynode …`: the form of the commands. Airflow imports this at each call, so it imports little."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand, CLICommand


def get_raynode_cli_commands() -> list[CLICommand]:
    """Return the group `raynode`, with the commands of the console script `raynode`."""
    from airflow.cli.cli_config import GroupCommand

    from airflow_provider_raynode import cli
    from airflow_provider_raynode.argo import arguments

    argo = (
        _action("export", "Translate a DAG to Argo manifests", "argo_export", arguments.add_export_arguments),
        _action("lint", "Check Argo manifests without a cluster", "argo_lint", arguments.add_lint_arguments),
        _action("run-task", "Run one task of a DAG, in a pod", "argo_run_task", arguments.add_run_task_arguments),
        _action(
            "run-callbacks",
            "Run a DAG's callbacks, when its workflow has ended",
            "argo_run_callbacks",
            arguments.add_run_callbacks_arguments,
        ),
        _action(
            "end-ray-jobs",
            "End the RayJobs of a workflow that is over",
            "argo_end_ray_jobs",
            arguments.add_end_ray_jobs_arguments,
        ),
        _action(
            "make-way",
            "End what earlier tries of a RayJob left, before it is applied",
            "argo_make_way",
            arguments.add_make_way_arguments,
        ),
    )
    config = (
        _action("schema", "Print the file's JSON schema", "config_schema", lambda _: None),
        _action(
            "check", "Print the resolved config of FILE, or its errors", "config_check", cli.add_config_check_arguments
        ),
    )
    return [
        GroupCommand(
            name="raynode",
            help="Ray as one composite node",
            subcommands=(
                _action("run", "Run a DAG here, with no services, and watch it", "run", cli.add_run_arguments),
                _action("runs", "List the recorded runs of the Ray nodes", "runs", cli.add_runs_arguments),
                _action("show", "Print one recorded run, with its trials", "show", cli.add_show_arguments),
                GroupCommand(name="config", help="The Ray config file: schema, check", subcommands=config),
                GroupCommand(
                    name="argo", help="Argo Workflows: export a DAG, check manifests, run a task", subcommands=argo
                ),
            ),
        )
    ]


class _Recorder(argparse.ArgumentParser):
    """Takes the arguments that the console script adds to a parser, in the form of Airflow's."""

    def __init__(self) -> None:
        super().__init__(add_help=False)
        self.found: list[Any] = []

    def add_argument(self, *flags: Any, **options: Any) -> Any:
        from airflow.cli.cli_config import Arg as untyped_arg  # noqa: N813  a class, called like a function below

        # Airflow leaves its signature without types.
        argument: Callable[..., Any] = untyped_arg
        self.found.append(argument(flags, **options))


def _action(name: str, text: str, function: str, add: Callable[[argparse.ArgumentParser], None]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand

    recorder = _Recorder()
    add(recorder)
    return ActionCommand(name=name, help=text, func=_command(function), args=tuple(recorder.found))


def _command(name: str) -> Callable[[argparse.Namespace], None]:
    """Return a command that loads its function when it runs, and ends the process with its exit code."""

    def command(args: argparse.Namespace) -> None:
        from airflow_provider_raynode import cli
        from airflow_provider_raynode.exceptions import RayNodeError

        try:
            code = getattr(cli, name)(args)
        except RayNodeError as error:
            sys.exit(f"raynode: {error}")
        if code:
            sys.exit(code)

    command.__name__ = name
    return command
