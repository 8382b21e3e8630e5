"""The task group that bundles a node's tasks."""
