"""The kind `pickled`: any Python object, by pickle protocol 5 with cloudpickle's reach."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer

# Airflow imports a DAG file under such a name; no other process can import it by that.
_DAG_FILE_PREFIX = "unusual_prefix_"


class PickledSerializer(Serializer):
    """A pickle. Classes and functions of a DAG file, of `__main__`, lambdas and closures are pickled by value."""

    kind = "pickled"
    suffix = ".pkl"
    runs_code = True

    def accepts(self, value: Any) -> bool:
        """Any value: the last choice."""
        return True

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write a pickle, protocol 5; large buffers are written without a copy."""
        cloudpickle = _cloudpickle()
        with _dag_files_by_value(cloudpickle):
            cloudpickle.Pickler(stream, protocol=5).dump(value)

    def load(self, data: bytearray, name: str) -> Any:
        """Return the object. The caller has verified where it comes from and its digest."""
        return pickle.loads(data)


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:  # a stock Ray image ships its own copy
        from ray import cloudpickle
    return cloudpickle


@contextmanager
def _dag_files_by_value(cloudpickle: Any) -> Iterator[None]:
    registered = cloudpickle.list_registry_pickle_by_value()
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(_DAG_FILE_PREFIX) and isinstance(module, ModuleType) and name not in registered
    ]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
