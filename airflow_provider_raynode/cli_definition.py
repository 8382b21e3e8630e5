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
    catalog = argument(("--catalog",), metavar="URI", help="the catalog to look in; default: that of Airflow's config")
    runs = ActionCommand(
        name="runs",
        help="List the recorded runs of the Ray nodes",
        func=_command("runs"),
        args=(
            argument(("dag",), nargs="?", metavar="DAG", help="only the runs of this DAG"),
            catalog,
            argument(("--limit",), type=int, default=30, help="show at most so many (30)"),
            argument(("--json",), action="store_true", help="print the records as JSON"),
        ),
    )
    show = ActionCommand(
        name="show",
        help="Print one recorded run, with its trials",
        func=_command("show"),
        args=(
            argument(("run",), metavar="RUN", help="a run id, a submission id, or DAG/RUN/NODE[/MAP_INDEX]"),
            catalog,
            argument(("--node",), metavar="ID", help="which node, where the run has several"),
            argument(("--attempt",), type=int, help="which attempt; default: the last"),
            argument(("--all",), action="store_true", help="show every trial, not the best 20"),
        ),
    )
    return [
        GroupCommand(
            name="raynode",
            help="Ray as one composite node",
            subcommands=(
                run,
                runs,
                show,
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
