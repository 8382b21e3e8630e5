"""The provider's metadata, against Airflow's schemas and as Airflow's own managers see it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_raynode import __version__
from airflow_provider_raynode.hooks._settings import EXTRAS
from airflow_provider_raynode.provider_info import get_provider_info

INFO = get_provider_info()


def schema(name: str) -> dict[str, Any]:
    loaded = json.loads(files("airflow").joinpath(name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def strict(value: Any) -> Any:
    """The schema with every object closed that names its properties."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: strict(item) for key, item in value.items()}
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def test_it_fits_the_schema_of_the_provider_manager() -> None:
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def test_it_has_no_key_that_airflow_does_not_know() -> None:
    """Against the strict schema of provider.yaml, less the keys that only Airflow's own repository needs."""
    full = strict(schema("provider.yaml.schema.json"))
    full["required"] = ["name", "package-name", "description", "versions"]
    # The two that provider.yaml and get_provider_info spell in different places.
    full["properties"]["extra-links"] = {"type": "array", "items": {"type": "string"}}
    jsonschema.validate(INFO, full)


def test_the_strict_schema_sees_a_typo() -> None:
    full = strict(schema("provider.yaml.schema.json"))
    broken = json.loads(json.dumps(INFO))
    broken["connection-types"][0]["conn-fields"]["catalog"]["descripton"] = "x"
    errors = [error.message for error in jsonschema.Draft7Validator(full).iter_errors(broken)]
    assert any("descripton" in message for message in errors)


def test_name_and_version() -> None:
    assert INFO["package-name"] == "airflow-provider-raynode"
    assert INFO["versions"] == [__version__]
    [entry] = [point for point in entry_points(group="apache_airflow_provider") if "raynode" in point.value]
    assert entry.load() is get_provider_info


def test_the_form_has_the_fields_that_the_hook_reads() -> None:
    [connection] = INFO["connection-types"]
    assert set(connection["conn-fields"]) == set(EXTRAS)


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    from airflow.providers_manager import ProvidersManager

    yield ProvidersManager()


def test_the_provider_manager_sees_connection_form_link_and_commands(manager: Any) -> None:
    hook = manager.hooks["ray"]
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Ray", "ray_conn_id")
    assert hook.hook_class_name == "airflow_provider_raynode.hooks.ray.RayHook"
    assert hook.connection_testable
    assert "airflow_provider_raynode.links.ray_job.RayJobLink" in manager.extra_links_class_names
    assert "get_raynode_cli_commands" in {function.__name__ for function in manager.cli_command_functions}


def test_the_form_of_the_ui(manager: Any) -> None:
    """As the API server reads it: from the metadata alone."""
    widgets = {
        name.removeprefix("extra__ray__"): widget
        for name, widget in manager._connection_form_widgets_from_metadata.items()
        if name.startswith("extra__ray__")
    }
    assert set(widgets) == set(EXTRAS)
    assert widgets["secret_headers"].is_sensitive
    assert widgets["verify_tls"].field["value"] is True
    behaviour = manager._field_behaviours_from_metadata["ray"]
    assert behaviour["relabeling"]["password"] == "Token"
    assert set(behaviour["hidden_fields"]) == {"login", "schema", "extra"}


def test_the_token_field_and_the_headers_are_masked_by_airflow() -> None:
    from airflow.sdk._shared.secrets_masker import should_hide_value_for_key

    assert should_hide_value_for_key("password") and should_hide_value_for_key("secret_headers")
    assert not should_hide_value_for_key("catalog")


def test_airflow_raynode_has_the_commands_of_the_console_script() -> None:
    from airflow.cli.cli_config import ActionCommand

    from airflow_provider_raynode.cli import build_parser
    from airflow_provider_raynode.cli_definition import get_raynode_cli_commands

    def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        if isinstance(command, ActionCommand):
            yield (*path, command.name), {flag for arg in command.args for flag in arg.flags}
        else:
            for inner in command.subcommands:
                yield from leaves(inner, (*path, command.name))

    def of_argparse(
        parser: argparse.ArgumentParser, path: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in subparsers:
            for name, inner in action.choices.items():
                yield from of_argparse(inner, (*path, name))
        if not subparsers:
            arguments = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
            yield path, {flag for action in arguments for flag in (action.option_strings or [action.dest])}

    [group] = get_raynode_cli_commands()
    assert dict(leaves(group)) == dict(of_argparse(build_parser(), ("raynode",)))


def test_the_form_of_the_commands_is_cheap() -> None:
    """Airflow imports it at every call of its command line."""
    code = (
        "import sys, airflow.cli.cli_config; before = set(sys.modules);"
        "import airflow_provider_raynode.cli_definition as c, airflow_provider_raynode.provider_info as p;"
        "c.get_raynode_cli_commands(); p.get_provider_info();"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "airflow_provider_raynode.cli_definition" in out
    # None of them imports more than argparse.
    names = ("cli", "cli_definition", "exceptions", "argo", "argo.arguments")
    allowed = {"airflow_provider_raynode", "airflow_provider_raynode.provider_info"}
    assert set(out) - allowed == {f"airflow_provider_raynode.{name}" for name in names}


def test_a_wrong_input_ends_the_command_with_its_message(tmp_path: Path) -> None:
    from airflow_provider_raynode.cli_definition import get_raynode_cli_commands

    [group] = get_raynode_cli_commands()
    run = next(command for command in group.subcommands if command.name == "run")
    arguments = argparse.Namespace(dag_file=str(tmp_path / "none.py"), dag_id=None, conf="{", verbose=False)
    with pytest.raises(SystemExit) as caught:
        run.func(arguments)
    assert caught.value.code not in (0, None)
