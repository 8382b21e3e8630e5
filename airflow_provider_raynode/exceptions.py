"""The errors of this package: each names what is wrong, where, and what would be right."""

from __future__ import annotations


class RayNodeError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(RayNodeError, ValueError):
    """A Ray configuration (file, dict or node argument) is wrong.

    The message has one line per problem: file, key path, value, what is allowed, and the nearest key for a typo.
    """


class ConfigWarning(UserWarning):
    """A Ray configuration says what its author most likely does not mean; it is taken as it stands."""


class ArgumentError(ConfigError, TypeError):
    """A node has no argument of that name, or lacks one."""


class NodeWarning(UserWarning):
    """What a DAG file says of a node has no effect, or most likely another one than meant."""


class CatalogError(RayNodeError):
    """A catalog object cannot be written, found, verified or loaded."""


class SpecError(RayNodeError):
    """A contract between the rooms (spec, result, job reference) is missing, truncated, altered or too new."""


class BindingError(RayNodeError, TypeError):
    """The function's arguments do not fit the search space and op_kwargs."""


class ClusterError(RayNodeError):
    """The Ray cluster cannot be reached, refuses, or does not fit (version, Python, resources)."""


class ConnectionReadError(ClusterError):
    """Airflow does not give a connection, for a reason that says nothing on whether it is defined."""


class NodeFailedError(RayNodeError):
    """The Ray job of a node failed; the message is the job's own, with the failing trial's traceback."""


class SearchStateError(RayNodeError):
    """The state that a search was to go on from is another search's, or damaged."""


class DagFileError(RayNodeError):
    """The DAG file cannot be loaded, or holds not the DAG that was asked for."""
