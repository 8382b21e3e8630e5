"""What `raynode config schema` and `raynode config check FILE` do."""

from __future__ import annotations

import json
import sys
import warnings
from os import PathLike

import yaml

from airflow_provider_raynode.config.ray_config import RayConfig
from airflow_provider_raynode.config.schema import json_schema
from airflow_provider_raynode.exceptions import ConfigError, ConfigWarning


def print_schema() -> None:
    """Print the JSON schema of the config file."""
    print(json.dumps(json_schema(), indent=2))


def check(path: str | PathLike[str]) -> int:
    """Print the resolved config as YAML, and what is wrong or looks wrong on standard error.

    :return: the exit code, 0 or 1.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConfigWarning)
            config = RayConfig.from_file(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for text in config.warnings:
        print(f"{path}: warning: {text}", file=sys.stderr)
    resolved = config.model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), end="")
    return 0
