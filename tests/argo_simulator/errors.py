"""What goes wrong: with the workflow (the controller refuses it) or with the simulator (it does not know a feature)."""

from __future__ import annotations


class SimulationRefused(Exception):
    """The real controller or server would not accept this workflow."""


class Unsupported(Exception):
    """The workflow uses a part of Argo that the simulator lacks: nothing can be said about it."""


class TemplateError(Exception):
    """A tag, a condition or an argument cannot be resolved: the node ends in Error, with this message."""


class ExpressionError(TemplateError):
    """An expression does not parse, or fails while it is evaluated."""
