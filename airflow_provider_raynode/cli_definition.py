"""`airflow raynode …`: the form of the commands. Airflow imports this at each call, so it imports little."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


def get_raynode_cli_commands() -> list[CLICommand]:
    """Return the group `raynode`, with the commands of the console script `raynode`."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand
    from airflow.cli.cli_config import Arg as untyped_arg  # noqa: N813  a class, called like a function below

    # Airflow leaves its signature without types.
    argument: Callable[..., Any] = untyped_arg
    config = (
        ActionCommand(name="schema", help="Print the file's JSON schema", func=_command("config_schema"), args=()),
        ActionCommand(
            name="check",
            help="Print the resolved config of FILE, or its errors",
            func=_command("config_check"),
            args=(argument(("file",), metavar="FILE", help="a Ray config file (YAML)"),),
        ),
    )
    run = ActionCommand(
        name="run",
        help="Run a DAG here, with no services, and watch it",
        func=_command("run"),
        args=(
            argument(("dag_file",), metavar="DAG_FILE", help="path of the DAG file"),
            argument(("--dag-id",), help="which DAG, where the file holds several"),
            argument(("--conf",), help="the run's conf, a JSON object"),
            argument(("--verbose",), action="store_true", help="show Airflow's whole log in place of the live view"),
        ),
    )
    return [
        GroupCommand(
            name="raynode",
            help="Ray as one composite node",
            subcommands=(
                run,
                GroupCommand(name="config", help="The Ray config file: schema, check", subcommands=config),
            ),
        )
    ]


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
