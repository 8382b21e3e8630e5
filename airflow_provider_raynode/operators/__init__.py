"""The node's tasks: fan-out, execution, fan-in."""
