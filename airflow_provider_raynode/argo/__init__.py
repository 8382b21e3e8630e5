"""Argo Workflows: the export of a DAG, the runner of its tasks, the offline check."""
