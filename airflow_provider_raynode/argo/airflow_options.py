"""Options of Airflow for one call of the runner, by the environment, where Airflow looks first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

# Airflow's examples bring listeners along, which print in every task.
_ALWAYS = {"core": {"load_examples": "False"}}


def configured(path: str | Path | None) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the runner's configuration file counts; without a file, Airflow's own settings do.

    :raises ConfigError: the file cannot be read, or something in it is wrong.
    """
    if not path:
        return applied({})
    # Not at the top: most pods have no such file, and its models take their time to import.
    from airflow_provider_raynode.argo.runner_configuration import RunnerConfiguration

    return applied(RunnerConfiguration.load(path).options())


@contextlib.contextmanager
def applied(options: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
    """Put options, by section, into the environment where they are not set yet; take them out again afterwards."""
    wanted = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": value
        for every in (_ALWAYS, options)
        for section, values in every.items()
        for name, value in values.items()
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
