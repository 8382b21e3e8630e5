"""The worker of a plain function: an actor that calls it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime.call import CallSetup, call, secrets_of
from airflow_provider_raynode.runtime.function_call import FunctionSession, Outcome, Returned, failure_uri
from airflow_provider_raynode.runtime.steps import Steps
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.spec import NodeFailure, NodeSpec

# The tag of the function's lines.
TAG = "function"


@dataclass(frozen=True, kw_only=True)
class FunctionSetup(CallSetup):
    """What the worker knows of its node."""

    spec: NodeSpec
    returned: Returned = "named"


class FunctionWorker:
    """Runs in a process of its own, on some machine of the cluster."""

    def __init__(self, setup: FunctionSetup) -> None:
        self._setup = setup

    def ready(self) -> None:
        """Answer that the process is there."""

    def run(self, args: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[Outcome, NodeFailure | None]:
        """Call the function; return what it came to, and why it failed.

        :param args: its arguments by position.
        :param inputs: those by name.
        """
        with tagged(TAG):
            return self._run(args, inputs)

    def _run(self, args: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[Outcome, NodeFailure | None]:
        setup = self._setup
        catalog = setup.catalog()
        session = FunctionSession(
            run=setup.run,
            attempt=setup.attempt,
            catalog=catalog.child("function"),
            secrets=secrets_of(setup, catalog),
            store=_store(catalog, setup.driver),
            returns=setup.returns,
            attempt_catalog=catalog,
            returned=setup.returned,
            steps=Steps(setup.spec, catalog),
        )
        failures: list[NodeFailure] = []

        def record(failure: NodeFailure) -> None:
            failures.append(failure)
            with suppress(CatalogError):  # the function's own error is the one to see
                catalog.write_bytes(failure_uri(catalog), failure.to_bytes())

        try:
            outcome: Outcome = call(setup, session, {}, inputs, args=args, record=record)
        except BaseException:
            if not failures:
                raise
            return session.so_far(), failures[-1]
        return outcome, None


def _store(attempt: Catalog, driver: int) -> Catalog:
    """Return the folder of the outputs: those of a driver that was cut off, and runs on, are not in the way."""
    return attempt.child("outputs" if driver == 1 else f"outputs/driver_{driver}")
