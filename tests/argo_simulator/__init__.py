"""A simulator of Argo Workflows' controller, for tests: it walks a workflow's YAML and runs every pod as a process.

What it does is taken from the controller's source (Argo 3.7 and 4: dag.go, operator.go, scope.go, ancestry.go,
expression_template.go, validate.go); where the versions differ the stricter one is followed. `simulate` is the entry;
`ForkServer` makes pods of `raynode` cheap.
"""

from __future__ import annotations

from argo_simulator.errors import SimulationRefused, Unsupported
from argo_simulator.fork_server import ForkServer
from argo_simulator.nodes import Node, Result, Try
from argo_simulator.simulation import simulate

__all__ = ["ForkServer", "Node", "Result", "SimulationRefused", "Try", "Unsupported", "simulate"]
