"""What of Airflow's own DAG classes has no public name: registered DAGs, expand inputs, unset arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG


@contextlib.contextmanager
def registering(module_name: str) -> Iterator[Callable[[], list[DAG]]]:
    """Collect the DAGs that register themselves while a module runs; gives a function that returns them."""
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    DagContext.autoregistered_dags.clear()
    DagContext.current_autoregister_module_name = module_name
    try:
        yield lambda: [dag for dag, _ in DagContext.autoregistered_dags]
    finally:
        DagContext.autoregistered_dags.clear()
        DagContext.current_autoregister_module_name = None


def expand_input(mapped: Any) -> Any:
    """Return what a mapped task or mapped task group expands over, as the SDK holds it."""
    return mapped._expand_input if hasattr(mapped, "_expand_input") else mapped._get_specified_expand_input()


def has_fill_value(zipped: Any) -> bool:
    """Whether a zip of XComs was given a fill value."""
    from airflow.sdk.definitions._internal.types import is_arg_set

    return bool(is_arg_set(zipped.fillvalue))
